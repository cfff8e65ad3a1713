public import ABI

extension FileSystem {
  /// The most bytes that a file can have.
  public var maximumFileSize: UInt64 { (1 << 32 - 1) * UInt64(blockSize) }

  /// Reads from `offset` on; how many bytes, 0 past the end. EIO, EUCLEAN.
  public func read(_ inode: DiskInode, at offset: UInt64, into bytes: UnsafeMutableRawBufferPointer)
    throws(Errno) -> Int
  {
    guard inode.isRegular else { throw inode.isDirectory ? .isDirectory : .invalid }
    guard offset < inode.size, let base = bytes.baseAddress else { return 0 }
    let count = Int(min(UInt64(bytes.count), inode.size - offset))
    var done = 0
    while done < count {
      let position = offset + UInt64(done)
      let (block, inside) = (position / UInt64(blockSize), Int(position % UInt64(blockSize)))
      guard block < 1 << 32 else { throw .damaged }
      let mapping = try map(inode, UInt32(block))
      let length = min(mapping.count * blockSize - inside, count - done)
      let target = UnsafeMutableRawBufferPointer(start: base + done, count: length)
      if mapping.state == .written {
        try readBlocks(mapping.physical, inside, target)
      } else {
        target.initializeMemory(as: UInt8.self, repeating: 0)
      }
      done += length
    }
    return count
  }

  /// Reads bytes that start `inside` a run of blocks; whole blocks go straight to their place.
  private func readBlocks(_ first: UInt64, _ inside: Int, _ bytes: UnsafeMutableRawBufferPointer)
    throws(Errno)
  {
    guard let base = bytes.baseAddress else { return }
    var done = 0
    while done < bytes.count {
      let at = inside + done
      let offset = first * UInt64(blockSize) + UInt64(at)
      let (start, rest) = (at % blockSize, bytes.count - done)
      if start == 0, rest >= blockSize {
        let length = rest & ~(blockSize - 1)
        try device.read(UnsafeMutableRawBufferPointer(start: base + done, count: length), at: offset)
        done += length
      } else {
        let length = min(blockSize - start, rest)
        try device.read(bounce.part(0, blockSize).mutable, at: offset - UInt64(start))
        (base + done).copyMemory(from: bounce.base + start, byteCount: length)
        done += length
      }
    }
  }

  /// Writes at `offset`, all of `bytes`; the data is on its way to the device when this returns, and durable after
  /// `synchronize`. EFBIG, ENOSPC, EIO: part of it may have been written then.
  public func write(_ inode: DiskInode, at offset: UInt64, _ bytes: UnsafeRawBufferPointer) throws(Errno) {
    guard inode.isRegular else { throw inode.isDirectory ? .isDirectory : .invalid }
    guard offset <= maximumFileSize, UInt64(bytes.count) <= maximumFileSize - offset else {
      throw .fileTooLarge
    }
    guard let base = bytes.baseAddress, bytes.count > 0 else { return }
    guard inode.usesExtents else { throw .notSupported }
    if offset > inode.size { try clearTail(inode) }
    var done = 0
    while done < bytes.count {
      let rest = UnsafeRawBufferPointer(start: base + done, count: bytes.count - done)
      done += try perform { () throws(Errno) in try writePart(inode, offset + UInt64(done), rest) }
    }
  }

  /// Writes as much as is mapped alike; how many bytes.
  private func writePart(_ inode: DiskInode, _ offset: UInt64, _ bytes: UnsafeRawBufferPointer) throws(Errno)
    -> Int
  {
    let (block, inside) = (UInt32(offset / UInt64(blockSize)), Int(offset % UInt64(blockSize)))
    let wanted = min((inside + bytes.count + blockSize - 1) / blockSize, 4096)
    let mapping = try map(inode, block)
    var count = min(mapping.count, wanted)
    switch mapping.state {
    case .written:
      let part = limited(bytes, count * blockSize - inside)
      try writeBlocks(mapping.physical, inside, part, isFresh: false, end: inode.size, at: offset)
    case .unwritten:
      let part = limited(bytes, count * blockSize - inside)
      try writeBlocks(mapping.physical, inside, part, isFresh: true, end: inode.size, at: offset)
      try markWritten(inode, from: block, count: count)
    case .hole:
      let run = try allocateBlocks(goal: try goal(inode, block), wanted: count)
      count = run.count
      try writeBlocks(
        run.start, inside, limited(bytes, count * blockSize - inside), isFresh: true, end: inode.size,
        at: offset)
      change(inode)
      inode.addBlocks(count, blockSize: blockSize)
      inode.goal = run.end
      try insert(Extent(logical: block, count: count, physical: run.start, isUnwritten: false), into: inode)
    }
    let length = min(bytes.count, count * blockSize - inside)
    change(inode)
    let now = clock.realtimeNanoseconds
    if mapping.state != .written || offset + UInt64(length) > inode.size {
      inode.dataTransaction = transaction.number
    }
    inode.modified = now
    inode.changed = now
    inode.size = max(inode.size, offset + UInt64(length))
    return length
  }

  private func limited(_ bytes: UnsafeRawBufferPointer, _ count: Int) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: bytes.baseAddress, count: min(count, bytes.count))
  }

  /// Writes to a run of blocks, `inside` bytes from its start. Blocks that are written in part keep the rest of their
  /// contents, or get zeros if `isFresh`.
  private func writeBlocks(
    _ first: UInt64, _ inside: Int, _ bytes: UnsafeRawBufferPointer, isFresh: Bool, end: UInt64,
    at offset: UInt64
  ) throws(Errno) {
    guard let base = bytes.baseAddress else { return }
    dataWrites &+= 1
    var done = 0
    while done < bytes.count {
      let at = inside + done
      let place = first &* UInt64(blockSize) &+ UInt64(at)
      let (start, rest) = (at % blockSize, bytes.count - done)
      if start == 0, rest >= blockSize {
        let length = rest & ~(blockSize - 1)
        try device.write(UnsafeRawBufferPointer(start: base + done, count: length), at: place)
        done += length
        continue
      }
      let length = min(blockSize - start, rest)
      let block = bounce.part(0, blockSize)
      // A block that has nothing of the file before or after need not be read.
      let isWhole = start == 0 && offset + UInt64(done + length) >= end
      if isFresh || isWhole {
        block.clear(0, blockSize)
      } else {
        try device.read(block.mutable, at: place - UInt64(start))
      }
      (block.base + start).copyMemory(from: base + done, byteCount: length)
      try device.write(block.raw, at: place - UInt64(start))
      done += length
    }
  }

  /// Where the file's next blocks should be: after those before them.
  func goal(_ inode: DiskInode, _ logical: UInt32) throws(Errno) -> UInt64 {
    let path = try path(inode, logical)
    let leaf = path[path.count - 1]
    if leaf.index >= 0 {
      let extent = leaf.node.extent(leaf.index)
      if UInt64(logical) >= extent.end {
        let gap = UInt64(logical) - extent.end
        return extent.physical &+ UInt64(extent.count) &+ (gap < 65536 ? gap : 0)
      }
    }
    return goal(inode)
  }

  func goal(_ inode: DiskInode) -> UInt64 {
    inode.goal != 0 ? inode.goal : layout.firstBlock(ofGroup: group(ofInode: inode.number))
  }

  /// Zeros what follows the file's end in its last block, before the file grows past it: it may hold what was there
  /// before the file was cut.
  func clearTail(_ inode: DiskInode) throws(Errno) {
    let inside = Int(inode.size % UInt64(blockSize))
    guard inside != 0, inode.size / UInt64(blockSize) < 1 << 32 else { return }
    let mapping = try map(inode, UInt32(inode.size / UInt64(blockSize)))
    guard mapping.state == .written else { return }
    let block = bounce.part(0, blockSize)
    try device.read(block.mutable, at: mapping.physical * UInt64(blockSize))
    block.clear(inside, blockSize - inside)
    dataWrites &+= 1
    try device.write(block.raw, at: mapping.physical * UInt64(blockSize))
  }

  /// truncate(2). EFBIG.
  public func truncate(_ inode: DiskInode, to size: UInt64) throws(Errno) {
    guard inode.isRegular else { throw inode.isDirectory ? .isDirectory : .invalid }
    guard size <= maximumFileSize else { throw .fileTooLarge }
    guard inode.usesExtents else { throw .notSupported }
    if size > inode.size { try clearTail(inode) }
    let isCut = size < inode.size
    try perform { () throws(Errno) in
      change(inode)
      inode.size = size
      inode.dataTransaction = transaction.number
      let now = clock.realtimeNanoseconds
      inode.modified = now
      inode.changed = now
      // Freeing the blocks may take more than one transaction.
      if isCut { addOrphan(inode) }
    }
    guard isCut else { return }
    try removeBlocks(inode, from: blocks(size))
    try perform { () throws(Errno) in if inode.links > 0 { removeOrphan(inode) } }
  }
}
