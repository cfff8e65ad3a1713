import ABI

/// The journal: a ring of blocks in a file (jbd2; Documentation/filesystems/ext4/journal.rst). Its numbers are big
/// endian.
struct Journal {
  static let magic: UInt32 = 0xC03B_3998
  enum BlockType {
    static let descriptor: UInt32 = 1
    static let commit: UInt32 = 2
    static let superblockVersion2: UInt32 = 4
    static let revoke: UInt32 = 5
  }
  enum Flag {
    static let escaped: UInt32 = 1
    static let sameUUID: UInt32 = 2
    static let last: UInt32 = 8
  }
  enum Feature {
    static let revoke: UInt32 = 1
    static let wide: UInt32 = 2
    static let asynchronousCommit: UInt32 = 4
    static let checksum2: UInt32 = 8
    static let checksum3: UInt32 = 16
    static let known: UInt32 = 31
  }

  /// Where the file's blocks are, in order.
  var runs: [BlockRun] = []
  /// Blocks of the ring, the superblock counted.
  var length: UInt64 = 0
  var first: UInt32 = 1
  var incompatible: UInt32 = 0
  var seed: UInt32 = 0
  var uuid: [UInt8] = []
  /// The superblock's block.
  var superblock: Buffer

  /// Where the next block is written, and the blocks in use behind it.
  var head: UInt32 = 1
  var used: UInt32 = 0

  var hasChecksums: Bool { incompatible & (Feature.checksum2 | Feature.checksum3) != 0 }
  var hasWideBlocks: Bool { incompatible & Feature.wide != 0 }
  /// Bytes of a block's tag in a descriptor.
  var tagSize: Int {
    if incompatible & Feature.checksum3 != 0 { return 16 }
    return 8 + (hasWideBlocks ? 4 : 0) + (incompatible & Feature.checksum2 != 0 ? 2 : 0)
  }
  /// Blocks that can be logged.
  var capacity: UInt32 { UInt32(truncatingIfNeeded: length) - first }

  /// The block on the device of block `index` of the ring.
  func place(_ index: UInt32) -> UInt64? {
    var rest = UInt64(index)
    for run in runs {
      if rest < UInt64(run.count) { return run.start + rest }
      rest -= UInt64(run.count)
    }
    return nil
  }

  func next(_ index: UInt32) -> UInt32 { UInt64(index) + 1 >= length ? first : index + 1 }

  func superblockChecksum() -> UInt32 {
    let s = superblock.view
    let old = s.u32(252)
    s.set32(252, 0)
    defer { s.set32(252, old) }
    return Checksum.crc32c(~0, s.part(0, 1024))
  }
}

/// What changed since the last commit.
struct Transaction {
  var number: UInt32 = 1
  var buffers: [Buffer] = []
  var inodes: [DiskInode] = []
  var revoked: [UInt64] = []
  var freed: [BlockRun] = []

  var isEmpty: Bool { buffers.isEmpty && revoked.isEmpty && freed.isEmpty }
}

extension FileSystem {
  /// Finds the journal's blocks and reads its superblock.
  func loadJournal() throws(MountError) {
    let number = superblockView.u32(224)
    guard number != 0 else { throw MountError(.notSupported, "a journal on another device") }
    do throws(Errno) {
      let inode = try find(number)
      guard inode.isRegular else { throw .damaged }
      var journal = Journal(superblock: try journalSuperblock(inode))
      journal.runs = try runs(ofJournal: inode)
      for run in journal.runs { journal.length += UInt64(run.count) }
      try readJournalSuperblock(&journal)
      self.journal = journal
    } catch {
      throw MountError(error, error == .notSupported ? "a feature of the journal" : "the journal")
    }
  }

  private func journalSuperblock(_ inode: DiskInode) throws(Errno) -> Buffer {
    let mapping = try map(inode, 0)
    guard mapping.state == .written else { throw .damaged }
    let buffer = try buffer(mapping.physical)
    buffer.pins += 1
    return buffer
  }

  private func runs(ofJournal inode: DiskInode) throws(Errno) -> [BlockRun] {
    let blocks = inode.size / UInt64(blockSize)
    guard blocks >= 64, blocks < 1 << 31 else { throw .damaged }
    var runs: [BlockRun] = []
    var logical: UInt64 = 0
    while logical < blocks {
      let mapping = try map(inode, UInt32(logical))
      let count = min(UInt64(mapping.count), blocks - logical)
      guard mapping.state == .written, count > 0, mapping.physical < layout.blocks,
        count <= layout.blocks - mapping.physical
      else { throw .damaged }
      runs.append(BlockRun(start: mapping.physical, count: Int(count)))
      logical += count
    }
    return runs
  }

  private func readJournalSuperblock(_ journal: inout Journal) throws(Errno) {
    let s = journal.superblock.view
    guard s.big32(0) == Journal.magic, s.big32(4) == Journal.BlockType.superblockVersion2,
      s.big32(12) == UInt32(blockSize), UInt64(s.big32(16)) <= journal.length
    else { throw .damaged }
    journal.length = UInt64(s.big32(16))
    journal.first = s.big32(20)
    guard journal.first >= 1, UInt64(journal.first) + 512 < journal.length,
      UInt64(s.big32(28)) < journal.length
    else { throw .damaged }
    journal.incompatible = s.big32(40)
    guard journal.incompatible & ~Journal.Feature.known == 0 else { throw .notSupported }
    if journal.hasChecksums {
      guard s.u8(80) == 4 else { throw .notSupported }
      guard s.big32(252) == journal.superblockChecksum() else { throw .badMessage }
    }
    journal.uuid = s.bytes(48, 16)
    journal.seed = Checksum.crc32c(~0, s.part(48, 16))
  }

  /// Puts the journal's superblock on the disk: recovery starts at block `start` (0: nothing to do) with `sequence`.
  func writeJournalSuperblock(start: UInt32, sequence: UInt32) throws(Errno) {
    guard let journal else { return }
    let s = journal.superblock.view
    s.setBig32(24, sequence)
    s.setBig32(28, start)
    if journal.hasChecksums { s.setBig32(252, journal.superblockChecksum()) }
    try device.write(s.raw, at: journal.superblock.block * UInt64(blockSize))
    try device.flush()
  }

  /// Readies an empty journal, with the features that Linux sets when it mounts such a file system.
  func startJournal() throws(Errno) {
    guard var journal else { return }
    let s = journal.superblock.view
    journal.incompatible |= Journal.Feature.revoke
    if layout.hasChecksums {
      journal.incompatible = journal.incompatible & ~Journal.Feature.checksum2 | Journal.Feature.checksum3
      s.setBig32(36, s.big32(36) & ~1)
      s.set8(80, 4)
    }
    if layout.has(incompatible: Feature.wide) { journal.incompatible |= Journal.Feature.wide }
    s.setBig32(40, journal.incompatible)
    journal.head = journal.first
    journal.used = 0
    transaction.number = max(1, s.big32(24))
    self.journal = journal
    try writeJournalSuperblock(start: journal.first, sequence: transaction.number)
  }

  /// Marks the journal empty, at unmount.
  func stopJournal() throws(Errno) { try writeJournalSuperblock(start: 0, sequence: transaction.number) }

  /// Commits and empties the journal as needed, so that the next operation surely fits.
  func makeRoomInJournal() throws(Errno) {
    guard let journal else {
      let most = max(64, cacheLimit / 2)
      if transaction.buffers.count > min(2048, most) || transaction.inodes.count > most { try commit() }
      return
    }
    let capacity = Int(journal.capacity)
    if transaction.buffers.count + operationCredits > min(capacity / 4, 8192)
      || transaction.revoked.count > 16 * blockSize / 8
    {
      try commit()
    }
    let revokes = transaction.revoked.count * 16 / blockSize
    let needed = 2 * (transaction.buffers.count + operationCredits) + revokes + 64
    if capacity - Int(self.journal?.used ?? 0) < needed {
      try commit()
      try checkpoint()
    }
  }
}
