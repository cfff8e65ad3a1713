public import ABI

extension FileSystem {
  public static let rootNumber: UInt32 = 2

  /// The inode `number`, read if need be; the caller holds it until `release`. ESTALE if it is not in use, EUCLEAN,
  /// EBADMSG (checksum), EIO.
  public func inode(_ number: UInt32) throws(Errno) -> DiskInode {
    // The reserved ones, the journal among them, have no names.
    guard number == FileSystem.rootNumber || number >= layout.firstInode else { throw .damaged }
    let inode = try find(number)
    guard inode.mode != 0, inode.links > 0 || orphans.contains(where: { $0 === inode }) else { throw .stale }
    inode.users += 1
    return inode
  }

  /// Lets go of an inode; a file without a name is deleted when nobody holds it.
  public func release(_ inode: DiskInode) {
    inode.users -= 1
    if inode.users == 0, inode.links == 0, !isReadOnly, !isAborted {
      // What fails now is found on the orphan list at the next mount.
      try? delete(inode)
    }
  }

  func find(_ number: UInt32) throws(Errno) -> DiskInode {
    if let inode = inodes[number] {
      inode.wasUsed = true
      return inode
    }
    let inode = try load(number)
    if layout.hasChecksums, inode.checksum != inode.computeChecksum() { throw .badMessage }
    guard inode.extraSize <= inode.view.count - 128, inode.extraSize & 3 == 0,
      inode.flags & DiskInode.foreignFlags == 0, inode.size <= maximumFileSize
    else { throw .damaged }
    if inode.usesExtents { try checkNode(inode.root, depth: nil, isRoot: true) }
    inodes[number] = inode
    return inode
  }

  /// The inode's bytes, unchecked.
  private func load(_ number: UInt32) throws(Errno) -> DiskInode {
    guard number >= 1, number <= layout.inodes else { throw .damaged }
    let (group, index) = (number - 1).quotientAndRemainder(dividingBy: layout.inodesPerGroup)
    let offset = UInt64(index) * UInt64(layout.inodeSize)
    let block = descriptor(Int(group)).inodeTable &+ offset / UInt64(blockSize)
    let buffer = try buffer(block)
    let inode = DiskInode(
      number: number, size: Int(layout.inodeSize), buffer: buffer, place: Int(offset % UInt64(blockSize)))
    inode.makeSeed(layout)
    return inode
  }

  /// A zeroed inode for a number just allocated.
  func makeInode(_ number: UInt32) throws(Errno) -> DiskInode {
    if let old = inodes[number] {
      guard old.users == 0, !orphans.contains(where: { $0 === old }) else { throw .damaged }
      flush(old)
    }
    let inode = try load(number)
    change(inode)
    inode.view.clear(0, inode.view.count)
    nextGeneration = nextGeneration &* 1_664_525 &+ 1_013_904_223
    inode.generation = nextGeneration
    inode.makeSeed(layout)
    if inode.view.count > 128 {
      inode.view.set16(128, UInt16(min(32, inode.view.count - 128)))
    }
    inodes[number] = inode
    operation.newInodes.append(inode)
    return inode
  }

  /// An operation that made it failed.
  func forgetInode(_ inode: DiskInode) {
    if inodes[inode.number] === inode { inodes[inode.number] = nil }
    inode.isDirty = false
    var kept: [DiskInode] = []
    for other in transaction.inodes where other !== inode { kept.append(other) }
    transaction.inodes = kept
  }

  /// Copies an inode's bytes to its block, with the checksum.
  func flush(_ inode: DiskInode) {
    guard inode.isDirty else { return }
    if layout.hasChecksums { inode.checksum = inode.computeChecksum() }
    inode.buffer.view.part(inode.place, inode.view.count).copy(inode.view)
    inode.isDirty = false
  }

  func trimInodes() {
    guard inodes.count > inodesBeforeTrim else { return }
    var spare = inodes.count - inodeCacheLimit
    var unused: [UInt32] = []
    for (number, inode) in inodes {
      if inode.users == 0, !inode.isDirty, inode.links > 0 || inode.mode == 0, spare > 0 || !inode.wasUsed {
        unused.append(number)
        spare -= 1
      } else {
        inode.wasUsed = false
      }
    }
    for number in unused { inodes[number] = nil }
    // When little could go (it waits for the commit), do not look again at every operation.
    inodesBeforeTrim = max(inodeCacheLimit, inodes.count + inodes.count / 2)
  }

  /// Makes the memory that caches use smaller; for callers that only read, too.
  public func trim() {
    guard !operation.isActive else { return }
    trimInodes()
    trimCache()
  }
}
