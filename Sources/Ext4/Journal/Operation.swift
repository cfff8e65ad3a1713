import ABI

/// What a running operation must be able to undo. An operation either happens whole or leaves no trace: an I/O error or
/// a damaged block in the middle of a rename must not leave half of it to the next commit.
struct Operation {
  struct SavedBuffer {
    let buffer: Buffer
    let contents: ByteView
    let wasInTransaction: Bool
  }
  struct SavedInode {
    let inode: DiskInode
    let contents: ByteView
  }

  var number: UInt64 = 0
  var isActive = false
  var savedBuffers: [SavedBuffer] = []
  var savedInodes: [SavedInode] = []
  var created: [Buffer] = []
  var forgotten: [Buffer] = []
  var newInodes: [DiskInode] = []
  var freed: [BlockRun] = []
  var revoked: [UInt64] = []
  var freeBlocks: UInt64 = 0
  var freeInodes: UInt32 = 0
  var orphans: [DiskInode] = []

  /// Buffers that the operation has changed so far.
  var changes: Int { savedBuffers.count + created.count + savedInodes.count }
}

/// Adjacent blocks.
struct BlockRun {
  var start: UInt64
  var count: Int
  var end: UInt64 { start &+ UInt64(count) }
}

/// Blocks that one operation may change at most; the journal has room for them before it starts.
let operationCredits = 96

extension FileSystem {
  /// Runs `body` as one operation of the running transaction.
  func perform<Result>(_ body: () throws(Errno) -> Result) throws(Errno) -> Result {
    if operation.isActive { return try body() }
    try startOperation()
    do throws(Errno) {
      let result = try body()
      finishOperation()
      return result
    } catch {
      undoOperation()
      throw error
    }
  }

  private func startOperation() throws(Errno) {
    guard !isReadOnly, !isAborted else { throw .readOnlyFileSystem }
    trimCache()
    trimInodes()
    try makeRoomInJournal()
    operation.number &+= 1
    operation.isActive = true
    operation.freeBlocks = freeBlocks
    operation.freeInodes = freeInodes
    operation.orphans = orphans
  }

  private func finishOperation() {
    for run in operation.freed { transaction.freed.append(run) }
    for block in operation.revoked { transaction.revoked.append(block) }
    if transactionStart == 0, !transaction.isEmpty { transactionStart = clock.realtimeNanoseconds }
    clearOperation()
  }

  private func undoOperation() {
    for saved in operation.savedBuffers {
      saved.buffer.view.copy(saved.contents)
      saved.buffer.isInTransaction = saved.wasInTransaction
    }
    for buffer in operation.created {
      buffer.isInTransaction = false
      buffers[buffer.block] = nil
    }
    for buffer in operation.forgotten { buffer.isForgotten = false }
    for saved in operation.savedInodes { saved.inode.view.copy(saved.contents) }
    for inode in operation.newInodes { forgetInode(inode) }
    for run in operation.freed { hold(run, false) }
    freeBlocks = operation.freeBlocks
    freeInodes = operation.freeInodes
    orphans = operation.orphans
    var kept: [Buffer] = []
    for buffer in transaction.buffers where buffer.isInTransaction { kept.append(buffer) }
    transaction.buffers = kept
    clearOperation()
  }

  private func clearOperation() {
    for saved in operation.savedBuffers { spareBlocks.append(saved.contents) }
    for saved in operation.savedInodes { spareInodes.append(saved.contents) }
    operation.savedBuffers.removeAll(keepingCapacity: true)
    operation.savedInodes.removeAll(keepingCapacity: true)
    operation.created.removeAll(keepingCapacity: true)
    operation.forgotten.removeAll(keepingCapacity: true)
    operation.newInodes.removeAll(keepingCapacity: true)
    operation.freed.removeAll(keepingCapacity: true)
    operation.revoked.removeAll(keepingCapacity: true)
    operation.orphans = []
    operation.isActive = false
  }

  /// To be called before a buffer's contents change.
  func change(_ buffer: Buffer) {
    if buffer.operation != operation.number {
      buffer.operation = operation.number
      let copy = spareBlocks.popLast() ?? FileSystem.allocate(blockSize)
      copy.copy(buffer.view)
      operation.savedBuffers.append(
        Operation.SavedBuffer(buffer: buffer, contents: copy, wasInTransaction: buffer.isInTransaction))
    }
    add(buffer)
  }

  private func add(_ buffer: Buffer) {
    guard !buffer.isInTransaction else { return }
    buffer.isInTransaction = true
    transaction.buffers.append(buffer)
  }

  /// To be called before an inode changes. The inode's bytes reach its block when the transaction commits.
  func change(_ inode: DiskInode) {
    if inode.operation != operation.number {
      inode.operation = operation.number
      let copy = spareInodes.popLast() ?? FileSystem.allocate(Int(layout.inodeSize))
      copy.copy(inode.view)
      operation.savedInodes.append(Operation.SavedInode(inode: inode, contents: copy))
    }
    inode.transaction = transaction.number
    if !inode.isDirty {
      inode.isDirty = true
      transaction.inodes.append(inode)
    }
    // Without a saved copy: should the operation fail, the block is logged as it was.
    add(inode.buffer)
  }

  /// The metadata in `block` is void: its block was freed.
  func forget(_ block: UInt64) {
    operation.revoked.append(block)
    guard let buffer = buffers[block], !buffer.isForgotten else { return }
    buffer.isForgotten = true
    operation.forgotten.append(buffer)
  }

  static func allocate(_ size: Int) -> ByteView {
    ByteView(base: UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16), count: size)
  }
}
