import ABI

// The metadata cache. A block has at most one buffer; buffers are only let go between operations.
extension FileSystem {
  /// The buffer of `block`, read if need be. EUCLEAN outside of the file system.
  func buffer(_ block: UInt64) throws(Errno) -> Buffer {
    if let buffer = buffers[block] {
      buffer.wasUsed = true
      return buffer
    }
    guard block < layout.blocks else { throw .damaged }
    let buffer = Buffer(block: block, size: blockSize)
    try device.read(buffer.view.mutable, at: block &* UInt64(blockSize))
    buffers[block] = buffer
    return buffer
  }

  /// A zeroed buffer for a block just allocated; nothing is read.
  func newBuffer(_ block: UInt64) throws(Errno) -> Buffer {
    guard block < layout.blocks, buffers[block] == nil || operation.isActive else { throw .damaged }
    if let old = buffers[block], old.isInTransaction || old.needsCheckpoint { throw .damaged }
    let buffer = Buffer(block: block, size: blockSize)
    buffer.view.clear(0, blockSize)
    buffer.isVerified = true
    buffers[block] = buffer
    operation.created.append(buffer)
    buffer.operation = operation.number
    buffer.isInTransaction = true
    transaction.buffers.append(buffer)
    return buffer
  }

  /// Drops clean buffers that were not used lately. Between operations only.
  func trimCache() {
    guard buffers.count > buffersBeforeTrim else { return }
    var kept: [UInt64: Buffer] = [:]
    kept.reserveCapacity(cacheLimit)
    for (block, buffer) in buffers {
      let isFree = buffer.pins == 0 && !buffer.isInTransaction && !buffer.needsCheckpoint
      if isFree, !buffer.wasUsed || kept.count > cacheLimit { continue }
      buffer.wasUsed = false
      kept[block] = buffer
    }
    buffers = kept
    buffersBeforeTrim = max(cacheLimit, kept.count + kept.count / 2)
  }
}
