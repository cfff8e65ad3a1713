import CHostCommand
import Glibc

/// An open file descriptor that is closed at the end of its life.
public struct HostFile: ~Copyable {
  public let descriptor: Int32

  public init(owning descriptor: Int32) { self.descriptor = descriptor }

  deinit { close(descriptor) }

  /// Opens for reading.
  static func open(_ path: Path) throws(BuildError) -> HostFile {
    let descriptor = path.withCString { Glibc.open($0, O_RDONLY | O_CLOEXEC) }
    guard descriptor >= 0 else {
      throw .system("open", path, exitStatus: errno == ENOENT ? 127 : 126)
    }
    return HostFile(owning: descriptor)
  }
}

/// A file mapped for reading. The bytes live as long as this object, so whoever uses them calls `keepAlive`
/// last.
public final class MappedFile {
  public let bytes: UnsafeRawBufferPointer

  public convenience init(_ path: Path) throws(BuildError) {
    let file = try HostFile.open(path)
    try self.init(descriptor: file.descriptor, path)
  }

  /// The descriptor stays the caller's. `path` is for messages.
  public init(descriptor: Int32, _ path: Path) throws(BuildError) {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw .system("read", path) }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw BuildError("\(path.text) is not a regular file", exitStatus: 126)
    }
    let length = Int(status.st_size)
    guard length > 0 else {
      bytes = UnsafeRawBufferPointer(start: nil, count: 0)
      return
    }
    let address = mmap(nil, length, PROT_READ, MAP_PRIVATE, descriptor, 0)
    guard let address, address != MAP_FAILED else { throw .system("map", path) }
    bytes = UnsafeRawBufferPointer(start: address, count: length)
  }

  public func keepAlive() { withExtendedLifetime(self) {} }

  /// The content, independent of the mapping.
  public func copy() -> [UInt8] { withExtendedLifetime(self) { Array(bytes) } }

  deinit {
    if let address = bytes.baseAddress { munmap(UnsafeMutableRawPointer(mutating: address), bytes.count) }
  }
}

/// Returns nil if there is no such file.
func linkStatus(_ path: Path) -> stat? {
  var status = stat()
  return path.withCString { lstat($0, &status) } == 0 ? status : nil
}

func readLink(_ path: Path) throws(BuildError) -> Path {
  let target = path.withCString { name in
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { buffer -> Path? in
      let length = readlink(name, buffer.baseAddress.unsafelyUnwrapped, buffer.count)
      return length < 0 ? nil : buffer[..<length].map { UInt8(bitPattern: $0) }
    }
  }
  guard let target else { throw .system("read the symbolic link", path) }
  return target
}

/// The names in a directory except `.` and `..`, sorted, so that equal trees give equal images.
func directoryNames(_ path: Path) throws(BuildError) -> [Path] {
  guard let stream = path.withCString({ opendir($0) }) else { throw .system("read the directory", path) }
  defer { closedir(stream) }
  var names: [Path] = []
  while let entry = readdir(stream) {
    let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
      Path(bytes.prefix { $0 != 0 })
    }
    if name != Path(".") && name != Path("..") { names.append(name) }
  }
  return names.sorted { $0.lexicographicallyPrecedes($1) }
}

/// What belongs to a file wherever it goes (xattr(7)): a program's own attributes, file capabilities, access lists. Others
/// are this machine's.
func extendedAttributes(_ path: Path) -> [(name: [UInt8], value: [UInt8])] {
  path.withCString { path in
    var list = [CChar](repeating: 0, count: 4096)
    let length = llistxattr(path, &list, list.count)
    guard length > 0 else { return [] }
    var result: [(name: [UInt8], value: [UInt8])] = []
    for part in list[..<length].split(separator: 0) {
      let name = part.map { UInt8(bitPattern: $0) }
      guard
        name.starts(with: "user.".utf8) || name.elementsEqual("security.capability".utf8)
          || name.starts(with: "system.posix_acl_".utf8)
      else { continue }
      var value = [UInt8](repeating: 0, count: 4096)
      let size = lgetxattr(path, Array(part) + [0], &value, value.count)
      if size >= 0 { result.append((name, Array(value[..<size]))) }
    }
    return result.sorted { $0.name.lexicographicallyPrecedes($1.name) }
  }
}
