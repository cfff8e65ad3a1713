import ArgumentParser
import Glibc
import Ext4
import Image
import ImageBuilder

struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Show what an image runs and contains.")

  @Flag(help: "Show the system calls of the host that the image may make.")
  var policy = false

  @Argument(help: ArgumentHelp("The image file.", valueName: "IMAGE"))
  var image: String

  func run() throws {
    let file = try MappedFile(Path(image))
    defer { file.keepAlive() }
    let kind = classify(file.bytes)
    if kind == .truncatedImage {
      throw BuildError("\(image) is a truncated image; build it again", exitStatus: 126)
    }
    let reader = try readImage(file, image)
    if policy { try printPolicy() }
    writeLine(String(decoding: reader.manifest.serialise(), as: UTF8.self), to: STDOUT_FILENO)
    if reader.manifest.isolation == nil {
      writeLine("isolation of its own choice: mpk where the bare host has it, else none", to: STDOUT_FILENO)
    }
    try writeFiles(of: reader, size: file.bytes.count)
  }

  private func writeFiles(of reader: ImageReader, size: Int) throws(BuildError) {
    let root = try ImageRoot(reader)
    var lines = ""
    var (total, count) = (0, 0)
    var names: [UInt32: Path] = [:]
    try root.visit { (path, inode) throws(BuildError) in
      // What mke2fs makes for e2fsck is none of the image's files.
      if path == Path("lost+found") { return }
      var target = ""
      if inode.isSymlink, let link = try? root.fileSystem.readLink(inode) { target = " -> " + link.text }
      if inode.links > 1, !inode.isDirectory {
        if let first = names[inode.number] { target = " = /" + first.text }
        names[inode.number] = path
      }
      count += 1
      let bytes = inode.isDirectory || target.hasPrefix(" =") ? 0 : Int(inode.size)
      total += bytes
      let digits = String(bytes)
      let blanks = String(repeating: " ", count: max(0, 10 - digits.utf8.count))
      let mode = String(inode.mode, radix: 8)
      lines += "\(mode) \(inode.user):\(inode.group) \(blanks)\(digits) /\(path.text)\(target)\n"
    }
    lines += "\(count) files, \(total) bytes of data; image \(size) bytes,"
    writeLine(lines + " libOS \(reader.rootOffset) bytes, root \(reader.root.count) bytes", to: STDOUT_FILENO)
  }

  /// The image itself knows its policy: asks it in place of this process.
  private func printPolicy() throws(BuildError) {
    var arguments: [UnsafeMutablePointer<CChar>?] = [strdup(image), nil]
    var environment: [UnsafeMutablePointer<CChar>?] = [strdup("SWIFTLET_PRINT_POLICY=1"), nil]
    execve(image, &arguments, &environment)
    throw BuildError("cannot execute \(image): \(String(cString: strerror(errno)))", exitStatus: 126)
  }
}
