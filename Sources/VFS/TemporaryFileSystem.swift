public import ABI
public import Tasks

/// Files in memory (tmpfs(5)): the root, /tmp, /dev. Kernel lock held.
public enum TemporaryFileSystem {
  nonisolated(unsafe) private static var nextInode: UInt64 = 1
  /// The device number of the root's file system; others have numbers of their own from `firstDevice` on.
  public static let device: UInt64 = 0x1b
  private static let firstDevice: UInt64 = 0x40
  nonisolated(unsafe) private static var nextDevice = firstDevice

  /// The device is a file system of this kind.
  public static func owns(_ number: UInt64) -> Bool {
    number == device || number >= firstDevice && number < nextDevice
  }

  static func status(mode: UInt32, user: UInt32, group: UInt32, on device: UInt64 = device) -> FileStatus {
    var status = FileStatus()
    status.device = device
    status.inode = nextInode
    nextInode += 1
    status.mode = mode
    status.user = user
    status.group = group
    let now = host.realtimeNanoseconds
    status.accessed = now
    status.modified = now
    status.changed = now
    return status
  }

  public static func makeRoot() -> TemporaryDirectory {
    TemporaryDirectory(status: status(mode: 0o040755, user: 0, group: 0))
  }

  /// A new file system (mount(2) of type tmpfs).
  public static func makeFileSystem(mode: UInt32, user: UInt32, group: UInt32) -> TemporaryDirectory {
    defer { nextDevice += 1 }
    return TemporaryDirectory(
      status: status(mode: 0o040000 | mode & 0o7777, user: user, group: group, on: nextDevice))
  }

  static func make(
    mode: UInt32, user: UInt32, group: UInt32, device: UInt64, target: [UInt8],
    on fileSystem: UInt64 = TemporaryFileSystem.device
  ) throws(Errno) -> Inode {
    var status = status(mode: mode, user: user, group: group, on: fileSystem)
    status.rawDevice = device
    switch mode & 0o170000 {
    case 0o040000: return TemporaryDirectory(status: status)
    case 0o100000: return TemporaryFile(status: status)
    case 0o120000: return TemporaryLink(status: status, target: target)
    case 0o010000: return TemporaryPipe(status: status)
    case 0o020000, 0o060000: return DeviceInode(status: status)
    case 0o140000: return Inode(status: status)
    default: throw .invalid
    }
  }
}

/// A directory: names in order of creation, so that reading it survives changes.
public final class TemporaryDirectory: Inode {
  struct Entry {
    var name: [UInt8]
    var inode: Inode
    var cookie: Int64
  }
  private(set) var entries: [[UInt8]: Entry] = [:]
  private var nextCookie: Int64 = 3

  override init(status: FileStatus) {
    super.init(status: status)
    self.status.links = 2
  }

  public override func lookup(_ name: [UInt8]) throws(Errno) -> Inode {
    guard let entry = entries[name] else { throw .noSuchFile }
    return entry.inode
  }

  private func touch() {
    let now = host.realtimeNanoseconds
    status.modified = now
    status.changed = now
    status.size = Int64(entries.count * 20)
  }

  /// Room for one more name: a big directory's table doubles. ENOSPC.
  private func reserve() throws(Errno) {
    guard entries.count >= 64, entries.count >= entries.capacity else { return }
    let slot = MemoryLayout<[UInt8]>.stride + MemoryLayout<Entry>.stride + 1
    guard (try? MemoryLimit.checkHeap(bytes: entries.count * 4 * slot)) != nil else { throw .noSpace }
  }

  private func add(_ name: [UInt8], _ inode: Inode) {
    entries[name] = Entry(name: name, inode: inode, cookie: nextCookie)
    nextCookie += 1
    if inode.isDirectory { status.links += 1 }
    touch()
  }

  private func drop(_ name: [UInt8]) {
    guard let entry = entries.removeValue(forKey: name) else { return }
    if entry.inode.isDirectory { status.links -= 1 }
    touch()
  }

  public override func create(
    _ name: [UInt8], mode: UInt32, user: UInt32, group: UInt32, device: UInt64, target: [UInt8]
  ) throws(Errno) -> Inode {
    guard entries[name] == nil else { throw .fileExists }
    guard status.links > 0 else { throw .noSuchFile }
    try reserve()
    let isSetGroup = status.mode & 0o2000 != 0
    let inode = try TemporaryFileSystem.make(
      mode: isSetGroup && mode & 0o170000 == 0o040000 ? mode | 0o2000 : mode, user: user,
      group: isSetGroup ? status.group : group, device: device, target: target, on: status.device)
    add(name, inode)
    return inode
  }

  public override func createUnnamed(mode: UInt32, user: UInt32, group: UInt32) throws(Errno) -> Inode {
    let isSetGroup = status.mode & 0o2000 != 0
    let inode = try TemporaryFileSystem.make(
      mode: mode, user: user, group: isSetGroup ? status.group : group, device: 0, target: [],
      on: status.device)
    inode.status.links = 0
    return inode
  }

  public override func children() throws(Errno) -> [[UInt8]] { Array(entries.keys) }

  public override func link(_ name: [UInt8], to inode: Inode) throws(Errno) {
    guard entries[name] == nil else { throw .fileExists }
    guard !inode.isDirectory else { throw .notPermitted }
    guard status.links > 0 else { throw .noSuchFile }
    try reserve()
    inode.status.links += 1
    inode.status.changed = host.realtimeNanoseconds
    add(name, inode)
  }

  public override func unlink(_ name: [UInt8], directory: Bool) throws(Errno) {
    guard let entry = entries[name] else { throw .noSuchFile }
    try check(removing: entry.inode, directory: directory)
    forget(entry.inode)
    drop(name)
  }

  private func check(removing inode: Inode, directory: Bool) throws(Errno) {
    if directory {
      guard inode.isDirectory else { throw .notDirectory }
      if let other = inode as? TemporaryDirectory, !other.entries.isEmpty { throw .notEmpty }
    } else if inode.isDirectory {
      throw .isDirectory
    }
  }

  private func forget(_ inode: Inode) {
    inode.status.links = inode.isDirectory ? 0 : inode.status.links - 1
    inode.status.changed = host.realtimeNanoseconds
  }

  public override func rename(_ name: [UInt8], to newParent: Inode, as newName: [UInt8], flags: UInt32)
    throws(Errno)
  {
    guard let target = newParent as? TemporaryDirectory else { throw .crossDevice }
    guard let entry = entries[name] else { throw .noSuchFile }
    try target.reserve()
    let old = target.entries[newName]
    if flags & 1 != 0, old != nil { throw .fileExists }
    if flags & 2 != 0 {
      guard let old else { throw .noSuchFile }
      drop(name)
      target.drop(newName)
      add(name, old.inode)
      target.add(newName, entry.inode)
      return
    }
    if let old {
      if old.inode === entry.inode { return }
      if entry.inode.isDirectory, !old.inode.isDirectory { throw .notDirectory }
      try target.check(removing: old.inode, directory: entry.inode.isDirectory)
      target.forget(old.inode)
      target.drop(newName)
    }
    drop(name)
    target.add(newName, entry.inode)
    entry.inode.status.changed = host.realtimeNanoseconds
  }

  public override func open(flags: UInt32) throws(Errno) -> OpenFile {
    DirectoryFile(inode: self, flags: flags)
  }

  /// Entries whose cookie is past `cookie`, in order.
  func entries(after cookie: Int64) -> [Entry] {
    var list: [Entry] = []
    for entry in entries.values where entry.cookie > cookie { list.append(entry) }
    list.sort { $0.cookie < $1.cookie }
    return list
  }
}

/// A symbolic link.
final class TemporaryLink: Inode {
  let target: [UInt8]
  init(status: FileStatus, target: [UInt8]) {
    self.target = target
    super.init(status: status)
    self.status.size = Int64(target.count)
    self.status.mode |= 0o777
  }
  override func readLink() throws(Errno) -> [UInt8] { target }
}

/// A FIFO (fifo(7)).
final class TemporaryPipe: Inode {
  private let pipe = Pipe()
  override func open(flags: UInt32) throws(Errno) -> OpenFile { try pipe.openFIFO(inode: self, flags: flags) }
}

/// A directory in use (getdents64(2)); the offset is the last entry's cookie: 1 `.`, 2 `..`.
final class DirectoryFile: OpenFile {
  private let directory: TemporaryDirectory

  init(inode: TemporaryDirectory, flags: UInt32) {
    directory = inode
    super.init(inode: inode, flags: flags)
  }

  override func read(_ slice: UserSlice) throws(Errno) -> Int { throw .isDirectory }
  override func read(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int { throw .isDirectory }

  override func seek(_ offset: Int64, whence: Int32) throws(Errno) -> Int64 { try move(offset, whence) }

  override func readDirectory(_ slice: UserSlice) throws(Errno) -> Int {
    guard directory.status.links > 0 else { throw .noSuchFile }
    var output = DirectoryRecords(space: slice.count)
    let start = offset
    if offset < 1, !output.add([0x2e], directory.status.inode, directory.status.mode, 1) { throw .invalid }
    if offset < 1 { offset = 1 }
    let parent = path?.parent?.inode.status.inode ?? directory.status.inode
    if offset < 2, output.add([0x2e, 0x2e], parent, 0o040000, 2) { offset = 2 }
    if offset >= 2 {
      for entry in directory.entries(after: offset) {
        guard output.add(entry.name, entry.inode.status.inode, entry.inode.status.mode, entry.cookie) else {
          if output.bytes.isEmpty { throw .invalid }
          break
        }
        offset = entry.cookie
      }
    }
    do throws(Errno) { try slice.store(output.bytes) } catch {
      offset = start
      throw error
    }
    return output.bytes.count
  }
}

/// Builds `struct linux_dirent64` records.
public struct DirectoryRecords {
  public private(set) var bytes: [UInt8] = []
  let space: Int

  public init(space: Int) { self.space = space }

  /// False when the record does not fit.
  public mutating func add(_ name: [UInt8], _ inode: UInt64, _ mode: UInt32, _ cookie: Int64) -> Bool {
    let length = (19 + name.count + 1 + 7) & ~7
    guard bytes.count + length <= space else { return false }
    append(inode, 8)
    append(UInt64(bitPattern: cookie), 8)
    append(UInt64(length), 2)
    bytes.append(UInt8((mode >> 12) & 15))
    bytes += name
    for _ in 0..<(length - 19 - name.count) { bytes.append(0) }
    return true
  }

  private mutating func append(_ value: UInt64, _ size: Int) {
    for i in 0..<size { bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * i))) }
  }
}
