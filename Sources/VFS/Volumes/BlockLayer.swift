import ABI
import Tasks

/// Where the root's changed blocks are: over the image's own, which never change. Blocks of 4096 bytes, whole ones.
/// Kernel lock held.
public class BlockLayer {
  static let blockBytes = 4096
  /// Ends with the run.
  var isVolatile: Bool { true }

  /// Whether the block's contents are here.
  func holds(_ block: Int) -> Bool { false }
  /// Blocks that it holds, from `block` on; `bytes` is whole blocks.
  func read(_ block: Int, _ bytes: UnsafeMutableRawBufferPointer) throws(Errno) {}
  func write(_ block: Int, _ bytes: UnsafeRawBufferPointer) throws(Errno) {}
  func flush() throws(Errno) {}
  func discard(_ blocks: Range<Int>) {}
}

/// Changed blocks in frames of the arena.
public final class MemoryLayer: BlockLayer {
  private var blocks = FilePages()

  public override init() {}

  deinit { blocks.remove(0..<1 << 32) { frames.free($0, 1) } }

  override func holds(_ block: Int) -> Bool { blocks.count > 0 && blocks.frame(block) != nil }

  override func read(_ block: Int, _ bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
    for index in 0..<bytes.count / BlockLayer.blockBytes {
      guard let frame = blocks.frame(block + index), let base = bytes.baseAddress,
        let source = UnsafeRawPointer(bitPattern: frames.base + frame)
      else { throw .inputOutput }
      (base + index * BlockLayer.blockBytes).copyMemory(from: source, byteCount: BlockLayer.blockBytes)
    }
  }

  /// What the file system must write it may write, out of the libOS's reserve if need be: who asked for it has been
  /// refused before if there was no room.
  override func write(_ block: Int, _ bytes: UnsafeRawBufferPointer) throws(Errno) {
    for index in 0..<bytes.count / BlockLayer.blockBytes {
      let frame: UInt
      if let found = blocks.frame(block + index) {
        frame = found
      } else {
        frame = try frames.allocate(1)
        blocks.set(block + index, frame)
      }
      guard let base = bytes.baseAddress,
        let target = UnsafeMutableRawPointer(bitPattern: frames.base + frame)
      else { throw .inputOutput }
      target.copyMemory(from: base + index * BlockLayer.blockBytes, byteCount: BlockLayer.blockBytes)
    }
  }

  override func discard(_ range: Range<Int>) {
    if blocks.count > 0 { blocks.remove(range) { frames.free($0, 1) } }
  }
}

/// Changed blocks in a file of the host: `swiftlet run --persist`. The file has a header, then a bitmap of the blocks
/// below the image's end that are here, then room for every block at its place; what lies past the image's end is
/// always here. The file is sparse.
///
/// A block's first write goes to its place at once, its bit to the disk only when the block is surely there: until then
/// a power cut leaves the image's own contents, as if the write had been lost, which a disk may do before `flush`.
public final class FileLayer: BlockLayer {
  private let disk: Int
  private let lower: Int
  private let bitmapOffset: UInt64
  private let dataOffset: UInt64
  private var bits: [UInt64]
  /// Blocks of the bitmap with bits that are not on the disk.
  private var changed: [Int] = []

  override var isVolatile: Bool { false }

  /// `lower` is the number of the image's own blocks. With `isNew` what the bitmap says does not count. EIO.
  public init(disk: Int, lower: Int, bitmapOffset: UInt64, dataOffset: UInt64, isNew: Bool) throws(Errno) {
    self.disk = disk
    self.lower = lower
    self.bitmapOffset = bitmapOffset
    self.dataOffset = dataOffset
    let pages = (lower + 32767) / 32768
    var bits = [UInt64](repeating: 0, count: pages * 512)
    if !isNew {
      let failure: Errno? = bits.withUnsafeMutableBytes { bytes in
        do throws(Errno) {
          try host.readDisk(disk, at: bitmapOffset, bytes)
          return nil
        } catch { return error }
      }
      if let failure { throw failure }
    }
    self.bits = bits
    // A bitmap that an interrupted first start left behind must not come true later.
    if isNew { changed = Array(0..<pages) }
  }

  override func holds(_ block: Int) -> Bool {
    block >= lower || bits[block >> 6] >> UInt64(block & 63) & 1 != 0
  }

  private func place(_ block: Int) -> UInt64 { dataOffset + UInt64(block) * UInt64(BlockLayer.blockBytes) }

  override func read(_ block: Int, _ bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
    try host.readDisk(disk, at: place(block), bytes)
  }

  override func write(_ block: Int, _ bytes: UnsafeRawBufferPointer) throws(Errno) {
    try host.writeDisk(disk, at: place(block), bytes)
    for index in block..<min(block + bytes.count / BlockLayer.blockBytes, max(lower, block))
    where !holds(index) {
      bits[index >> 6] |= 1 << UInt64(index & 63)
      let page = index >> 15
      if !changed.contains(page) { changed.append(page) }
    }
  }

  /// A block of the image stays here all the same: what it says now is undefined, not the image's.
  override func discard(_ range: Range<Int>) {
    host.discardDisk(disk, at: place(range.lowerBound), count: UInt64(range.count) << 12)
  }

  override func flush() throws(Errno) {
    try host.flushDisk(disk, unlocked: false)
    guard !changed.isEmpty else { return }
    for page in changed {
      let failure: Errno? = bits.withUnsafeBytes { bytes in
        do throws(Errno) {
          try host.writeDisk(
            disk, at: bitmapOffset + UInt64(page) * 4096,
            UnsafeRawBufferPointer(rebasing: bytes[page * 4096..<(page + 1) * 4096]))
          return nil
        } catch { return error }
      }
      if let failure { throw failure }
    }
    try host.flushDisk(disk, unlocked: false)
    changed = []
  }
}
