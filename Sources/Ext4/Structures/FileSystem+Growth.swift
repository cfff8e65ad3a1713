public import ABI

// Making a file system larger, or giving it a journal, while nothing else uses it: what an image's root needs, which is
// as small as its files when it is built.
extension FileSystem {
  /// Grows to `wanted` blocks, in whole groups; nothing happens if it is as large already. The device has the room, and
  /// reads as zeros there. Only with meta_bg, whose descriptors lie in the groups they describe, and without a journal in
  /// use: EOPNOTSUPP otherwise.
  public func grow(to wanted: UInt64) throws(Errno) {
    guard layout.has(incompatible: Feature.metaBlockGroups), layout.firstMetaGroup == 0,
      layout.hasGroupChecksums, journal == nil
    else { throw .notSupported }
    let most = min(1 << 19, Int(UInt32.max / layout.inodesPerGroup))
    let groups = Int(
      min(
        (min(wanted, device.size / UInt64(blockSize)) - layout.firstDataBlock) / layout.blocksPerGroup,
        UInt64(most)))
    guard groups >= layout.groups, layout.firstBlock(ofGroup: groups) > layout.blocks else { return }
    let (old, zones, count) = (layout, systemZones, descriptors.count)
    do throws(Errno) {
      try perform { () throws(Errno) in try addGroups(groups) }
    } catch {
      layout = old
      systemZones = zones
      descriptors.removeLast(descriptors.count - count)
      throw error
    }
  }

  private func addGroups(_ groups: Int) throws(Errno) {
    let old = layout.groups
    let (bitmap, buffer) = try blockBitmap(old - 1)
    layout.groups = groups
    layout.blocks = layout.firstBlock(ofGroup: groups)
    layout.inodes = UInt32(groups) * layout.inodesPerGroup
    try fillUp(old - 1, from: bitmap.count, bitmap, buffer)
    var overhead: UInt64 = 0
    for group in old..<groups { overhead += UInt64(try addGroup(group)) }
    systemZones = FileSystem.merged(systemZones)
    // The last group's bitmap is never left to be made up: it says where the file system ends.
    let last = descriptor(groups - 1)
    change(try blockBitmap(groups - 1).1)
    last.flags &= ~GroupDescriptor.blocksUninitialised
    change(superblock)
    let s = superblockView
    s.set32(0, layout.inodes)
    s.set32(4, UInt32(truncatingIfNeeded: layout.blocks))
    if layout.has(incompatible: Feature.wide) { s.set32(336, UInt32(layout.blocks >> 32)) }
    s.set32(584, s.u32(584) &+ UInt32(truncatingIfNeeded: overhead))
  }

  /// The group that was the last, and perhaps not a whole one, gets its missing blocks.
  private func fillUp(_ group: Int, from count: Int, _ bitmap: Bitmap, _ buffer: Buffer) throws(Errno) {
    let missing = layout.blocks(inGroup: group) - count
    guard missing > 0 else { return }
    let descriptor = descriptor(group)
    change(buffer)
    change(descriptor.buffer)
    // Bits past the end are set.
    guard bitmap.set(count, missing, false) else { throw .damaged }
    descriptor.flags &= ~GroupDescriptor.blocksUninitialised
    descriptor.freeBlocks += UInt32(missing)
    freeBlocks += UInt64(missing)
  }

  /// Describes a new group, whose bitmaps and inodes nobody has written yet; how many blocks it needs itself.
  private func addGroup(_ group: Int) throws(Errno) -> Int {
    let index = group / layout.descriptorsPerBlock
    if index == descriptors.count {
      let buffer = try newBuffer(layout.descriptorBlock(index))
      buffer.kind = .groupDescriptors
      buffer.pins += 1
      descriptors.append(buffer)
    }
    let descriptor = descriptor(group)
    change(descriptor.buffer)
    let first = layout.firstBlock(ofGroup: group)
    let place = first + layout.headBlocks(ofGroup: group)
    let own = Int(place - first) + 2 + Int(layout.inodeTableBlocks)
    let blocks = layout.blocks(inGroup: group)
    guard own < blocks else { throw .invalid }
    descriptor.setPlaces(blockBitmap: place, inodeBitmap: place + 1, inodeTable: place + 2)
    descriptor.freeBlocks = UInt32(blocks - own)
    descriptor.freeInodes = layout.inodesPerGroup
    descriptor.unusedInodes = layout.inodesPerGroup
    descriptor.directories = 0
    descriptor.flags =
      GroupDescriptor.blocksUninitialised | GroupDescriptor.inodesUninitialised
      | GroupDescriptor.inodesZeroed
    freeBlocks += UInt64(blocks - own)
    freeInodes += layout.inodesPerGroup
    systemZones.append(BlockRun(start: first, count: own))
    return own
  }

  /// Gives a file system without a journal one of `count` blocks. It is used from the next mount on. ENOSPC.
  public func addJournal(blocks count: Int) throws(Errno) {
    guard journal == nil, layout.compatible & Feature.journal == 0, count >= 1024 else { throw .invalid }
    let start = try perform { () throws(Errno) in try makeJournalFile(count) }
    let block = FileSystem.allocate(blockSize)
    defer { block.base.deallocate() }
    block.clear(0, blockSize)
    block.setBig32(0, Journal.magic)
    block.setBig32(4, Journal.BlockType.superblockVersion2)
    block.setBig32(12, UInt32(blockSize))
    block.setBig32(16, UInt32(count))
    block.setBig32(20, 1)  // the first block of the ring
    block.setBig32(24, 1)  // the first transaction's number
    block.store(layout.uuid, at: 48)
    block.setBig32(64, 1)  // file systems that use it
    try device.write(block.raw, at: start * UInt64(blockSize))
    dataWrites &+= 1
  }

  /// Makes the journal's file; where it begins.
  private func makeJournalFile(_ count: Int) throws(Errno) -> UInt64 {
    let number: UInt32 = 8
    let inode = try makeInode(number)
    inode.mode = 0o100600
    inode.links = 1
    let now = clock.realtimeNanoseconds
    inode.accessed = now
    inode.changed = now
    inode.modified = now
    inode.created = now
    format(inode)
    var done = 0
    var goal = layout.firstBlock(ofGroup: layout.groups / 2)
    while done < count {
      let run = try allocateBlocks(goal: goal, wanted: count - done)
      try insert(
        Extent(logical: UInt32(done), count: run.count, physical: run.start, isUnwritten: false), into: inode)
      inode.addBlocks(run.count, blockSize: blockSize)
      done += run.count
      goal = run.end
    }
    inode.size = UInt64(count * blockSize)
    change(superblock)
    let s = superblockView
    layout.compatible |= Feature.journal
    s.set32(92, layout.compatible)
    s.set32(224, number)
    // A copy of where it is, for e2fsck: i_block, then the size.
    s.set8(253, 1)
    for i in 0..<15 { s.set32(268 + i * 4, inode.root.u32(i * 4)) }
    s.set32(328, UInt32(truncatingIfNeeded: inode.size >> 32))
    s.set32(332, UInt32(truncatingIfNeeded: inode.size))
    return try map(inode, 0).physical
  }

  /// The UUID (s_uuid).
  public var identity: [UInt8] { layout.uuid }

  /// Gives the file system on `device`, which is not mounted, another UUID. Its checksums must not depend on it
  /// (metadata_csum_seed): EOPNOTSUPP otherwise.
  public static func setIdentity(_ uuid: [UInt8], on device: any BlockDevice) throws(MountError) {
    let bytes = allocate(1024)
    defer { bytes.base.deallocate() }
    do throws(Errno) {
      try device.read(bytes.mutable, at: 1024)
    } catch { throw MountError(error, "reading the superblock") }
    let layout = try Layout(superblock: bytes, deviceSize: device.size)
    guard layout.hasChecksums, layout.has(incompatible: Feature.checksumSeed), uuid.count == 16 else {
      throw MountError(.notSupported, "checksums that depend on the UUID")
    }
    bytes.store(uuid, at: 104)
    bytes.set32(1020, Checksum.crc32c(~0, bytes.part(0, 1020)))
    do throws(Errno) {
      try device.write(bytes.raw, at: 1024)
      try device.flush()
    } catch { throw MountError(error, "writing the superblock") }
  }
}
