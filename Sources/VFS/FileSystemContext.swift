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
    if restrictions != 0 { restrict(&walk, start) }
    return try walk.resolve(name, from: start ?? workingDirectory, followLast: followLast)
  }

  /// RESOLVE_ flags of the openat2(2) that runs; 0 for all else.
  private var restrictions: UInt64 = 0

  /// openat2(2): `open` with RESOLVE_ flags.
  public func open(
    _ name: [UInt8], at start: Path?, flags: UInt32, mode: UInt32, restrictions: UInt64
  ) throws(Errno) -> OpenFile {
    self.restrictions = restrictions
    defer { self.restrictions = 0 }
    return try open(name, at: start, flags: flags, mode: mode)
  }

  /// Beneath a directory, or with it as the root, a walk knows nothing above.
  private func restrict(_ walk: inout PathWalk, _ start: Path?) {
    walk.restrictions = restrictions
    if restrictions & 0x18 != 0 { walk.root = start ?? workingDirectory }
  }

  private func parent(_ name: [UInt8], _ start: Path?) throws(Errno) -> (Path, [UInt8], Bool) {
    var walk = PathWalk(root: root, credentials: credentials)
    if restrictions != 0 { restrict(&walk, start) }
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
    if !isNew { try checkOpen(path, flags) }
    if flags & 0o1000 != 0, inode.isRegular {
      let isEmpty = inode.status.size == 0
      try inode.truncate(0)
      if !isEmpty { FileNotification.tell(.modify, path, inode) }
    }
    // Of the flags for the opening itself only O_NOCTTY concerns the file; F_GETFL shows none of them.
    let file = try inode.open(flags: flags & ~0o301300)
    file.flags &= ~0o400
    // What a magic link leads to may have no name (path_resolution(7) knows no way to it).
    if file.path == nil, path.parent != nil || inode.isDirectory { file.path = path }
    return file
  }

  /// The program of some process: writing to it is ETXTBSY.
  nonisolated(unsafe) public static var isExecuted: ((Inode) -> Bool)? = nil

  private func checkOpen(_ path: Path, _ flags: UInt32) throws(Errno) {
    let inode = path.inode
    let access = flags & 3
    let writes = access != 0 || flags & 0o1000 != 0
    if writes, inode.isRegular || inode.isDirectory { try MountTable.checkWritable(path) }
    // MS_NODEV
    if inode.type == 0o020000 || inode.type == 0o060000, MountTable.flags(path) & 4 != 0 {
      throw .accessDenied
    }
    try credentials.check(inode, (access == 1 ? 0 : 4) | (writes ? 2 : 0))
    // O_NOATIME is for the owner.
    if flags & 0o1000000 != 0, !credentials.isPrivileged, credentials.user != inode.status.user {
      throw .notPermitted
    }
    if writes, inode.isRegular, inode.status.mode & 0o111 != 0, FileSystemContext.isExecuted?(inode) == true {
      throw .textBusy
    }
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
        try MountTable.checkWritable(directory)
        try credentials.check(directory.inode, 2)
        let wanted = newMode(mode & 0o7777, in: directory.inode)
        let inode = try directory.inode.create(
          last, mode: 0o100000 | masked(wanted, in: directory.inode), user: credentials.user,
          group: credentials.group, device: 0, target: [])
        try directory.inode.inherit(to: inode, mode: wanted)
        FileNotification.tellEntry(.create, directory.inode, last, inode)
        return (Path(inode: inode, name: last, parent: directory), true)
      }
      if flags & 0o200 != 0 { throw .fileExists }
      guard found.isSymlink else {
        return (Path(inode: MountTable.top(found), name: last, parent: directory), false)
      }
      if flags & 0o400000 != 0 { throw .tooManySymlinks }
      if restrictions & 4 != 0 || restrictions & 2 != 0 && found is MagicLink { throw .tooManySymlinks }
      if let magic = found as? MagicLink { return (try magic.destination(), false) }
      target = try found.readLink()
      from = directory
    }
    throw .tooManySymlinks
  }

  /// A file for a group that its maker is not in does not get that group's rights (inode(7), S_ISGID).
  private func newMode(_ mode: UInt32, in directory: Inode) -> UInt32 {
    guard mode & 0o2010 == 0o2010, directory.status.mode & 0o2000 != 0, !credentials.isPrivileged,
      !isMember(directory.status.group)
    else { return mode }
    return mode & ~0o2000
  }

  /// The umask counts where no default access control list says what new files get (umask(2)).
  private func masked(_ mode: UInt32, in directory: Inode) -> UInt32 {
    directory.mayHaveAttributes && directory.accessList(isDefault: true) != nil ? mode : mode & ~mask
  }

  private func isMember(_ group: UInt32) -> Bool {
    group == credentials.group || credentials.groups.contains(group)
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
    try MountTable.checkWritable(path)
    try credentials.check(path.inode, 3)
    let wanted = newMode(mode & 0o7777, in: path.inode)
    let inode = try path.inode.createUnnamed(
      mode: 0o100000 | masked(wanted, in: path.inode), user: credentials.user, group: credentials.group)
    try path.inode.inherit(to: inode, mode: wanted)
    inode.isLinkable = flags & 0o200 == 0
    let file = try inode.open(flags: flags & 0o7 | flags & 0o2006000)
    file.path = Path(inode: inode, name: bytes("#") + decimal(inode.status.inode), parent: path)
    return file
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
    try MountTable.checkWritable(directory)
    try credentials.check(directory.inode, 2)
    let kept = mode & 0o170000 == 0o100000 ? newMode(mode, in: directory.inode) : mode
    let isLink = mode & 0o170000 == 0o120000
    let inode = try directory.inode.create(
      last, mode: isLink ? kept : masked(kept, in: directory.inode), user: credentials.user,
      group: credentials.group, device: device, target: target)
    try directory.inode.inherit(to: inode, mode: kept)
    FileNotification.tellEntry(.create, directory.inode, last, inode)
    return inode
  }

  public func makeDirectory(_ name: [UInt8], at start: Path? = nil, mode: UInt32) throws(Errno) {
    _ = try makeEntry(name, start, mode: 0o040000 | mode & 0o1777)
  }

  /// mknod(2); sockets (bind(2)) too.
  @discardableResult
  public func makeNode(_ name: [UInt8], at start: Path? = nil, mode: UInt32, device: UInt64) throws(Errno)
    -> Inode
  {
    let type = mode & 0o170000 == 0 ? 0o100000 : mode & 0o170000
    guard type != 0o040000 else { throw .notPermitted }
    return try makeEntry(name, start, mode: type | mode & 0o7777, device: device)
  }

  public func makeSymlink(_ target: [UInt8], _ name: [UInt8], at start: Path? = nil) throws(Errno) {
    guard !target.isEmpty else { throw .noSuchFile }
    _ = try makeEntry(name, start, mode: 0o120777, target: target)
  }

  public func link(_ source: Path, _ name: [UInt8], at start: Path? = nil) throws(Errno) {
    let (directory, last, isDirectoryName) = try parent(name, start)
    if last.isEmpty { throw .fileExists }
    guard last.count <= 255 else { throw .nameTooLong }
    try credentials.check(directory.inode, 1)
    if try existing(directory, last) != nil { throw .fileExists }
    if isDirectoryName { throw .noSuchFile }
    try MountTable.checkWritable(directory)
    guard source.inode.status.device == directory.inode.status.device else { throw .crossDevice }
    guard !source.inode.isDirectory else { throw .notPermitted }
    try credentials.check(directory.inode, 3)
    if source.inode.status.links == 0, !source.inode.isLinkable { throw .noSuchFile }
    guard source.inode.status.links < 65000 else { throw .tooManyLinks }
    try directory.inode.link(last, to: source.inode)
    source.inode.isLinkable = false
    FileNotification.tell(.attributes, nil, source.inode)
    FileNotification.tellEntry(.create, directory.inode, last, source.inode)
  }

  public func unlink(_ name: [UInt8], at start: Path? = nil, directory isDirectory: Bool) throws(Errno) {
    let (directory, last, isDirectoryName) = try parent(name, start)
    if last.isEmpty {
      guard isDirectory else { throw .isDirectory }
      throw endsWithDots(name) ? .notEmpty : name.last == 0x2e ? .invalid : .busy
    }
    guard last.count <= 255 else { throw .nameTooLong }
    try credentials.check(directory.inode, 1)
    try MountTable.checkWritable(directory)
    let inode = try directory.inode.lookup(last)
    try credentials.check(directory.inode, 3)
    try credentials.checkSticky(directory.inode, inode)
    if isDirectoryName, !inode.isDirectory { throw .notDirectory }
    if MountTable.top(inode) !== inode { throw .busy }
    try directory.inode.unlink(last, directory: isDirectory)
    FileNotification.tellUnlinked(inode, isOpen: inode.opens > 0)
    FileNotification.tellEntry(.delete, directory.inode, last, inode)
  }

  private func endsWithDots(_ name: [UInt8]) -> Bool { name.count > 1 && name.suffix(2) == [0x2e, 0x2e] }

  public func rename(
    _ name: [UInt8], at start: Path? = nil, to newName: [UInt8], at newStart: Path? = nil, flags: UInt32
  ) throws(Errno) {
    guard flags & ~3 == 0, flags != 3 else { throw .invalid }
    let (directory, last, isDirectoryName) = try parent(name, start)
    let (newDirectory, newLast, isNewDirectoryName) = try parent(newName, newStart)
    guard directory.inode.status.device == newDirectory.inode.status.device else { throw .crossDevice }
    guard !last.isEmpty else { throw .busy }
    guard !newLast.isEmpty else { throw flags & 1 != 0 ? .fileExists : .busy }
    guard last.count <= 255, newLast.count <= 255 else { throw .nameTooLong }
    try MountTable.checkWritable(directory)
    try credentials.check(directory.inode, 1)
    let inode = try directory.inode.lookup(last)
    if isDirectoryName || isNewDirectoryName, !inode.isDirectory { throw .notDirectory }
    try credentials.check(directory.inode, 3)
    try credentials.check(newDirectory.inode, 3)
    try credentials.checkSticky(directory.inode, inode)
    if let old = try existing(newDirectory, newLast) { try credentials.checkSticky(newDirectory.inode, old) }
    if MountTable.top(inode) !== inode { throw .busy }
    var place: Path? = newDirectory
    while let ancestor = place {
      if ancestor.inode === inode { throw .invalid }
      place = ancestor.parent
    }
    let replaced = try existing(newDirectory, newLast)
    if let replaced, MountTable.top(replaced) !== replaced { throw .busy }
    try directory.inode.rename(last, to: newDirectory.inode, as: newLast, flags: flags)
    if replaced === inode { return }
    FileNotification.tellMoved(directory.inode, last, newDirectory.inode, newLast, inode)
    guard let replaced else { return }
    if flags & 2 != 0 {
      FileNotification.tellMoved(newDirectory.inode, newLast, directory.inode, last, replaced)
    } else {
      FileNotification.tellUnlinked(replaced, isOpen: replaced.opens > 0)
    }
  }

  public func changeMode(_ path: Path, _ mode: UInt32) throws(Errno) {
    try MountTable.checkWritable(path)
    guard credentials.isPrivileged || credentials.user == path.inode.status.user else { throw .notPermitted }
    let keepsGroup = credentials.isPrivileged || isMember(path.inode.status.group)
    try path.inode.setAttributes(mode: keepsGroup ? mode : mode & ~0o2000, user: nil, group: nil)
    if var list = path.inode.accessList() {
      list.change(mode: mode)
      try path.inode.setAccessList(list)
    }
    FileNotification.tell(.attributes, path, path.inode)
  }

  public func changeOwner(_ path: Path, user: UInt32?, group: UInt32?) throws(Errno) {
    try MountTable.checkWritable(path)
    let status = path.inode.status
    if !credentials.isPrivileged {
      guard user == nil || user == status.user, credentials.user == status.user || user == nil && group == nil
      else { throw .notPermitted }
      if let group, group != status.group, !isMember(group) { throw .notPermitted }
    }
    // Set-id bits go; S_ISGID without execution for the group means something else (inode(7)).
    var mode: UInt32? = nil
    if !path.inode.isDirectory, status.mode & 0o6000 != 0 {
      mode = status.mode & (status.mode & 0o10 != 0 ? 0o1777 : 0o3777)
    }
    try path.inode.setAttributes(mode: mode, user: user, group: group)
    // What the old owner's file could do, the new owner's cannot (capabilities(7)).
    if path.inode.mayHaveAttributes {
      try? path.inode.setExtendedAttribute(bytes("security.capability"), nil, flags: 0)
    }
    FileNotification.tell(.attributes, path, path.inode)
  }
}
