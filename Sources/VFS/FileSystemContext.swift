public import ABI
import Tasks

/// Where a process stands in the file tree, and what it does there by name. Kernel lock held.
///
/// Every call takes `at`: the directory that relative names start from.
public final class FileSystemContext {
  public var root: Path
  public var workingDirectory: Path
  public var mask: UInt32 = 0o022
  public var credentials: Credentials

  public init(root: Path, credentials: Credentials) {
    self.root = root
    workingDirectory = root
    self.credentials = credentials
  }

  public func copy() -> FileSystemContext {
    let copy = FileSystemContext(root: root, credentials: credentials)
    copy.workingDirectory = workingDirectory
    copy.mask = mask
    return copy
  }

  public func resolve(_ name: [UInt8], at start: Path? = nil, followLast: Bool = true) throws(Errno) -> Path {
    var walk = PathWalk(root: root, credentials: credentials)
    return try walk.resolve(name, from: start ?? workingDirectory, followLast: followLast)
  }

  private func parent(_ name: [UInt8], _ start: Path?) throws(Errno) -> (Path, [UInt8], Bool) {
    var walk = PathWalk(root: root, credentials: credentials)
    return try walk.resolveParent(name, from: start ?? workingDirectory)
  }

  /// open(2).
  public func open(_ name: [UInt8], at start: Path? = nil, flags: UInt32, mode: UInt32 = 0) throws(Errno)
    -> OpenFile
  {
    if flags & 0o20200000 == 0o20200000 { return try openUnnamed(name, start, flags, mode) }
    let path: Path
    var isNew = false
    if flags & 0o100 != 0 {
      (path, isNew) = try create(name, start, flags, mode)
    } else {
      path = try resolve(name, at: start, followLast: flags & 0o400000 == 0)
    }
    return try open(path, flags, isNew: isNew)
  }

  /// Opens what has been found.
  public func open(_ path: Path, _ flags: UInt32, isNew: Bool = false) throws(Errno) -> OpenFile {
    let inode = path.inode
    if inode.isSymlink, flags & 0o10000000 == 0 { throw .tooManySymlinks }
    if flags & 0o200000 != 0, !inode.isDirectory { throw .notDirectory }
    if flags & 0o10000000 != 0 {  // O_PATH
      let file = OpenFile(inode: inode, flags: 0o10000000)
      if path.parent != nil || inode.isDirectory { file.path = path }
      return file
    }
    if inode.isDirectory, flags & 3 != 0 || flags & 0o100 != 0 { throw .isDirectory }
    if inode.type == 0o140000 { throw .noSuchDevice }
    if !isNew {
      let access = flags & 3
      try credentials.check(inode, access == 0 ? 4 : access == 1 ? 2 : 6)
    }
    if flags & 0o1000 != 0, inode.isRegular { try inode.truncate(0) }
    // Of the flags for the opening itself only O_NOCTTY concerns the file; F_GETFL shows none of them.
    let file = try inode.open(flags: flags & ~0o1301300)
    file.flags &= ~0o400
    // What a magic link leads to may have no name (path_resolution(7) knows no way to it).
    if file.path == nil, path.parent != nil || inode.isDirectory { file.path = path }
    return file
  }

  private func create(_ name: [UInt8], _ start: Path?, _ flags: UInt32, _ mode: UInt32) throws(Errno) -> (
    Path, Bool
  ) {
    var target = name
    var from = start ?? workingDirectory
    for _ in 0..<40 {
      let (directory, last, isDirectoryName) = try parent(target, from)
      if last.isEmpty || isDirectoryName { throw .isDirectory }
      guard last.count <= 255 else { throw .nameTooLong }
      try credentials.check(directory.inode, 1)
      guard let found = try existing(directory, last) else {
        try credentials.check(directory.inode, 2)
        let inode = try directory.inode.create(
          last, mode: 0o100000 | (mode & 0o7777 & ~mask), user: credentials.user, group: credentials.group,
          device: 0, target: [])
        return (Path(inode: inode, name: last, parent: directory), true)
      }
      if flags & 0o200 != 0 { throw .fileExists }
      guard found.isSymlink else {
        return (Path(inode: MountTable.top(found), name: last, parent: directory), false)
      }
      if flags & 0o400000 != 0 { throw .tooManySymlinks }
      if let magic = found as? MagicLink { return (try magic.destination(), false) }
      target = try found.readLink()
      from = directory
    }
    throw .tooManySymlinks
  }

  private func existing(_ directory: Path, _ name: [UInt8]) throws(Errno) -> Inode? {
    do throws(Errno) { return try directory.inode.lookup(name) } catch {
      if error == .noSuchFile { return nil }
      throw error
    }
  }

  /// O_TMPFILE: a file without a name.
  private func openUnnamed(_ name: [UInt8], _ start: Path?, _ flags: UInt32, _ mode: UInt32) throws(Errno)
    -> OpenFile
  {
    let path = try resolve(name, at: start)
    guard path.inode.isDirectory else { throw .notDirectory }
    try credentials.check(path.inode, 3)
    let inode = try TemporaryFileSystem.make(
      mode: 0o100000 | (mode & 0o7777 & ~mask), user: credentials.user, group: credentials.group, device: 0,
      target: [])
    inode.status.links = 0
    return try inode.open(flags: flags & 0o7)
  }

  private func makeEntry(
    _ name: [UInt8], _ start: Path?, mode: UInt32, device: UInt64 = 0, target: [UInt8] = []
  ) throws(Errno) -> Inode {
    let (directory, last, isDirectoryName) = try parent(name, start)
    if last.isEmpty { throw .fileExists }
    guard last.count <= 255 else { throw .nameTooLong }
    try credentials.check(directory.inode, 1)
    if try existing(directory, last) != nil { throw .fileExists }
    if isDirectoryName, mode & 0o170000 != 0o040000 { throw .noSuchFile }
    try credentials.check(directory.inode, 2)
    return try directory.inode.create(
      last, mode: mode, user: credentials.user, group: credentials.group, device: device, target: target)
  }

  public func makeDirectory(_ name: [UInt8], at start: Path? = nil, mode: UInt32) throws(Errno) {
    _ = try makeEntry(name, start, mode: 0o040000 | (mode & 0o1777 & ~mask))
  }

  /// mknod(2); sockets (bind(2)) too.
  @discardableResult
  public func makeNode(_ name: [UInt8], at start: Path? = nil, mode: UInt32, device: UInt64) throws(Errno)
    -> Inode
  {
    let type = mode & 0o170000 == 0 ? 0o100000 : mode & 0o170000
    guard type != 0o040000 else { throw .notPermitted }
    return try makeEntry(name, start, mode: type | (mode & 0o7777 & ~mask), device: device)
  }

  public func makeSymlink(_ target: [UInt8], _ name: [UInt8], at start: Path? = nil) throws(Errno) {
    guard !target.isEmpty else { throw .noSuchFile }
    _ = try makeEntry(name, start, mode: 0o120777, target: target)
  }

  public func link(_ source: Path, _ name: [UInt8], at start: Path? = nil) throws(Errno) {
    guard !source.inode.isDirectory else { throw .notPermitted }
    let (directory, last, _) = try parent(name, start)
    if last.isEmpty { throw .fileExists }
    try credentials.check(directory.inode, 3)
    guard source.inode.status.device == directory.inode.status.device else { throw .crossDevice }
    try directory.inode.link(last, to: source.inode)
  }

  public func unlink(_ name: [UInt8], at start: Path? = nil, directory isDirectory: Bool) throws(Errno) {
    let (directory, last, isDirectoryName) = try parent(name, start)
    if last.isEmpty { throw isDirectory ? (name.last == 0x2e ? .invalid : .busy) : .isDirectory }
    try credentials.check(directory.inode, 1)
    let inode = try directory.inode.lookup(last)
    try credentials.check(directory.inode, 3)
    try credentials.checkSticky(directory.inode, inode)
    if isDirectoryName, !inode.isDirectory { throw .notDirectory }
    if MountTable.top(inode) !== inode { throw .busy }
    try directory.inode.unlink(last, directory: isDirectory)
  }

  public func rename(
    _ name: [UInt8], at start: Path? = nil, to newName: [UInt8], at newStart: Path? = nil, flags: UInt32
  ) throws(Errno) {
    guard flags & ~3 == 0, flags != 3 else { throw .invalid }
    let (directory, last, isDirectoryName) = try parent(name, start)
    let (newDirectory, newLast, isNewDirectoryName) = try parent(newName, newStart)
    guard !last.isEmpty, !newLast.isEmpty else { throw .busy }
    guard newLast.count <= 255 else { throw .nameTooLong }
    try credentials.check(directory.inode, 1)
    let inode = try directory.inode.lookup(last)
    if isDirectoryName || isNewDirectoryName, !inode.isDirectory { throw .notDirectory }
    try credentials.check(directory.inode, 3)
    try credentials.check(newDirectory.inode, 3)
    try credentials.checkSticky(directory.inode, inode)
    if let old = try existing(newDirectory, newLast) { try credentials.checkSticky(newDirectory.inode, old) }
    guard inode.status.device == newDirectory.inode.status.device else { throw .crossDevice }
    var place: Path? = newDirectory
    while let ancestor = place {
      if ancestor.inode === inode { throw .invalid }
      place = ancestor.parent
    }
    try directory.inode.rename(last, to: newDirectory.inode, as: newLast, flags: flags)
  }

  public func changeMode(_ path: Path, _ mode: UInt32) throws(Errno) {
    guard credentials.isPrivileged || credentials.user == path.inode.status.user else { throw .notPermitted }
    try path.inode.setAttributes(mode: mode, user: nil, group: nil)
  }

  public func changeOwner(_ path: Path, user: UInt32?, group: UInt32?) throws(Errno) {
    let status = path.inode.status
    if !credentials.isPrivileged {
      guard user == nil || user == status.user, credentials.user == status.user else { throw .notPermitted }
      if let group, group != credentials.group, !credentials.groups.contains(group) { throw .notPermitted }
    }
    var mode: UInt32? = nil
    if path.inode.isRegular, status.mode & 0o6000 != 0 { mode = status.mode & 0o1777 }
    try path.inode.setAttributes(mode: mode, user: user, group: group)
  }
}
