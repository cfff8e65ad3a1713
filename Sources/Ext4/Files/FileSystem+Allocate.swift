public import ABI

/// Modes of fallocate(2).
public enum AllocationMode {
  /// Blocks for the range, as zeros; `keepSize` leaves the file's size alone.
  case allocate(keepSize: Bool)
  /// FALLOC_FL_PUNCH_HOLE
  case punchHole
  /// FALLOC_FL_ZERO_RANGE
  case zero(keepSize: Bool)
}

extension FileSystem {
  /// fallocate(2). ENOSPC, EFBIG, EINVAL.
  public func allocate(_ inode: DiskInode, offset: UInt64, length: UInt64, _ mode: AllocationMode)
    throws(Errno)
  {
    guard inode.isRegular else { throw inode.isDirectory ? .isDirectory : .operationNotOnDevice }
    guard length > 0 else { throw .invalid }
    guard offset <= maximumFileSize, length <= maximumFileSize - offset else { throw .fileTooLarge }
    guard inode.usesExtents else { throw .notSupported }
    let end = offset + length
    switch mode {
    case .allocate(let keepSize):
      try fill(inode, offset / UInt64(blockSize), blocks(end))
      try grow(inode, keepSize ? 0 : end)
    case .punchHole:
      try clear(inode, offset, min(end, max(offset, inode.size + UInt64(blockSize))))
    case .zero(let keepSize):
      try clear(inode, offset, end)
      try fill(inode, offset / UInt64(blockSize), blocks(end))
      try grow(inode, keepSize ? 0 : end)
    }
  }

  private func grow(_ inode: DiskInode, _ size: UInt64) throws(Errno) {
    if size > inode.size { try clearTail(inode) }
    try perform { () throws(Errno) in
      change(inode)
      if size > inode.size { inode.size = size }
      inode.dataTransaction = transaction.number
      inode.changed = clock.realtimeNanoseconds
    }
  }

  /// Gives unwritten blocks to the holes among blocks `from..<to`.
  private func fill(_ inode: DiskInode, _ from: UInt64, _ to: UInt64) throws(Errno) {
    var place = from
    while place < to {
      place = try perform { () throws(Errno) in
        let mapping = try map(inode, UInt32(place))
        var count = min(mapping.count, Int(to - place))
        guard mapping.state == .hole else { return place + UInt64(count) }
        count = min(count, 32767)
        let run = try allocateBlocks(goal: try goal(inode, UInt32(place)), wanted: count)
        change(inode)
        inode.addBlocks(run.count, blockSize: blockSize)
        inode.goal = run.end
        try insert(
          Extent(logical: UInt32(place), count: run.count, physical: run.start, isUnwritten: true),
          into: inode)
        return place + UInt64(run.count)
      }
    }
  }

  /// Makes a range read as zeros: frees whole blocks, writes zeros to the others.
  private func clear(_ inode: DiskInode, _ offset: UInt64, _ end: UInt64) throws(Errno) {
    guard end > offset else { return }
    let size = UInt64(blockSize)
    let (first, last) = ((offset + size - 1) / size, end / size)
    if first > last || offset / size == end / size {
      return try clearPart(inode, offset / size, Int(offset % size), Int(end - offset))
    }
    if offset % size != 0 {
      try clearPart(inode, offset / size, Int(offset % size), Int(size - offset % size))
    }
    if end % size != 0 { try clearPart(inode, last, 0, Int(end % size)) }
    var place = first
    while place < last {
      place = try perform { () throws(Errno) in
        try remove(inode, from: place, to: last, freeing: true)
      }
    }
    try perform { () throws(Errno) in
      change(inode)
      let now = clock.realtimeNanoseconds
      inode.modified = now
      inode.changed = now
      inode.dataTransaction = transaction.number
    }
  }

  private func clearPart(_ inode: DiskInode, _ block: UInt64, _ start: Int, _ count: Int) throws(Errno) {
    guard block < 1 << 32, count > 0 else { return }
    let mapping = try map(inode, UInt32(block))
    guard mapping.state == .written else { return }
    let view = bounce.part(0, blockSize)
    try device.read(view.mutable, at: mapping.physical * UInt64(blockSize))
    view.clear(start, count)
    dataWrites &+= 1
    try device.write(view.raw, at: mapping.physical * UInt64(blockSize))
  }
}
