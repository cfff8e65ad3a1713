import ABI
import Tasks
import VFS

/// A file system whose files are made up when they are looked at.
enum PseudoFileSystem {
  /// Device numbers, which statfs(2) tells the kinds apart by.
  static let processDevice: UInt64 = 0x16
  static let systemDevice: UInt64 = 0x15
  nonisolated(unsafe) private static var nextInode: UInt64 = 1

  static func status(mode: UInt32, device: UInt64, inode: UInt64 = 0) -> FileStatus {
    var status = FileStatus()
    status.device = device
    status.mode = mode
    status.inode = inode
    if inode == 0 {
      status.inode = nextInode
      nextInode += 1
    }
    status.blockSize = device == processDevice ? 1024 : 4096
    let now = host.realtimeNanoseconds
    status.accessed = now
    status.modified = now
    status.changed = now
    return status
  }
}

/// A directory whose names come from elsewhere. Names cannot be made or removed (proc(5)).
class PseudoDirectory: Inode {
  struct Entry {
    var name: [UInt8]
    var inode: UInt64
    var mode: UInt32
    /// Past 2, ascending, the same for a name as long as it is there.
    var cookie: Int64
  }

  /// The names whose cookie is past `cookie`, in order of the cookies. ENOENT when what it describes has gone.
  func entries(after cookie: Int64) throws(Errno) -> [Entry] { [] }

  override func create(
    _ name: [UInt8], mode: UInt32, user: UInt32, group: UInt32, device: UInt64, target: [UInt8]
  ) throws(Errno) -> Inode { throw mode & 0o170000 == 0o100000 ? .noSuchFile : .notPermitted }
  override func link(_ name: [UInt8], to inode: Inode) throws(Errno) { throw .notPermitted }
  override func unlink(_ name: [UInt8], directory: Bool) throws(Errno) { throw .notPermitted }
  override func rename(_ name: [UInt8], to newParent: Inode, as newName: [UInt8], flags: UInt32)
    throws(Errno)
  { throw .notPermitted }
  override func setAttributes(mode: UInt32?, user: UInt32?, group: UInt32?) throws(Errno) {
    throw .notPermitted
  }
  override func setTimes(accessed: UInt64?, modified: UInt64?) throws(Errno) { throw .notPermitted }
  override func open(flags: UInt32) throws(Errno) -> OpenFile {
    PseudoDirectoryFile(inode: self, flags: flags)
  }
}

/// A directory of files that always are there.
class FixedDirectory: PseudoDirectory {
  private(set) var children: [(name: [UInt8], inode: Inode)] = []

  /// A directory of the procfs, or of the sysfs.
  init(device: UInt64) {
    super.init(status: PseudoFileSystem.status(mode: 0o040555, device: device))
    status.links = 2
  }

  func add(_ name: [UInt8], _ inode: Inode) {
    children.append((name, inode))
    if inode.isDirectory { status.links += 1 }
  }

  /// A file whose content is made at each reading.
  func add(
    _ name: StaticString, mode: UInt32 = 0o444, store: TextFile.Store? = nil,
    _ content: @escaping TextFile.Content
  ) {
    add(
      bytes(name),
      TextFile(
        status: PseudoFileSystem.status(mode: 0o100000 | mode, device: status.device), content: content,
        store: store))
  }

  /// A file that always says the same, a line.
  func add(_ name: StaticString, line text: StaticString, mode: UInt32 = 0o444) {
    let content = line(text)
    add(name, mode: mode) { () throws(Errno) -> [UInt8] in content }
  }

  func add(_ name: StaticString, linkTo target: [UInt8]) {
    add(
      bytes(name),
      PseudoLink(status: PseudoFileSystem.status(mode: 0o120777, device: status.device)) {
        () throws(Errno) -> [UInt8] in target
      })
  }

  /// A new directory inside.
  func directory(_ name: [UInt8]) -> FixedDirectory {
    let inner = FixedDirectory(device: status.device)
    add(name, inner)
    return inner
  }
  func directory(_ name: StaticString) -> FixedDirectory { directory(bytes(name)) }

  override func lookup(_ name: [UInt8]) throws(Errno) -> Inode {
    for child in children where child.name == name { return child.inode }
    throw .noSuchFile
  }

  override func entries(after cookie: Int64) throws(Errno) -> [Entry] {
    var list: [Entry] = []
    for (index, child) in children.enumerated() where Int64(index + 3) > cookie {
      list.append(
        Entry(
          name: child.name, inode: child.inode.status.inode, mode: child.inode.status.mode,
          cookie: Int64(index + 3)))
    }
    return list
  }
}

/// A directory in use (getdents64(2)); the offset is the last entry's cookie: 1 `.`, 2 `..`.
final class PseudoDirectoryFile: OpenFile {
  private let directory: PseudoDirectory

  init(inode: PseudoDirectory, flags: UInt32) {
    directory = inode
    super.init(inode: inode, flags: flags)
  }

  override func read(_ slice: UserSlice) throws(Errno) -> Int { throw .isDirectory }

  override func seek(_ offset: Int64, whence: Int32) throws(Errno) -> Int64 { try move(offset, whence) }

  override func readDirectory(_ slice: UserSlice) throws(Errno) -> Int {
    var output = DirectoryRecords(space: slice.count)
    var place = offset
    if place < 1 {
      guard output.add([0x2e], directory.status.inode, directory.status.mode, 1) else { throw .invalid }
      place = 1
    }
    let parent = path?.parent?.inode.status.inode ?? directory.status.inode
    if place < 2, output.add([0x2e, 0x2e], parent, 0o040000, 2) { place = 2 }
    if place >= 2 {
      for entry in try directory.entries(after: place) {
        guard output.add(entry.name, entry.inode, entry.mode, entry.cookie) else {
          if output.bytes.isEmpty { throw .invalid }
          break
        }
        place = entry.cookie
      }
    }
    try slice.store(output.bytes)
    offset = place
    return output.bytes.count
  }
}

/// A symbolic link whose target is made when it is read.
final class PseudoLink: Inode {
  private let target: () throws(Errno) -> [UInt8]

  init(status: FileStatus, target: @escaping () throws(Errno) -> [UInt8]) {
    self.target = target
    super.init(status: status)
  }

  override func readLink() throws(Errno) -> [UInt8] { try target() }
  override func setAttributes(mode: UInt32?, user: UInt32?, group: UInt32?) throws(Errno) {
    throw .notPermitted
  }
}

/// A file whose text is made when it is read from its start, and stays the same until then.
final class TextFile: Inode {
  typealias Content = () throws(Errno) -> [UInt8]
  /// Takes what one write(2) wrote.
  typealias Store = ([UInt8]) throws(Errno) -> Void
  let content: Content
  let store: Store?

  init(status: FileStatus, content: @escaping Content, store: Store? = nil) {
    self.content = content
    self.store = store
    super.init(status: status)
  }

  override func open(flags: UInt32) throws(Errno) -> OpenFile { OpenTextFile(self, flags: flags) }
  /// Control files are truncated by every shell's `>`: it means nothing.
  override func truncate(_ size: Int64) throws(Errno) {}
  override func setAttributes(mode: UInt32?, user: UInt32?, group: UInt32?) throws(Errno) {
    throw .notPermitted
  }
  override func setTimes(accessed: UInt64?, modified: UInt64?) throws(Errno) { throw .notPermitted }
}

extension UserSlice {
  /// Copies as much of a file's text from `offset` on as fits; how many bytes, 0 past its end.
  func store(_ text: [UInt8], from offset: Int64) throws(Errno) -> Int {
    guard offset < Int64(text.count) else { return 0 }
    let start = Int(offset)
    let length = min(count, text.count - start)
    try store(start == 0 && length == text.count ? text : Array(text[start..<start + length]))
    return length
  }
}

/// A `TextFile` in use.
final class OpenTextFile: OpenFile {
  private static let largestWrite = 4096
  private let file: TextFile
  private var text: [UInt8]?

  init(_ file: TextFile, flags: UInt32) {
    self.file = file
    super.init(inode: file, flags: flags)
  }

  override func read(_ slice: UserSlice) throws(Errno) -> Int {
    advance(by: try read(slice, at: offset))
  }

  override func read(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    guard offset >= 0 else { throw .invalid }
    let current: [UInt8]
    if offset > 0, let text { current = text } else { current = try file.content() }
    text = current
    return try slice.store(current, from: offset)
  }

  override func write(_ slice: UserSlice) throws(Errno) -> Int {
    guard let store = file.store else { throw .inputOutput }
    guard slice.count <= OpenTextFile.largestWrite else { throw .invalid }
    try store(try slice.bytes())
    offset += Int64(slice.count)
    return slice.count
  }

  override func write(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int { try write(slice) }

  override func seek(_ offset: Int64, whence: Int32) throws(Errno) -> Int64 { try move(offset, whence) }
}
