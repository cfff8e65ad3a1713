import ABI

extension FileSystem {
  /// The bitmap of a group's blocks, made up where the group was never used.
  func blockBitmap(_ group: Int) throws(Errno) -> (Bitmap, Buffer) {
    let descriptor = descriptor(group)
    let buffer = try buffer(descriptor.blockBitmap)
    let bitmap = Bitmap(view: buffer.view, count: layout.blocks(inGroup: group))
    if !buffer.isVerified {
      if descriptor.flags & GroupDescriptor.blocksUninitialised != 0, layout.hasGroupChecksums {
        fill(bitmap, group)
      } else if layout.hasChecksums {
        let crc = Checksum.crc32c(layout.checksumSeed, buffer.view.part(0, Int(layout.blocksPerGroup / 8)))
        guard crc & descriptor.checksumMask == descriptor.blockBitmapChecksum else { throw .badMessage }
      }
      buffer.kind = .blockBitmap(group: group)
      buffer.isVerified = true
    }
    guard case .blockBitmap(group) = buffer.kind else { throw .damaged }
    return (bitmap, buffer)
  }

  /// What is in use in a group whose bitmap was never written: its own structures.
  private func fill(_ bitmap: Bitmap, _ group: Int) {
    bitmap.view.clear(0, bitmap.view.count)
    let first = layout.firstBlock(ofGroup: group)
    let own = BlockRun(start: first, count: bitmap.count)
    for zone in systemZones where zone.start < own.end && zone.end > own.start {
      let start = max(zone.start, own.start)
      _ = bitmap.set(Int(start - first), Int(min(zone.end, own.end) - start), true)
    }
    bitmap.pad()
  }

  /// Takes up to `wanted` adjacent blocks, near `goal` if that is free; ENOSPC.
  func allocateBlocks(goal: UInt64, wanted: Int) throws(Errno) -> BlockRun {
    let start = goal >= layout.firstDataBlock && goal < layout.blocks ? goal : layout.firstDataBlock
    let first = layout.group(of: start)
    let bit = Int(start - layout.firstBlock(ofGroup: first))
    if let run = try allocate(first, from: bit, wanted, atLeast: min(wanted, 32)) { return run }
    // Then groups with room for all of it, then any.
    for atLeast in [wanted, min(wanted, 64), 1] {
      for step in 0..<layout.groups {
        let group = (first + step) % layout.groups
        guard Int(descriptor(group).freeBlocks) >= atLeast else { continue }
        if let run = try allocate(group, from: 0, wanted, atLeast: atLeast) { return run }
      }
    }
    throw .noSpace
  }

  /// The first run of `wanted` free blocks of a group, or else its longest of `atLeast`.
  private func allocate(_ group: Int, from: Int, _ wanted: Int, atLeast: Int) throws(Errno) -> BlockRun? {
    guard descriptor(group).freeBlocks > 0 else { return nil }
    let (bitmap, buffer) = try blockBitmap(group)
    let held = held[group]
    var (best, bestCount) = (0, 0)
    var bit = from
    while let free = bitmap.firstFree(bit, held) {
      let count = bitmap.freeRun(free, wanted, held)
      if count > bestCount { (best, bestCount) = (free, count) }
      // At the goal a shorter run is better than a longer one elsewhere.
      if count >= wanted || free == from && from > 0 && count >= min(wanted, 16) { break }
      bit = free + count
    }
    guard bestCount >= atLeast else { return nil }
    let run = BlockRun(start: layout.firstBlock(ofGroup: group) + UInt64(best), count: bestCount)
    guard !isSystemBlock(run) else { throw .damaged }
    try take(group, bitmap, buffer, best, bestCount)
    return run
  }

  private func take(_ group: Int, _ bitmap: Bitmap, _ buffer: Buffer, _ start: Int, _ count: Int)
    throws(Errno)
  {
    let descriptor = descriptor(group)
    guard Int(descriptor.freeBlocks) >= count, freeBlocks >= UInt64(count) else { throw .damaged }
    change(buffer)
    change(descriptor.buffer)
    guard bitmap.set(start, count, true) else { throw .damaged }
    descriptor.flags &= ~GroupDescriptor.blocksUninitialised
    descriptor.freeBlocks -= UInt32(count)
    freeBlocks -= UInt64(count)
  }

  /// Gives blocks back; EUCLEAN if they were not in use. They are not allocated again before the commit.
  func free(_ run: BlockRun, isMetadata: Bool) throws(Errno) {
    guard isDataRun(run) else { throw .damaged }
    var (start, rest) = (run.start, run.count)
    while rest > 0 {
      let group = layout.group(of: start)
      let first = Int(start - layout.firstBlock(ofGroup: group))
      let count = min(rest, layout.blocks(inGroup: group) - first)
      let (bitmap, buffer) = try blockBitmap(group)
      let descriptor = descriptor(group)
      change(buffer)
      change(descriptor.buffer)
      guard bitmap.set(first, count, false) else { throw .damaged }
      descriptor.flags &= ~GroupDescriptor.blocksUninitialised
      descriptor.freeBlocks += UInt32(count)
      freeBlocks += UInt64(count)
      start += UInt64(count)
      rest -= count
    }
    hold(run, true)
    operation.freed.append(run)
    if isMetadata {
      for offset in 0..<run.count { forget(run.start + UInt64(offset)) }
    }
  }

  /// Marks freed blocks as not to be allocated yet, or takes the mark away.
  func hold(_ run: BlockRun, _ value: Bool) {
    var (start, rest) = (run.start, run.count)
    while rest > 0 {
      let group = layout.group(of: start)
      let first = Int(start - layout.firstBlock(ofGroup: group))
      let count = min(rest, layout.blocks(inGroup: group) - first)
      var words = held.removeValue(forKey: group) ?? [UInt64](repeating: 0, count: blockSize / 8)
      for bit in first..<(first + count) {
        let mask = UInt64(1) << UInt64(bit & 63)
        if value { words[bit >> 6] |= mask } else { words[bit >> 6] &= ~mask }
      }
      held[group] = words
      start += UInt64(count)
      rest -= count
    }
  }
}
