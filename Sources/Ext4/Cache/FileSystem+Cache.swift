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
    var spare = buffers.count - cacheLimit
    var unused: [UInt64] = []
    for (block, buffer) in buffers {
      let isFree = buffer.pins == 0 && !buffer.isInTransaction && !buffer.needsCheckpoint
      if isFree, spare > 0 || !buffer.wasUsed {
        unused.append(block)
        spare -= 1
      } else {
        buffer.wasUsed = false
      }
    }
    for block in unused { buffers[block] = nil }
    buffersBeforeTrim = max(cacheLimit, buffers.count + buffers.count / 2)
  }

  /// Blocks that the next commit writes.
  public var pendingBlocks: Int { transaction.buffers.count + transaction.inodes.count / 8 }

  /// Bytes that a table may need in one piece at the next operation, to grow; 0 most of the time.
  public var nextGrowth: Int {
    var bytes = 0
    if inodes.count + 8 >= inodes.capacity { bytes = inodes.capacity * 2 * 24 }
    if buffers.count + operationCredits >= buffers.capacity { bytes = max(bytes, buffers.capacity * 2 * 32) }
    return bytes
  }
}
