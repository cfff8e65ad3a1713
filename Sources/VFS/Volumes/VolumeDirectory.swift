import ABI
import Ext4
import Tasks

/// A directory of a volume.
final class VolumeDirectory: VolumeInode {
  /// Names that were looked up lately, nil for those that are not there. They keep their files in memory.
  private var names: [[UInt8]: VolumeInode?] = [:]

  private func remember(_ name: [UInt8], _ inode: VolumeInode?) {
    if names.count >= volume.fileSystem.cacheLimit / 2 { names.removeAll() }
    names[name] = .some(inode)
  }

  func forgetNames() { names.removeAll() }

  override func lookup(_ name: [UInt8]) throws(Errno) -> Inode {
    if let known = names[name] {
      guard let inode = known else { throw .noSuchFile }
      return inode
    }
    do throws(Errno) {
      let inode = try volume.inode(try volume.fileSystem.lookup(name, in: file))
      remember(name, inode)
      return inode
    } catch {
      if error == .noSuchFile { remember(name, nil) }
      throw error
    }
  }

  override func create(
    _ name: [UInt8], mode: UInt32, user: UInt32, group: UInt32, device: UInt64, target: [UInt8]
  ) throws(Errno) -> Inode {
    try volume.checkRoom()
    let new = NewFile(mode: mode, user: user, group: group, device: device, target: target)
    let inode = volume.adopt(try volume.fileSystem.create(name, in: file, new))
    remember(name, inode)
    refresh()
    volume.changed()
    return inode
  }

  override func createUnnamed(mode: UInt32, user: UInt32, group: UInt32) throws(Errno) -> Inode {
    try volume.checkRoom()
    let inode = volume.adopt(
      try volume.fileSystem.createUnnamed(in: file, NewFile(mode: mode, user: user, group: group)))
    volume.forget(inode)
    volume.changed()
    return inode
  }

  override func children() throws(Errno) -> [[UInt8]] {
    var result: [[UInt8]] = []
    var cookie: UInt64 = 0
    while true {
      let entries = try volume.fileSystem.entries(of: file, after: cookie)
      guard let last = entries.last else { return result }
      for entry in entries { result.append(entry.name) }
      cookie = last.cookie
    }
  }

  override func link(_ name: [UInt8], to inode: Inode) throws(Errno) {
    guard let other = inode as? VolumeInode, other.volume === volume else { throw .crossDevice }
    try volume.checkRoom()
    try volume.fileSystem.link(name, in: file, to: other.file)
    remember(name, other)
    // One that was made without a name is found by its number from now on.
    volume.keep(other)
    other.refresh()
    refresh()
    volume.changed()
  }

  override func unlink(_ name: [UInt8], directory: Bool) throws(Errno) {
    let inode = try lookup(name)
    try volume.fileSystem.unlink(name, in: file, isDirectory: directory)
    names[name] = nil
    lostName(inode)
    refresh()
    volume.changed()
  }

  private func lostName(_ inode: Inode) {
    guard let inode = inode as? VolumeInode else { return }
    inode.refresh()
    if inode.status.links == 0 { volume.forget(inode) }
  }

  override func rename(_ name: [UInt8], to newParent: Inode, as newName: [UInt8], flags: UInt32) throws(Errno)
  {
    guard let target = newParent as? VolumeDirectory, target.volume === volume else { throw .crossDevice }
    let inode = try lookup(name)
    let old = try? target.lookup(newName)
    try volume.fileSystem.rename(name, in: file, to: newName, in: target.file, flags: flags)
    names[name] = nil
    target.names[newName] = nil
    (inode as? VolumeInode)?.refresh()
    if let old { lostName(old) }
    refresh()
    target.refresh()
    volume.changed()
  }

  override func open(flags: UInt32) throws(Errno) -> OpenFile {
    VolumeDirectoryFile(inode: self, flags: flags)
  }
}

/// A directory in use; the offset is the last entry's cookie: 1 `.`, 2 `..`.
final class VolumeDirectoryFile: OpenFile {
  private let directory: VolumeDirectory

  init(inode: VolumeDirectory, flags: UInt32) {
    directory = inode
    super.init(inode: inode, flags: flags)
  }

  override func read(_ slice: UserSlice) throws(Errno) -> Int { throw .isDirectory }

  override func seek(_ offset: Int64, whence: Int32) throws(Errno) -> Int64 { try move(offset, whence) }

  override func control(_ request: UInt32, argument: UInt) throws(Errno) -> Int {
    try directory.volume.control(request, argument: argument)
  }

  override func synchronize() throws(Errno) {
    try directory.volume.fileSystem.synchronize(directory.file, dataOnly: false)
  }

  override func readDirectory(_ slice: UserSlice) throws(Errno) -> Int {
    var output = DirectoryRecords(space: slice.count)
    if offset < 1 {
      guard output.add([0x2e], directory.status.inode, 0o040000, 1) else { throw .invalid }
      offset = 1
    }
    let parent = path?.parent?.inode.status.inode ?? directory.status.inode
    if offset < 2, output.add([0x2e, 0x2e], parent, 0o040000, 2) { offset = 2 }
    while offset >= 2, try add(to: &output) {}
    try slice.store(output.bytes)
    return output.bytes.count
  }

  /// Adds the next few entries; false at the end, or when the space is used up.
  private func add(to output: inout DirectoryRecords) throws(Errno) -> Bool {
    let after = offset == 2 ? 0 : UInt64(offset)
    let entries = try directory.volume.fileSystem.entries(of: directory.file, after: after)
    for entry in entries {
      let cookie = Int64(bitPattern: entry.cookie)
      guard output.add(entry.name, UInt64(entry.inode), UInt32(entry.type) << 12, cookie) else {
        if output.bytes.isEmpty { throw .invalid }
        return false
      }
      offset = cookie
    }
    return !entries.isEmpty
  }
}
