public import ABI

extension FileSystem {
  /// Makes everything done so far durable (sync(2)). EIO, and EROFS ever after, if the journal cannot be written.
  public func synchronize() throws(Errno) {
    if isAborted { throw .inputOutput }
    try commit()
    guard durableWrites != dataWrites else { return }
    try device.flush()
    durableWrites = dataWrites
  }

  /// fsync(2) of a file, `dataOnly` for fdatasync(2): whatever was written to it is durable afterwards.
  public func synchronize(_ inode: DiskInode, dataOnly: Bool) throws(Errno) {
    if isAborted { throw .inputOutput }
    let last = dataOnly ? inode.dataTransaction : inode.transaction
    if last == transaction.number { try commit() }
    // Nothing is half done here: others may use the file system meanwhile. What they write needs a flush of its own.
    let written = dataWrites
    guard durableWrites < written else { return }
    try device.flushUnlocked()
    durableWrites = max(durableWrites, written)
  }

  /// Writes the running transaction to the journal; it is durable afterwards.
  func commit() throws(Errno) {
    guard !transaction.isEmpty else { return }
    guard !isAborted else { throw .readOnlyFileSystem }
    for inode in transaction.inodes {
      flush(inode)
      addSealed(inode.buffer)
      // A deleted file's is of no use to anybody any more.
      if inode.mode == 0, inode.users == 0, inodes[inode.number] === inode { inodes[inode.number] = nil }
    }
    seal()
    var buffers: [Buffer] = []
    for buffer in transaction.buffers where buffer.isInTransaction && !buffer.isForgotten {
      buffers.append(buffer)
    }
    do throws(Errno) {
      if journal == nil {
        try writeInPlace(buffers)
        try device.flush()
      } else {
        try log(buffers)
      }
    } catch {
      isAborted = true
      throw error
    }
    durableWrites = dataWrites
    finish(buffers)
  }

  private func finish(_ buffers: [Buffer]) {
    for buffer in transaction.buffers {
      buffer.isInTransaction = false
      guard buffer.isForgotten else { continue }
      buffer.isForgotten = false
      buffer.needsCheckpoint = false
      if self.buffers[buffer.block] === buffer { self.buffers[buffer.block] = nil }
    }
    for block in transaction.revoked {
      guard let buffer = self.buffers[block], buffer.isForgotten else { continue }
      buffer.isForgotten = false
      buffer.needsCheckpoint = false
      self.buffers[block] = nil
    }
    if journal != nil {
      for buffer in buffers where !buffer.needsCheckpoint {
        buffer.needsCheckpoint = true
        checkpoints.append(buffer)
      }
    }
    held.removeAll(keepingCapacity: true)
    if device.wantsDiscards { discardFreed() }
    transaction.buffers.removeAll(keepingCapacity: true)
    transaction.inodes.removeAll(keepingCapacity: true)
    transaction.revoked.removeAll(keepingCapacity: true)
    transaction.freed.removeAll(keepingCapacity: true)
    transaction.number &+= 1
    transactionStart = 0
  }

  /// The commit made it final that these blocks are free.
  private func discardFreed() {
    let size = UInt64(blockSize)
    for run in transaction.freed { device.discard(at: run.start * size, count: UInt64(run.count) * size) }
  }

  private func addSealed(_ buffer: Buffer) {
    guard !buffer.isInTransaction else { return }
    buffer.isInTransaction = true
    transaction.buffers.append(buffer)
  }

  // MARK: Checksums

  /// Brings the checksums of all changed blocks up to date: bitmaps first, because theirs are in the descriptors.
  private func seal() {
    for buffer in transaction.buffers where !buffer.isForgotten {
      switch buffer.kind {
      case .blockBitmap(let group): sealBitmap(buffer, group, isBlocks: true)
      case .inodeBitmap(let group): sealBitmap(buffer, group, isBlocks: false)
      case .extents(let seed): if layout.hasChecksums { sealExtents(buffer.view, seed) }
      case .directory(let seed): if layout.hasChecksums { sealDirectory(buffer.view, seed) }
      case .attributes: if layout.hasChecksums { sealAttributes(buffer) }
      case .plain, .superblock, .groupDescriptors: break
      }
    }
    for buffer in transaction.buffers {
      if case .groupDescriptors = buffer.kind { sealDescriptors(buffer) }
    }
    if superblock.isInTransaction { sealSuperblock() }
  }

  private func sealBitmap(_ buffer: Buffer, _ group: Int, isBlocks: Bool) {
    guard layout.hasChecksums else { return }
    let descriptor = descriptor(group)
    addSealed(descriptor.buffer)
    let bytes = isBlocks ? Int(layout.blocksPerGroup / 8) : Int(layout.inodesPerGroup / 8)
    let crc = Checksum.crc32c(layout.checksumSeed, buffer.view.part(0, bytes))
    if isBlocks { descriptor.blockBitmapChecksum = crc } else { descriptor.inodeBitmapChecksum = crc }
  }

  private func sealDescriptors(_ buffer: Buffer) {
    guard layout.hasGroupChecksums else { return }
    let perBlock = layout.descriptorsPerBlock
    for index in 0..<descriptors.count where descriptors[index] === buffer {
      for group in (index * perBlock)..<min((index + 1) * perBlock, layout.groups) {
        let descriptor = descriptor(group)
        descriptor.checksum = descriptor.computeChecksum(layout, group: group)
      }
    }
  }

  func sealSuperblock() {
    let s = superblockView
    s.set32(12, UInt32(truncatingIfNeeded: freeBlocks))
    if layout.has(incompatible: Feature.wide) { s.set32(344, UInt32(truncatingIfNeeded: freeBlocks >> 32)) }
    s.set32(16, freeInodes)
    if layout.hasChecksums { s.set32(1020, Checksum.crc32c(~0, s.part(0, 1020))) }
  }

  // MARK: Checkpoint

  /// Writes what was committed to its place and empties the journal. The running transaction is empty.
  func checkpoint() throws(Errno) {
    guard var journal, journal.used > 0 || !checkpoints.isEmpty else { return }
    do throws(Errno) {
      var buffers: [Buffer] = []
      for buffer in checkpoints where buffer.needsCheckpoint { buffers.append(buffer) }
      try writeInPlace(buffers)
      try device.flush()
      durableWrites = dataWrites
      try writeJournalSuperblock(start: journal.head, sequence: transaction.number)
    } catch {
      isAborted = true
      throw error
    }
    journal.used = 0
    self.journal = journal
    for buffer in checkpoints { buffer.needsCheckpoint = false }
    checkpoints.removeAll(keepingCapacity: true)
  }

  /// Writes buffers to where they belong, adjacent ones together.
  private func writeInPlace(_ buffers: [Buffer]) throws(Errno) {
    let sorted = buffers.sorted { $0.block < $1.block }
    let limit = bounce.count / blockSize
    var index = 0
    while index < sorted.count {
      let start = sorted[index].block
      var count = 0
      while count < limit, index + count < sorted.count, sorted[index + count].block == start &+ UInt64(count)
      {
        bounce.part(count * blockSize, blockSize).copy(sorted[index + count].view)
        count += 1
      }
      try device.write(bounce.part(0, count * blockSize).raw, at: start &* UInt64(blockSize))
      index += count
    }
  }
}
