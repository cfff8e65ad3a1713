import ABI

extension FileSystem {
  private func inodeBitmap(_ group: Int) throws(Errno) -> (Bitmap, Buffer) {
    let descriptor = descriptor(group)
    let buffer = try buffer(descriptor.inodeBitmap)
    let bitmap = Bitmap(view: buffer.view, count: Int(layout.inodesPerGroup))
    if !buffer.isVerified {
      if descriptor.flags & GroupDescriptor.inodesUninitialised != 0, layout.hasGroupChecksums {
        bitmap.view.clear(0, bitmap.view.count)
        bitmap.pad()
      } else if layout.hasChecksums {
        let crc = Checksum.crc32c(layout.checksumSeed, buffer.view.part(0, Int(layout.inodesPerGroup / 8)))
        guard crc & descriptor.checksumMask == descriptor.inodeBitmapChecksum else { throw .badMessage }
      }
      buffer.kind = .inodeBitmap(group: group)
      buffer.isVerified = true
    }
    guard case .inodeBitmap(group) = buffer.kind else { throw .damaged }
    return (bitmap, buffer)
  }

  func group(ofInode number: UInt32) -> Int { Int((number - 1) / layout.inodesPerGroup) }

  /// Takes an inode number: near its directory for files, in a group with much room for directories. ENOSPC.
  func allocateInodeNumber(parent: DiskInode, isDirectory: Bool) throws(Errno) -> UInt32 {
    let home = group(ofInode: parent.number)
    let first = isDirectory ? groupForDirectory(parent, home) : home
    for step in 0..<layout.groups {
      let group = (first + step) % layout.groups
      guard descriptor(group).freeInodes > 0 else { continue }
      if let number = try allocateInode(group, isDirectory) { return number }
    }
    throw .noSpace
  }

  /// Directories of the root are spread; deeper ones stay near their parent while it has room.
  private func groupForDirectory(_ parent: DiskInode, _ home: Int) -> Int {
    let average = freeInodes / UInt32(layout.groups)
    let averageBlocks = UInt32(truncatingIfNeeded: freeBlocks / UInt64(layout.groups))
    if parent.number != FileSystem.rootNumber {
      let here = descriptor(home)
      if here.freeInodes > average / 4, here.freeBlocks > averageBlocks / 4 { return home }
    }
    var best = home
    var fewest = UInt32.max
    for group in 0..<layout.groups {
      let descriptor = descriptor(group)
      guard descriptor.freeInodes >= max(1, average), descriptor.freeBlocks >= averageBlocks else { continue }
      if descriptor.directories < fewest { (best, fewest) = (group, descriptor.directories) }
    }
    return best
  }

  private func allocateInode(_ group: Int, _ isDirectory: Bool) throws(Errno) -> UInt32? {
    let (bitmap, buffer) = try inodeBitmap(group)
    let descriptor = descriptor(group)
    let reserved = group == 0 ? Int(layout.firstInode) - 1 : 0
    guard let bit = bitmap.firstFree(reserved, nil) else { return nil }
    change(buffer)
    change(descriptor.buffer)
    guard bitmap.set(bit, 1, true), freeInodes > 0 else { throw .damaged }
    descriptor.flags &= ~GroupDescriptor.inodesUninitialised
    descriptor.freeInodes -= 1
    freeInodes -= 1
    if isDirectory { descriptor.directories += 1 }
    if descriptor.flags & GroupDescriptor.blocksUninitialised != 0 {
      // A group with inodes has a block bitmap, as Linux and e2fsck have it.
      change(try blockBitmap(group).1)
      descriptor.flags &= ~GroupDescriptor.blocksUninitialised
    }
    if layout.hasGroupChecksums {
      descriptor.unusedInodes = min(descriptor.unusedInodes, layout.inodesPerGroup - UInt32(bit) - 1)
    }
    return UInt32(group) * layout.inodesPerGroup + UInt32(bit) + 1
  }

  func freeInodeNumber(_ number: UInt32, isDirectory: Bool) throws(Errno) {
    guard number >= layout.firstInode, number <= layout.inodes else { throw .damaged }
    let group = group(ofInode: number)
    let (bitmap, buffer) = try inodeBitmap(group)
    let descriptor = descriptor(group)
    change(buffer)
    change(descriptor.buffer)
    guard bitmap.set(Int((number - 1) % layout.inodesPerGroup), 1, false) else { throw .damaged }
    descriptor.freeInodes += 1
    freeInodes += 1
    if isDirectory, descriptor.directories > 0 { descriptor.directories -= 1 }
  }
}
