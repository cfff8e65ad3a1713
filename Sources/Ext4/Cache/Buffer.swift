/// A metadata block in memory.
final class Buffer {
  /// What the block holds: says how its checksum is made when the transaction commits.
  enum Kind {
    case plain, superblock, groupDescriptors
    case blockBitmap(group: Int)
    case inodeBitmap(group: Int)
    case extents(seed: UInt32)
    case directory(seed: UInt32)
    case attributes
  }

  let block: UInt64
  let view: ByteView
  var kind = Kind.plain
  /// Checksum and structure were checked when it was read (or it was made here).
  var isVerified = false
  /// Changed by the running transaction.
  var isInTransaction = false
  /// Committed to the journal, not yet written to its place.
  var needsCheckpoint = false
  /// Its block was freed by the running transaction: not to be written, and gone with the commit.
  var isForgotten = false
  /// The operation that saved its contents last.
  var operation: UInt64 = 0
  var wasUsed = true
  /// Holders that outlive an operation.
  var pins = 0

  init(block: UInt64, size: Int) {
    self.block = block
    let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
    view = ByteView(base: memory, count: size)
  }

  deinit { view.base.deallocate() }
}
