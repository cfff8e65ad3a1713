public import ABI

extension FileSystem {
  /// FITRIM: gives the device the free blocks among the bytes from `start` on, in runs of `least` bytes or more, as blocks
  /// that nobody needs; how many bytes. What was freed but may come back after a power cut is committed first. EINVAL.
  public func trim(from start: UInt64, length: UInt64, atLeast least: UInt64) throws(Errno) -> UInt64 {
    let size = UInt64(blockSize)
    let first = max(start / size, layout.firstDataBlock)
    let end = min(length > UInt64.max - start ? layout.blocks : (start + length) / size, layout.blocks)
    guard first < layout.blocks, length >= size, least <= layout.blocksPerGroup * size else { throw .invalid }
    try synchronize()
    var trimmed: UInt64 = 0
    for group in layout.group(of: first)..<layout.groups {
      let base = layout.firstBlock(ofGroup: group)
      guard base < end else { break }
      let limit = Int(min(end - base, UInt64(layout.blocks(inGroup: group))))
      guard descriptor(group).freeBlocks > 0 else { continue }
      let (bitmap, _) = try blockBitmap(group)
      var bit = first > base ? Int(first - base) : 0
      while bit < limit, let free = bitmap.firstFree(bit, nil), free < limit {
        let count = bitmap.freeRun(free, limit - free, nil)
        if UInt64(count) * size >= least {
          device.discard(at: (base + UInt64(free)) * size, count: UInt64(count) * size)
          trimmed += UInt64(count) * size
        }
        bit = free + count
      }
    }
    return trimmed
  }
}
