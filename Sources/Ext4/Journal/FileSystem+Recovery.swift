import ABI

/// A block's tag in a descriptor.
private struct Tag {
  var block: UInt64
  var flags: UInt32
  var checksum: UInt32
}

// Replay after a power cut, in three passes: find the last whole transaction, collect what was revoked, copy the blocks
// to their places.
extension FileSystem {
  private enum Pass { case scan, revoke, replay }

  /// Replays the journal and marks it empty.
  func recover() throws(Errno) {
    guard let journal else { return }
    let s = journal.superblock.view
    let (start, sequence) = (s.big32(28), s.big32(24))
    if start != 0 {
      guard start >= journal.first else { throw .damaged }
      var revoked: [UInt64: UInt32] = [:]
      let end = try walk(.scan, start, sequence, nil, &revoked)
      _ = try walk(.revoke, start, sequence, end, &revoked)
      _ = try walk(.replay, start, sequence, end, &revoked)
      try device.flush()
      s.setBig32(24, end &+ 1)
      transaction.number = end &+ 1
    }
    try writeJournalSuperblock(start: 0, sequence: s.big32(24))
    try clearRecoverFlag()
  }

  /// The replay may have replaced the superblock, so it is read again.
  private func clearRecoverFlag() throws(Errno) {
    let view = superblock.view
    try device.read(view.mutable, at: superblock.block * UInt64(blockSize))
    let s = superblockView
    s.set32(96, s.u32(96) & ~Feature.recover)
    if layout.hasChecksums { s.set32(1020, Checksum.crc32c(~0, s.part(0, 1020))) }
    try device.write(view.raw, at: superblock.block * UInt64(blockSize))
    try device.flush()
  }

  /// Goes through the log from block `start` on; the number of the first transaction that is not whole.
  private func walk(
    _ pass: Pass, _ start: UInt32, _ first: UInt32, _ end: UInt32?, _ revoked: inout [UInt64: UInt32]
  ) throws(Errno) -> UInt32 {
    guard let journal else { return first }
    let view = FileSystem.allocate(blockSize)
    let data = FileSystem.allocate(blockSize)
    defer {
      view.base.deallocate()
      data.base.deallocate()
    }
    var index = start
    var sequence = first
    // A ring is gone through once at most.
    var budget = Int(journal.length)
    var isSound = true
    while budget > 0, end == nil || sequence != end {
      budget -= 1
      try readJournal(index, view)
      guard view.big32(0) == Journal.magic, view.big32(8) == sequence else { break }
      index = journal.next(index)
      switch view.big32(4) {
      case Journal.BlockType.descriptor:
        guard isTailSound(view, journal) else { return sequence }
        for tag in tags(view, journal) {
          budget -= 1
          if pass == .replay {
            try replay(tag, index, sequence, data, revoked)
          } else if pass == .scan, isSound, journal.hasChecksums {
            try readJournal(index, data)
            isSound = checksum(data, sequence, journal) == tag.checksum
          }
          index = journal.next(index)
        }
      case Journal.BlockType.revoke:
        guard isTailSound(view, journal) else { return sequence }
        if pass == .revoke { collectRevoked(view, sequence, journal, &revoked) }
      case Journal.BlockType.commit:
        guard isSound, isCommitSound(view, journal) else { return sequence }
        sequence &+= 1
      default: return sequence
      }
    }
    return sequence
  }

  private func readJournal(_ index: UInt32, _ view: ByteView) throws(Errno) {
    guard let place = journal?.place(index) else { throw .damaged }
    try device.read(view.mutable, at: place * UInt64(blockSize))
  }

  private func isTailSound(_ view: ByteView, _ journal: Journal) -> Bool {
    guard journal.hasChecksums else { return true }
    let stored = view.big32(blockSize - 4)
    view.set32(blockSize - 4, 0)
    return Checksum.crc32c(journal.seed, view) == stored
  }

  private func isCommitSound(_ view: ByteView, _ journal: Journal) -> Bool {
    guard journal.hasChecksums else { return true }
    let stored = view.big32(16)
    view.set32(16, 0)
    return Checksum.crc32c(journal.seed, view) == stored
  }

  private func checksum(_ view: ByteView, _ sequence: UInt32, _ journal: Journal) -> UInt32 {
    let crc = Checksum.crc32c(Checksum.crc32c(journal.seed, number: sequence.byteSwapped), view)
    return journal.incompatible & Journal.Feature.checksum3 != 0 ? crc : crc & 0xFFFF
  }

  private func tags(_ view: ByteView, _ journal: Journal) -> [Tag] {
    var result: [Tag] = []
    let end = blockSize - (journal.hasChecksums ? 4 : 0)
    var offset = 12
    while offset + journal.tagSize <= end {
      var tag = Tag(block: UInt64(view.big32(offset)), flags: view.big32(offset + 4), checksum: 0)
      if journal.incompatible & Journal.Feature.checksum3 != 0 {
        if journal.hasWideBlocks { tag.block |= UInt64(view.big32(offset + 8)) << 32 }
        tag.checksum = view.big32(offset + 12)
      } else {
        tag.checksum = tag.flags >> 16
        tag.flags &= 0xFFFF
        if journal.hasWideBlocks { tag.block |= UInt64(view.big32(offset + 8)) << 32 }
      }
      result.append(tag)
      offset += journal.tagSize + (tag.flags & Journal.Flag.sameUUID == 0 ? 16 : 0)
      if tag.flags & Journal.Flag.last != 0 { break }
    }
    return result
  }

  private func collectRevoked(
    _ view: ByteView, _ sequence: UInt32, _ journal: Journal, _ revoked: inout [UInt64: UInt32]
  ) {
    let size = journal.hasWideBlocks ? 8 : 4
    let end = min(Int(view.big32(12)), blockSize - (journal.hasChecksums ? 4 : 0))
    var offset = 16
    while offset + size <= end {
      var block = UInt64(view.big32(offset + size - 4))
      if size == 8 { block |= UInt64(view.big32(offset)) << 32 }
      // Sequence numbers wrap round.
      if let old = revoked[block], Int32(bitPattern: old &- sequence) > 0 {
      } else {
        revoked[block] = sequence
      }
      offset += size
    }
  }

  private func replay(
    _ tag: Tag, _ index: UInt32, _ sequence: UInt32, _ data: ByteView, _ revoked: [UInt64: UInt32]
  ) throws(Errno) {
    if let last = revoked[tag.block], Int32(bitPattern: last &- sequence) >= 0 { return }
    guard tag.block < layout.blocks else { throw .damaged }
    try readJournal(index, data)
    if tag.flags & Journal.Flag.escaped != 0 { data.setBig32(0, Journal.magic) }
    try device.write(data.raw, at: tag.block * UInt64(blockSize))
  }
}
