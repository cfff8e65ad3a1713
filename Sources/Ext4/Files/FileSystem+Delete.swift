import ABI

// The orphan list: inodes without a name that are still in use, and files being cut. It starts in the superblock and
// goes on in the inodes' deletion times, so that a mount after a power cut can finish what was begun.
extension FileSystem {
  func isOrphan(_ inode: DiskInode) -> Bool { orphans.contains { $0 === inode } }

  func addOrphan(_ inode: DiskInode) {
    guard !isOrphan(inode) else { return }
    change(inode)
    change(superblock)
    inode.deletionTime = orphans.last?.number ?? 0
    orphans.append(inode)
    superblockView.set32(232, inode.number)
  }

  func removeOrphan(_ inode: DiskInode) {
    guard let index = orphans.lastIndex(where: { $0 === inode }) else { return }
    let next = index > 0 ? orphans[index - 1].number : 0
    if index + 1 < orphans.count {
      change(orphans[index + 1])
      orphans[index + 1].deletionTime = next
    } else {
      change(superblock)
      superblockView.set32(232, next)
    }
    change(inode)
    inode.deletionTime = 0
    orphans.remove(at: index)
  }

  /// Finishes what a power cut interrupted: deletes files without names, cuts the others to their size.
  func processOrphans() throws(Errno) {
    var number = superblockView.u32(232)
    var chain: [DiskInode] = []
    while number != 0 {
      guard number >= layout.firstInode, chain.count < 1 << 20, let inode = try? find(number),
        !chain.contains(where: { $0 === inode })
      else { break }
      chain.append(inode)
      number = inode.deletionTime
    }
    orphans = chain.reversed()
    for inode in chain {
      do throws(Errno) {
        if inode.links == 0 {
          try delete(inode)
        } else {
          try removeBlocks(inode, from: blocks(inode.size))
          try perform { () throws(Errno) in removeOrphan(inode) }
        }
      } catch {
        // A damaged one is left to e2fsck.
        guard error == .damaged || error == .badMessage || error == .notSupported else { throw error }
      }
    }
    orphans = []
    if superblockView.u32(232) != 0 {
      try perform { () throws(Errno) in
        change(superblock)
        superblockView.set32(232, 0)
      }
    }
  }

  /// Deletes the files without names that nobody holds any more, at unmount.
  func deleteUnused() throws(Errno) {
    for inode in orphans where inode.links == 0 { try delete(inode) }
  }

  func blocks(_ size: UInt64) -> UInt64 {
    let mask = UInt64(blockSize - 1)
    return size > UInt64.max - mask ? 1 << 32 : min((size + mask) / UInt64(blockSize), 1 << 32)
  }

  /// Whether the inode has blocks other than its attributes'.
  func hasBlocks(_ inode: DiskInode) -> Bool {
    switch inode.type {
    case 0o100000, 0o040000: true
    case 0o120000: !isInlineLink(inode)
    default: false
    }
  }

  /// Symbolic links of less than 60 bytes are in the inode.
  func isInlineLink(_ inode: DiskInode) -> Bool { !inode.usesExtents && inode.size < 60 }

  /// Frees an inode that has no names and everything it owns. It is on the orphan list.
  func delete(_ inode: DiskInode) throws(Errno) {
    if hasBlocks(inode) { try removeBlocks(inode, from: 0) }
    try perform { () throws(Errno) in
      try dropAttributeBlock(inode)
      removeOrphan(inode)
      change(inode)
      inode.deletionTime = max(1, UInt32(truncatingIfNeeded: clock.realtimeNanoseconds / 1_000_000_000))
      inode.size = 0
      let isDirectory = inode.isDirectory
      inode.mode = 0
      try freeInodeNumber(inode.number, isDirectory: isDirectory)
    }
    inodes[inode.number] = inode.isDirty ? inode : nil
  }

  /// Frees a file's blocks from block `first` on, in as many operations as it takes.
  func removeBlocks(_ inode: DiskInode, from first: UInt64) throws(Errno) {
    guard inode.usesExtents else {
      guard inode.sectors(blockSize: blockSize) == 0 else { throw .notSupported }
      return
    }
    var place = first
    while place < 1 << 32 {
      place = try perform { () throws(Errno) in
        try remove(inode, from: place, to: 1 << 32, freeing: true)
      }
    }
  }
}
