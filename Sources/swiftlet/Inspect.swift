import ArgumentParser
import Glibc
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
    var lines = ""
    var total = 0
    for index in 0..<reader.entryCount {
      let entry = reader.entry(index)
      total += entry.data.count
      lines += line(entry, reader) + "\n"
    }
    lines += "\(reader.entryCount) files, \(total) bytes of data; image \(file.bytes.count) bytes,"
    writeLine(lines + " libOS \(reader.archiveOffset) bytes", to: STDOUT_FILENO)
  }

  private func line(_ entry: ImageEntry, _ reader: ImageReader) -> String {
    let path = "/" + String(decoding: entry.path, as: UTF8.self)
    var target = ""
    if entry.fileType == FileType.symbolicLink {
      target = " -> " + String(decoding: entry.data, as: UTF8.self)
    }
    if let link = entry.hardLinkIndex {
      target = " = /" + String(decoding: reader.entry(link).path, as: UTF8.self)
    }
    let size = String(entry.data.count)
    let mode = String(entry.mode, radix: 8)
    let blanks = String(repeating: " ", count: max(0, 10 - size.utf8.count))
    return "\(mode) \(entry.uid):\(entry.gid) \(blanks)\(size) \(path)\(target)"
  }

  /// The image itself knows its policy: asks it in place of this process.
  private func printPolicy() throws(BuildError) {
    var arguments: [UnsafeMutablePointer<CChar>?] = [strdup(image), nil]
    var environment: [UnsafeMutablePointer<CChar>?] = [strdup("SWIFTLET_PRINT_POLICY=1"), nil]
    execve(image, &arguments, &environment)
    throw BuildError("cannot execute \(image): \(String(cString: strerror(errno)))", exitStatus: 126)
  }
}
