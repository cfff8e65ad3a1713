import ABI

/// Gathers journal blocks and writes adjacent ones together.
struct JournalWriter {
  var journal: Journal
  let sequence: UInt32
  let device: any BlockDevice
  let bounce: ByteView
  let blockSize: Int
  private var gathered = 0
  private var start: UInt64 = 0

  init(journal: Journal, sequence: UInt32, device: any BlockDevice, bounce: ByteView, blockSize: Int) {
    self.journal = journal
    self.sequence = sequence
    self.device = device
    self.bounce = bounce
    self.blockSize = blockSize
  }

  /// A block-sized place for the ring's next block, to be filled at once.
  mutating func nextBlock() throws(Errno) -> ByteView {
    guard journal.used < journal.capacity, let place = journal.place(journal.head) else { throw .inputOutput }
    if gathered > 0, place != start + UInt64(gathered) || (gathered + 1) * blockSize > bounce.count {
      try write()
    }
    if gathered == 0 { start = place }
    let view = bounce.part(gathered * blockSize, blockSize)
    gathered += 1
    journal.head = journal.next(journal.head)
    journal.used += 1
    return view
  }

  mutating func write() throws(Errno) {
    guard gathered > 0 else { return }
    try device.write(bounce.part(0, gathered * blockSize).raw, at: start * UInt64(blockSize))
    gathered = 0
  }

  func startBlock(_ view: ByteView, _ type: UInt32) {
    view.clear(0, blockSize)
    view.setBig32(0, Journal.magic)
    view.setBig32(4, type)
    view.setBig32(8, sequence)
  }

  /// The checksum at the end of descriptor and revoke blocks.
  func sealTail(_ view: ByteView) {
    guard journal.hasChecksums else { return }
    view.setBig32(blockSize - 4, 0)
    view.setBig32(blockSize - 4, Checksum.crc32c(journal.seed, view))
  }

  mutating func writeRevokes(_ blocks: [UInt64]) throws(Errno) {
    let size = journal.hasWideBlocks ? 8 : 4
    let end = blockSize - (journal.hasChecksums ? 4 : 0)
    var index = 0
    while index < blocks.count {
      let view = try nextBlock()
      startBlock(view, Journal.BlockType.revoke)
      var offset = 16
      while index < blocks.count, offset + size <= end {
        if size == 8 { view.setBig32(offset, UInt32(truncatingIfNeeded: blocks[index] >> 32)) }
        view.setBig32(offset + size - 4, UInt32(truncatingIfNeeded: blocks[index]))
        offset += size
        index += 1
      }
      view.setBig32(12, UInt32(offset))
      sealTail(view)
    }
  }

  /// Tags that fit a descriptor; the first is followed by a UUID.
  private var tagsPerDescriptor: Int {
    (blockSize - 12 - 16 - (journal.hasChecksums ? 4 : 0)) / journal.tagSize
  }

  mutating func writeBuffers(_ buffers: [Buffer]) throws(Errno) {
    var index = 0
    while index < buffers.count {
      let count = min(tagsPerDescriptor, buffers.count - index)
      let part = buffers[index..<(index + count)]
      // The descriptor needs the checksums of the blocks that follow it.
      let descriptor = try nextBlock()
      startBlock(descriptor, Journal.BlockType.descriptor)
      var offset = 12
      for buffer in part {
        let isFirst = buffer === buffers[index]
        let isLast = buffer === buffers[index + count - 1]
        offset = writeTag(descriptor, offset, buffer, isFirst: isFirst, isLast: isLast)
      }
      sealTail(descriptor)
      for buffer in part {
        let view = try nextBlock()
        view.copy(buffer.view)
        if view.big32(0) == Journal.magic { view.set32(0, 0) }
      }
      index += count
    }
  }

  private func writeTag(_ view: ByteView, _ start: Int, _ buffer: Buffer, isFirst: Bool, isLast: Bool) -> Int
  {
    let isEscaped = buffer.view.big32(0) == Journal.magic
    var flags: UInt32 = isFirst ? 0 : Journal.Flag.sameUUID
    if isEscaped { flags |= Journal.Flag.escaped }
    if isLast { flags |= Journal.Flag.last }
    view.setBig32(start, UInt32(truncatingIfNeeded: buffer.block))
    if journal.incompatible & Journal.Feature.checksum3 != 0 {
      view.setBig32(start + 4, flags)
      view.setBig32(start + 8, UInt32(truncatingIfNeeded: buffer.block >> 32))
      view.setBig32(start + 12, checksum(buffer.view, isEscaped: isEscaped))
    } else {
      // Two bytes of checksum (as far as there is one) and two of flags.
      let short = journal.hasChecksums ? checksum(buffer.view, isEscaped: isEscaped) & 0xFFFF : 0
      view.setBig32(start + 4, short << 16 | flags)
      if journal.hasWideBlocks { view.setBig32(start + 8, UInt32(truncatingIfNeeded: buffer.block >> 32)) }
    }
    var end = start + journal.tagSize
    if isFirst {
      view.store(journal.uuid, at: end)
      end += 16
    }
    return end
  }

  /// Of the block as it stands in the journal.
  private func checksum(_ view: ByteView, isEscaped: Bool) -> UInt32 {
    let crc = Checksum.crc32c(journal.seed, number: sequence.byteSwapped)
    guard isEscaped else { return Checksum.crc32c(crc, view) }
    return Checksum.crc32c(Checksum.crc32c(crc, number: UInt32(0)), view.part(4, view.count - 4))
  }

  mutating func writeCommit(now: UInt64) throws(Errno) {
    let view = try nextBlock()
    startBlock(view, Journal.BlockType.commit)
    let seconds = now / 1_000_000_000
    view.setBig32(48, UInt32(truncatingIfNeeded: seconds >> 32))
    view.setBig32(52, UInt32(truncatingIfNeeded: seconds))
    view.setBig32(56, UInt32(now % 1_000_000_000))
    if journal.hasChecksums { view.setBig32(16, Checksum.crc32c(journal.seed, view)) }
    try write()
  }
}

extension FileSystem {
  /// Writes the buffers to the journal as one transaction: blocks and data first, then, when they are durable, the
  /// block that makes it count.
  func log(_ buffers: [Buffer]) throws(Errno) {
    guard let journal else { return }
    var writer = JournalWriter(
      journal: journal, sequence: transaction.number, device: device, bounce: bounce, blockSize: blockSize)
    try writer.writeRevokes(transaction.revoked)
    try writer.writeBuffers(buffers)
    try writer.write()
    try device.flush()
    try writer.writeCommit(now: clock.realtimeNanoseconds)
    try device.flush()
    self.journal = writer.journal
  }
}
