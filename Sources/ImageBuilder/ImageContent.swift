import ABI
import Ext4
import Image

/// What a file is, from its bytes alone.
public enum FileKind {
  case image, truncatedImage, other
}

/// Tells images from other files. An image without its trailer is still a libOS followed by a file system.
public func classify(_ bytes: UnsafeRawBufferPointer) -> FileKind {
  if bytes.count >= 64, bytes[(bytes.count - 64)...].starts(with: "SWIFTLET".utf8) { return .image }
  if RootSegment.exists(in: bytes) { return .truncatedImage }
  guard ELFFile.hasMagic(bytes), let elf = try? ELFFile(bytes, name: []) else { return .other }
  let end = (Int(elf.length) + ImageFormat.pageSize - 1) / ImageFormat.pageSize * ImageFormat.pageSize
  // s_magic of ext4's superblock.
  let magic = end + 1024 + 56
  guard magic + 2 <= bytes.count, bytes[magic] == 0x53, bytes[magic + 1] == 0xef else { return .other }
  return .truncatedImage
}

/// An image's root file system, to be read by the command.
public struct ImageRoot {
  public let fileSystem: FileSystem

  public init(_ reader: ImageReader) throws(BuildError) {
    do throws(MountError) {
      fileSystem = try FileSystem.mount(MappedDevice(reader.root), clock: ImageClock(), readOnly: true)
    } catch { throw BuildError("the image's root file system is damaged: \(error.reason)") }
  }

  /// The content of the regular file at `path`, following no links; nil if there is none.
  public func data(of path: String) -> [UInt8]? {
    guard var inode = try? fileSystem.inode(FileSystem.rootNumber) else { return nil }
    for name in Path(path).components {
      guard let number = try? fileSystem.lookup(Path(name), in: inode),
        let next = try? fileSystem.inode(number)
      else { return nil }
      inode = next
    }
    guard inode.isRegular else { return nil }
    var bytes = [UInt8](repeating: 0, count: Int(inode.size))
    let count = bytes.withUnsafeMutableBytes { try? fileSystem.read(inode, at: 0, into: $0) }
    return count == bytes.count ? bytes : nil
  }

  public var userDatabase: UserDatabase {
    UserDatabase(passwd: data(of: "etc/passwd") ?? [], group: data(of: "etc/group") ?? [])
  }

  /// Calls `body` for every file below the root with its path and inode, directories before what is in them, in the
  /// order of their names.
  public func visit(_ body: (Path, DiskInode) throws(BuildError) -> Void) throws(BuildError) {
    try visit([], FileSystem.rootNumber, body)
  }

  private func visit(_ path: Path, _ number: UInt32, _ body: (Path, DiskInode) throws(BuildError) -> Void)
    throws(BuildError)
  {
    let (inode, names) = try read(path, number)
    try body(path, inode)
    for entry in names.sorted(by: { $0.name.lexicographicallyPrecedes($1.name) }) {
      try visit(path.appending(entry.name), entry.inode, body)
    }
  }

  private func read(_ path: Path, _ number: UInt32) throws(BuildError) -> (DiskInode, [DirectoryEntry]) {
    do throws(Errno) {
      let inode = try fileSystem.inode(number)
      var names: [DirectoryEntry] = []
      var cookie: UInt64 = 0
      while inode.isDirectory {
        let part = try fileSystem.entries(of: inode, after: cookie)
        guard let last = part.last else { break }
        names += part
        cookie = last.cookie
      }
      return (inode, names)
    } catch { throw BuildError("/\(path.text) cannot be read in the image: error \(error.rawValue)") }
  }
}

extension ProgramPacker {
  /// Checks that the program at `path` and its libraries are in the tree, without adding anything.
  public func checkProgram(_ path: Path) throws(BuildError) {
    var next = path
    for _ in 0..<5 {
      guard let interpreter = try scriptInterpreter(of: next, in: tree) else {
        _ = try resolver.dependencies(of: next)
        return
      }
      guard try tree.resolve(interpreter.program) != nil else {
        throw BuildError("\(next.text) needs \(interpreter.program.text), which does not exist")
      }
      next = interpreter.program
    }
    throw BuildError("\(path.text): too many levels of script interpreters", exitStatus: 126)
  }
}
