public import ABI

/// A mounted ext4 file system.
///
/// Calls are made one at a time (the caller holds a lock) and wait for the device. Every call that changes something
/// happens whole or not at all, and is durable once `synchronize` has returned. Data is written at once; metadata goes
/// to the journal when the running transaction commits, so data always precedes the metadata that refers to it
/// (data=ordered). Keep one object a device.
public final class FileSystem {
  let device: any BlockDevice
  let clock: any Clock
  var layout: Layout
  public let isReadOnly: Bool
  /// The journal could not be written: nothing changes any more, as after ext4's "aborting journal".
  public internal(set) var isAborted = false
  public var blockSize: Int { layout.blockSize }
  /// Blocks of the file system.
  public var blockCount: UInt64 { layout.blocks }
  public var hasJournal: Bool { journal != nil }

  var buffers: [UInt64: Buffer] = [:]
  /// Blocks of metadata that are kept in memory.
  public var cacheLimit = 8192 {
    didSet {
      buffersBeforeTrim = cacheLimit
      inodeCacheLimit = min(4096, cacheLimit)
      inodesBeforeTrim = inodeCacheLimit
    }
  }
  var buffersBeforeTrim = 8192
  var inodes: [UInt32: DiskInode] = [:]
  var inodeCacheLimit = 4096
  var inodesBeforeTrim = 4096
  /// Memory that operations save contents in.
  var spareBlocks: [ByteView] = []
  var spareInodes: [ByteView] = []

  var superblock: Buffer! = nil
  var descriptors: [Buffer] = []
  /// Where the file system's own structures are, ascending: never allocated, never freed.
  var systemZones: [BlockRun] = []
  /// Blocks freed by the running transaction, a bitmap a group: not allocated again before it has committed, because a
  /// power cut would bring the file back that they belonged to.
  var held: [Int: [UInt64]] = [:]
  var freeBlocks: UInt64 = 0
  var freeInodes: UInt32 = 0
  /// Blocks promised to data that is still only in memory.
  public internal(set) var reservedBlocks: UInt64 = 0
  /// Inodes without a name that are in use, or being truncated; the last one is the head of the list on the disk.
  var orphans: [DiskInode] = []
  var hashSeed: (UInt32, UInt32, UInt32, UInt32) = (0, 0, 0, 0)
  var hashesUnsigned = false
  var nextGeneration: UInt32

  var operation = Operation()
  var transaction = Transaction()
  var journal: Journal? = nil
  /// Buffers that are in the journal but not in their place.
  var checkpoints: [Buffer] = []
  /// Data was written after the last flush.
  /// Counts writes of files' contents, and those of them that are known to be durable.
  var dataWrites: UInt64 = 0
  var durableWrites: UInt64 = 0
  /// When the running transaction got its first change; 0 if it is empty.
  public internal(set) var transactionStart: UInt64 = 0
  /// Room for runs of blocks that are written or read at once.
  let bounce: ByteView

  init(device: any BlockDevice, clock: any Clock, layout: Layout, isReadOnly: Bool) {
    self.device = device
    self.clock = clock
    self.layout = layout
    self.isReadOnly = isReadOnly
    nextGeneration = UInt32(truncatingIfNeeded: clock.realtimeNanoseconds >> 10)
    bounce = FileSystem.allocate(128 * 1024)
  }

  deinit {
    for view in spareBlocks { view.base.deallocate() }
    for view in spareInodes { view.base.deallocate() }
    bounce.base.deallocate()
  }

  /// The superblock's 1024 bytes.
  var superblockView: ByteView { superblock.view.part(blockSize == 1024 ? 0 : 1024, 1024) }

  func descriptor(_ group: Int) -> GroupDescriptor {
    let perBlock = layout.descriptorsPerBlock
    let buffer = descriptors[group / perBlock]
    let place = group % perBlock * layout.descriptorSize
    return GroupDescriptor(view: buffer.view.part(place, layout.descriptorSize), buffer: buffer)
  }

  func isSystemBlock(_ run: BlockRun) -> Bool {
    var (low, high) = (0, systemZones.count)
    while low < high {
      let middle = (low + high) / 2
      if systemZones[middle].end <= run.start { low = middle + 1 } else { high = middle }
    }
    return low < systemZones.count && systemZones[low].start < run.end
  }

  /// Whether a file may own these blocks.
  func isDataRun(_ run: BlockRun) -> Bool {
    run.count > 0 && run.start >= layout.firstDataBlock && run.start < layout.blocks
      && UInt64(run.count) <= layout.blocks - run.start && !isSystemBlock(run)
  }
}

/// What statfs(2) tells.
public struct Statistics {
  public var blockSize = 0
  /// Blocks that files can have, of `blockSize` bytes.
  public var blocks: UInt64 = 0
  public var freeBlocks: UInt64 = 0
  /// Free and not kept for the administrator.
  public var availableBlocks: UInt64 = 0
  public var inodes: UInt64 = 0
  public var freeInodes: UInt64 = 0
  /// From the UUID, as statfs(2) gives it.
  public var identifier: UInt64 = 0
}

extension FileSystem {
  public var statistics: Statistics {
    var result = Statistics()
    result.blockSize = blockSize
    var overhead: UInt64 = layout.firstDataBlock
    for zone in systemZones { overhead += UInt64(zone.count) }
    result.blocks = layout.blocks - min(overhead + (journal?.length ?? 0), layout.blocks)
    result.freeBlocks = freeBlocks - min(reservedBlocks, freeBlocks)
    let s = superblockView
    let kept = UInt64(s.u32(8)) | (layout.has(incompatible: Feature.wide) ? UInt64(s.u32(340)) << 32 : 0)
    result.availableBlocks = result.freeBlocks - min(kept, result.freeBlocks)
    result.inodes = UInt64(layout.inodes)
    result.freeInodes = UInt64(freeInodes)
    for i in 0..<8 {
      result.identifier |= UInt64(layout.uuid[i] ^ layout.uuid[i + 8]) << UInt64(8 * i)
    }
    return result
  }

  /// Promises room for data in memory; ENOSPC.
  public func reserve(blocks: Int) throws(Errno) {
    guard UInt64(blocks) <= freeBlocks - min(reservedBlocks, freeBlocks) else { throw .noSpace }
    reservedBlocks += UInt64(blocks)
  }
  public func unreserve(blocks: Int) { reservedBlocks -= min(UInt64(blocks), reservedBlocks) }
}
