public import ABI

extension FileSystem {
  /// Mounts the file system on `device`: replays its journal, and deletes the files that lost their last name before a
  /// power cut.
  public static func mount(_ device: any BlockDevice, clock: any Clock, readOnly: Bool = false)
    throws(MountError) -> FileSystem
  {
    var fileSystem = try open(device, clock, readOnly)
    let needsRecovery = fileSystem.layout.has(incompatible: Feature.recover)
    if needsRecovery {
      guard !device.isReadOnly else { throw MountError(.readOnlyFileSystem, "a journal to be replayed") }
      try fileSystem.loadJournal()
      do throws(Errno) {
        try fileSystem.recover()
      } catch {
        throw MountError(error, "the journal's recovery")
      }
      // Whatever was read before may have been replaced.
      fileSystem = try open(device, clock, readOnly)
      guard fileSystem.journal == nil else { throw MountError(.damaged, "the journal") }
    }
    try fileSystem.loadDescriptors()
    if !fileSystem.isReadOnly { try fileSystem.startWriting() }
    return fileSystem
  }

  private static func open(_ device: any BlockDevice, _ clock: any Clock, _ readOnly: Bool)
    throws(MountError) -> FileSystem
  {
    guard device.size >= 64 * 1024 else { throw MountError(.invalid, "a device that is too small") }
    let bytes = allocate(1024)
    defer { bytes.base.deallocate() }
    do throws(Errno) {
      try device.read(bytes.mutable, at: 1024)
    } catch {
      throw MountError(error, "reading the superblock")
    }
    let layout = try Layout(superblock: bytes, deviceSize: device.size)
    let isForeign = layout.readOnlyCompatible & ~Feature.knownReadOnlyCompatible != 0
    if isForeign, !readOnly, !device.isReadOnly {
      throw MountError(.readOnlyFileSystem, "a feature that allows reading only")
    }
    let fileSystem = FileSystem(
      device: device, clock: clock, layout: layout, isReadOnly: readOnly || device.isReadOnly)
    try fileSystem.loadFirst()
    return fileSystem
  }

  private func loadFirst() throws(MountError) {
    do throws(Errno) {
      superblock = try buffer(blockSize == 1024 ? 1 : 0)
      superblock.kind = .superblock
      superblock.pins += 1
      for index in 0..<layout.descriptorBlocks {
        let buffer = try buffer(layout.descriptorBlock(index))
        buffer.kind = .groupDescriptors
        buffer.pins += 1
        descriptors.append(buffer)
      }
    } catch {
      throw MountError(error, "reading the group descriptors")
    }
    let s = superblockView
    hashSeed = (s.u32(236), s.u32(240), s.u32(244), s.u32(248))
    hashesUnsigned = s.u32(352) & 2 != 0
  }

  /// Checks every group's descriptor and adds up the free counts.
  private func loadDescriptors() throws(MountError) {
    freeBlocks = 0
    freeInodes = 0
    var zones: [BlockRun] = []
    for group in 0..<layout.groups {
      let descriptor = descriptor(group)
      if layout.hasGroupChecksums, descriptor.checksum != descriptor.computeChecksum(layout, group: group) {
        throw MountError(.badMessage, "a group descriptor's checksum")
      }
      let count = layout.inodeTableBlocks
      for run in [
        BlockRun(start: descriptor.blockBitmap, count: 1), BlockRun(start: descriptor.inodeBitmap, count: 1),
        BlockRun(start: descriptor.inodeTable, count: Int(count)),
      ] {
        guard run.start >= layout.firstDataBlock, run.start < layout.blocks,
          UInt64(run.count) <= layout.blocks - run.start
        else { throw MountError(.damaged, "a group descriptor") }
        zones.append(run)
      }
      let head = layout.headBlocks(ofGroup: group)
      if head > 0 { zones.append(BlockRun(start: layout.firstBlock(ofGroup: group), count: Int(head))) }
      guard descriptor.freeBlocks <= UInt32(layout.blocks(inGroup: group)),
        descriptor.freeInodes <= layout.inodesPerGroup, descriptor.unusedInodes <= layout.inodesPerGroup
      else { throw MountError(.damaged, "a group descriptor") }
      freeBlocks += UInt64(descriptor.freeBlocks)
      freeInodes += descriptor.freeInodes
    }
    systemZones = FileSystem.merged(zones)
  }

  static func merged(_ zones: [BlockRun]) -> [BlockRun] {
    let sorted = zones.sorted { $0.start < $1.start }
    var result: [BlockRun] = []
    for zone in sorted {
      if let last = result.last, zone.start <= last.end {
        result[result.count - 1].count = Int(max(last.end, zone.end) - last.start)
      } else {
        result.append(zone)
      }
    }
    return result
  }

  private func startWriting() throws(MountError) {
    if layout.compatible & Feature.journal != 0 { try loadJournal() }
    do throws(Errno) {
      let s = superblockView
      let now = UInt32(truncatingIfNeeded: clock.realtimeNanoseconds / 1_000_000_000)
      s.set32(44, now)
      s.set16(52, s.u16(52) &+ 1)
      if journal != nil { s.set32(96, s.u32(96) | Feature.recover) }
      // The flag goes to its place before the journal is used: a crash must find it.
      try writeSuperblock()
      try startJournal()
      try processOrphans()
    } catch {
      throw MountError(error, "starting the journal")
    }
  }

  /// Writes everything back and marks the file system clean. No call may follow.
  public func unmount() throws(Errno) {
    guard !isReadOnly, !isAborted else { return }
    try deleteUnused()
    try perform { () throws(Errno) in
      change(superblock)
      let s = superblockView
      s.set32(48, UInt32(truncatingIfNeeded: clock.realtimeNanoseconds / 1_000_000_000))
    }
    try commit()
    try checkpoint()
    try stopJournal()
    let s = superblockView
    s.set32(96, s.u32(96) & ~Feature.recover)
    try writeSuperblock()
    isAborted = true
  }

  func writeSuperblock() throws(Errno) {
    sealSuperblock()
    let offset = superblock.block * UInt64(blockSize)
    try device.write(superblock.view.raw, at: offset)
    try device.flush()
  }
}
