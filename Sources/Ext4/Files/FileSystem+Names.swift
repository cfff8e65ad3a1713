public import ABI

/// What a new file starts with.
public struct NewFile {
  /// Type and permissions, as stat(2) has them.
  public var mode: UInt32
  public var user: UInt32
  public var group: UInt32
  /// Device number, for device files.
  public var device: UInt64
  /// What a symbolic link holds.
  public var target: [UInt8]

  public init(mode: UInt32, user: UInt32 = 0, group: UInt32 = 0, device: UInt64 = 0, target: [UInt8] = []) {
    self.mode = mode
    self.user = user
    self.group = group
    self.device = device
    self.target = target
  }
}

extension FileSystem {
  private func check(name: [UInt8]) throws(Errno) {
    guard name.count <= 255 else { throw .nameTooLong }
    guard !name.isEmpty, name != [0x2E], name != [0x2E, 0x2E], !name.contains(0), !name.contains(0x2F) else {
      throw .invalid
    }
  }

  /// A directory that can have entries: one that is removed cannot.
  private func check(directory: DiskInode) throws(Errno) {
    guard directory.isDirectory else { throw .notDirectory }
    guard directory.links > 0 else { throw .noSuchFile }
  }

  /// Makes a file of any type; the caller holds it until `release`. EEXIST, ENOSPC, EMLINK, ENAMETOOLONG.
  public func create(_ name: [UInt8], in directory: DiskInode, _ new: NewFile) throws(Errno) -> DiskInode {
    try check(name: name)
    try check(directory: directory)
    guard new.target.count < blockSize else { throw .nameTooLong }
    let inode = try perform { () throws(Errno) in
      guard try findEntry(name, directory) == nil else { throw .fileExists }
      let isDirectory = new.mode & 0o170000 == 0o040000
      if isDirectory { try checkLinks(directory) }
      let inode = try makeFile(new, parent: directory)
      try addEntry(name, inode.number, inode.mode, to: directory)
      if isDirectory { addLink(directory) }
      return inode
    }
    inode.users += 1
    return inode
  }

  /// open(2) with O_TMPFILE: a file without a name, that `link` may give one; the caller holds it until `release`.
  public func createUnnamed(in directory: DiskInode, _ new: NewFile) throws(Errno) -> DiskInode {
    try check(directory: directory)
    let inode = try perform { () throws(Errno) in
      let inode = try makeFile(new, parent: directory)
      inode.links = 0
      addOrphan(inode)
      return inode
    }
    inode.users += 1
    return inode
  }

  private func makeFile(_ new: NewFile, parent: DiskInode) throws(Errno) -> DiskInode {
    let isDirectory = new.mode & 0o170000 == 0o040000
    let number = try allocateInodeNumber(parent: parent, isDirectory: isDirectory)
    let inode = try makeInode(number)
    inode.mode = new.mode
    let inherits = parent.mode & 0o2000 != 0
    if inherits, isDirectory { inode.mode |= 0o2000 }
    inode.user = new.user
    inode.group = inherits ? parent.group : new.group
    inode.links = isDirectory ? 2 : 1
    let now = clock.realtimeNanoseconds
    inode.accessed = now
    inode.changed = now
    inode.modified = now
    inode.created = now
    inode.goal = layout.firstBlock(ofGroup: group(ofInode: number))
    switch inode.type {
    case 0o100000: format(inode)
    case 0o040000:
      format(inode)
      try makeDots(inode, parent)
    case 0o120000: try makeLink(inode, new.target)
    case 0o020000, 0o060000: inode.device = new.device
    case 0o010000, 0o140000: break
    default: throw .invalid
    }
    inode.dataTransaction = transaction.number
    return inode
  }

  /// An empty extent tree.
  func format(_ inode: DiskInode) {
    inode.flags |= DiskInode.extentsFlag
    ExtentNode(view: inode.root, buffer: nil).format(depth: 0)
  }

  private func makeDots(_ inode: DiskInode, _ parent: DiskInode) throws(Errno) {
    let new = try appendDirectoryBlock(inode)
    let block = DirectoryBlock(view: new.buffer.view, end: directoryEnd)
    let type = layout.has(incompatible: Feature.fileType) ? directoryEntryType(0o040000) : 0
    block.write(0, 12, [0x2E], inode.number, type)
    block.write(12, block.end - 12, [0x2E, 0x2E], parent.number, type)
  }

  private func makeLink(_ inode: DiskInode, _ target: [UInt8]) throws(Errno) {
    guard !target.isEmpty else { throw .noSuchFile }
    if target.count < 60 {
      inode.root.store(target, at: 0)
    } else {
      format(inode)
      let run = try allocateBlocks(goal: inode.goal, wanted: 1)
      inode.addBlocks(1, blockSize: blockSize)
      try insert(Extent(logical: 0, count: 1, physical: run.start, isUnwritten: false), into: inode)
      try newBuffer(run.start).view.store(target, at: 0)
    }
    inode.size = UInt64(target.count)
  }

  /// What a symbolic link holds; EINVAL for other files.
  public func readLink(_ inode: DiskInode) throws(Errno) -> [UInt8] {
    guard inode.isSymlink else { throw .invalid }
    guard inode.size < UInt64(blockSize) else { throw .damaged }
    if isInlineLink(inode) { return inode.root.bytes(0, Int(inode.size)) }
    let mapping = try map(inode, 0)
    guard mapping.state == .written else { throw .damaged }
    return try buffer(mapping.physical).view.bytes(0, Int(inode.size))
  }

  // MARK: Links

  /// EMLINK. With dir_nlink a directory of more than 65000 has one link, which means "many".
  private func checkLinks(_ inode: DiskInode) throws(Errno) {
    if inode.isDirectory, layout.has(readOnlyCompatible: 0x20) { return }
    guard inode.links < 65000 else { throw .tooManyLinks }
  }

  private func addLink(_ inode: DiskInode) {
    change(inode)
    if inode.isDirectory, inode.links == 1 || inode.links >= 64999 {
      inode.links = 1
    } else {
      inode.links += 1
    }
  }

  /// Takes away a directory's link from a subdirectory.
  private func dropLink(_ directory: DiskInode) {
    change(directory)
    if directory.links > 2 { directory.links -= 1 }
  }

  /// link(2): another name for a file that is no directory.
  public func link(_ name: [UInt8], in directory: DiskInode, to inode: DiskInode) throws(Errno) {
    try check(name: name)
    try check(directory: directory)
    guard !inode.isDirectory else { throw .notPermitted }
    try checkLinks(inode)
    try perform { () throws(Errno) in
      guard try findEntry(name, directory) == nil else { throw .fileExists }
      // A file made with O_TMPFILE gets its first name.
      if inode.links == 0 { removeOrphan(inode) }
      addLink(inode)
      inode.changed = clock.realtimeNanoseconds
      inode.dataTransaction = transaction.number
      try addEntry(name, inode.number, inode.mode, to: directory)
    }
  }

  /// unlink(2), or rmdir(2) with `isDirectory`. ENOENT, EISDIR, ENOTDIR, ENOTEMPTY.
  public func unlink(_ name: [UInt8], in directory: DiskInode, isDirectory: Bool) throws(Errno) {
    try check(name: name)
    guard let found = try findEntry(name, directory) else { throw .noSuchFile }
    let inode = try inode(found.record.inode)
    defer { release(inode) }
    try checkRemoval(inode, isDirectory: isDirectory)
    try perform { () throws(Errno) in
      guard let place = try findEntry(name, directory) else { throw .noSuchFile }
      removeEntry(place, from: directory)
      drop(inode, from: directory)
    }
  }

  private func checkRemoval(_ inode: DiskInode, isDirectory: Bool) throws(Errno) {
    if inode.isDirectory {
      guard isDirectory else { throw .isDirectory }
      guard try isEmpty(inode) else { throw .notEmpty }
    } else {
      guard !isDirectory else { throw .notDirectory }
      if !inode.usesExtents, hasBlocks(inode), inode.sectors(blockSize: blockSize) > 0 { throw .notSupported }
    }
  }

  /// A name of `inode` in `directory` is gone.
  private func drop(_ inode: DiskInode, from directory: DiskInode) {
    change(inode)
    inode.changed = clock.realtimeNanoseconds
    if inode.isDirectory {
      inode.links = 0
      dropLink(directory)
    } else {
      inode.links = inode.links > 0 ? inode.links - 1 : 0
    }
    if inode.links == 0 { addOrphan(inode) }
  }

  // MARK: Renaming

  /// rename(2); `flags` 1 is RENAME_NOREPLACE, 2 RENAME_EXCHANGE. The caller has made sure that a directory does not
  /// move below itself.
  public func rename(
    _ name: [UInt8], in directory: DiskInode, to newName: [UInt8], in newDirectory: DiskInode, flags: UInt32
  ) throws(Errno) {
    try check(name: name)
    try check(name: newName)
    try check(directory: newDirectory)
    guard flags <= 2 else { throw .invalid }
    guard let found = try findEntry(name, directory) else { throw .noSuchFile }
    let inode = try inode(found.record.inode)
    defer { release(inode) }
    guard let old = try findEntry(newName, newDirectory) else {
      guard flags & 2 == 0 else { throw .noSuchFile }
      return try perform { () throws(Errno) in try move(name, directory, newName, newDirectory, inode) }
    }
    guard flags & 1 == 0 else { throw .fileExists }
    let target = try self.inode(old.record.inode)
    defer { release(target) }
    if target === inode { return }
    if flags & 2 != 0 {
      return try perform { () throws(Errno) in
        try exchange(name, directory, inode, newName, newDirectory, target)
      }
    }
    if inode.isDirectory, !target.isDirectory { throw .notDirectory }
    try checkRemoval(target, isDirectory: inode.isDirectory)
    try perform { () throws(Errno) in
      guard let place = try findEntry(newName, newDirectory) else { throw .noSuchFile }
      replaceEntry(place, inode.number, inode.mode)
      drop(target, from: newDirectory)
      try finishMove(name, directory, newDirectory, inode)
      touch(newDirectory)
    }
  }

  private func move(
    _ name: [UInt8], _ directory: DiskInode, _ newName: [UInt8], _ newDirectory: DiskInode, _ inode: DiskInode
  ) throws(Errno) {
    try addEntry(newName, inode.number, inode.mode, to: newDirectory)
    try finishMove(name, directory, newDirectory, inode)
  }

  /// Takes the old name away and sets a directory's parent right.
  private func finishMove(
    _ name: [UInt8], _ directory: DiskInode, _ newDirectory: DiskInode, _ inode: DiskInode
  ) throws(Errno) {
    guard let place = try findEntry(name, directory) else { throw .damaged }
    removeEntry(place, from: directory)
    change(inode)
    inode.changed = clock.realtimeNanoseconds
    inode.dataTransaction = transaction.number
    if inode.isDirectory, directory !== newDirectory {
      try setParent(inode, newDirectory)
      dropLink(directory)
      try checkLinks(newDirectory)
      addLink(newDirectory)
    }
  }

  private func setParent(_ inode: DiskInode, _ parent: DiskInode) throws(Errno) {
    guard let place = try findEntry([0x2E, 0x2E], inode) else { throw .damaged }
    replaceEntry(place, parent.number, parent.mode)
  }

  private func touch(_ inode: DiskInode) {
    change(inode)
    let now = clock.realtimeNanoseconds
    inode.modified = now
    inode.changed = now
  }

  private func exchange(
    _ name: [UInt8], _ directory: DiskInode, _ inode: DiskInode, _ newName: [UInt8],
    _ newDirectory: DiskInode,
    _ target: DiskInode
  ) throws(Errno) {
    guard let first = try findEntry(name, directory), let second = try findEntry(newName, newDirectory) else {
      throw .noSuchFile
    }
    replaceEntry(first, target.number, target.mode)
    replaceEntry(second, inode.number, inode.mode)
    touch(directory)
    touch(newDirectory)
    for file in [inode, target] {
      change(file)
      file.changed = clock.realtimeNanoseconds
      file.dataTransaction = transaction.number
    }
    guard directory !== newDirectory else { return }
    if inode.isDirectory { try setParent(inode, newDirectory) }
    if target.isDirectory { try setParent(target, directory) }
    if inode.isDirectory, !target.isDirectory {
      dropLink(directory)
      addLink(newDirectory)
    } else if target.isDirectory, !inode.isDirectory {
      dropLink(newDirectory)
      addLink(directory)
    }
  }
}
