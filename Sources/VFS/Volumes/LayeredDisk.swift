public import ABI
public import Ext4
import Tasks

/// The root's disk: the image's file system as it lies in memory, which is only read, under a layer of the blocks that
/// were written since. Past the image's end it goes on with zeros.
public final class LayeredDisk: BlockDevice {
  private let base: UnsafeRawBufferPointer
  /// Where `base` lies in the image file.
  private let imageOffset: UInt
  private let layer: BlockLayer
  private let lower: Int
  public let size: UInt64
  private let bounce = UnsafeMutableRawBufferPointer.allocate(byteCount: BlockLayer.blockBytes, alignment: 16)

  public init(base: UnsafeRawBufferPointer, imageOffset: UInt, layer: BlockLayer, size: UInt64) {
    self.base = base
    self.imageOffset = imageOffset
    self.layer = layer
    self.size = size
    lower = base.count / BlockLayer.blockBytes
  }

  deinit { bounce.deallocate() }

  public var isReadOnly: Bool { false }
  var isVolatile: Bool { layer.isVolatile }

  /// Blocks from `block` on, of `count`, that are as the image has them.
  func unchanged(from block: UInt64, count: Int) -> Int {
    guard block < UInt64(lower) else { return 0 }
    let first = Int(block)
    var found = 0
    while found < min(count, lower - first), !layer.holds(first + found) { found += 1 }
    return found
  }

  /// What the image has from `block` on.
  func original(_ block: UInt64) -> UnsafeRawPointer? {
    base.baseAddress.map { $0 + Int(block) * BlockLayer.blockBytes }
  }

  /// Where that is in the image file.
  func place(_ block: UInt64) -> UInt { imageOffset + UInt(block) * UInt(BlockLayer.blockBytes) }

  public func read(_ bytes: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(Errno) {
    guard offset <= size, UInt64(bytes.count) <= size - offset else { throw .inputOutput }
    try inParts(offset, bytes.count) { (block, inside, part) throws(Errno) in
      let target = UnsafeMutableRawBufferPointer(rebasing: bytes[part])
      guard inside == 0, part.count & 4095 == 0 else {
        try readBlocks(block, bounce)
        target.copyMemory(
          from: UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bounce)[inside..<inside + part.count])
        )
        return
      }
      try readBlocks(block, target)
    }
  }

  public func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(Errno) {
    guard offset <= size, UInt64(bytes.count) <= size - offset else { throw .inputOutput }
    try inParts(offset, bytes.count) { (block, inside, part) throws(Errno) in
      let source = UnsafeRawBufferPointer(rebasing: bytes[part])
      guard inside == 0, part.count & 4095 == 0 else {
        try readBlocks(block, bounce)
        UnsafeMutableRawBufferPointer(rebasing: bounce[inside..<inside + part.count]).copyMemory(from: source)
        try layer.write(block, UnsafeRawBufferPointer(bounce))
        return
      }
      try layer.write(block, source)
    }
  }

  /// Calls `body` for each run of whole blocks, and for the parts of blocks before and after.
  private func inParts(
    _ offset: UInt64, _ count: Int, _ body: (_ block: Int, _ inside: Int, Range<Int>) throws(Errno) -> Void
  ) throws(Errno) {
    var done = 0
    while done < count {
      let place = Int(offset) + done
      let (block, inside) = (place >> 12, place & 4095)
      let rest = count - done
      let length = inside == 0 && rest >= 4096 ? rest & ~4095 : min(4096 - inside, rest)
      try body(block, inside, done..<done + length)
      done += length
    }
  }

  /// Whole blocks, from wherever each of them is.
  private func readBlocks(_ block: Int, _ bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
    let count = bytes.count / BlockLayer.blockBytes
    var done = 0
    while done < count {
      let first = block + done
      let isHeld = layer.holds(first)
      var run = 1
      while done + run < count, layer.holds(first + run) == isHeld,
        isHeld || (first + run < lower) == (first < lower)
      {
        run += 1
      }
      let target = UnsafeMutableRawBufferPointer(rebasing: bytes[done << 12..<(done + run) << 12])
      if isHeld {
        try layer.read(first, target)
      } else if first < lower {
        target.copyMemory(from: UnsafeRawBufferPointer(rebasing: base[first << 12..<(first + run) << 12]))
      } else {
        target.initializeMemory(as: UInt8.self, repeating: 0)
      }
      done += run
    }
  }

  public func flush() throws(Errno) { try layer.flush() }

  public var wantsDiscards: Bool { isVolatile }

  public func discard(at offset: UInt64, count: UInt64) {
    let end = min(size, offset + count)
    if offset < end { layer.discard(Int((offset + 4095) >> 12)..<Int(max(end, offset + 4095) >> 12)) }
  }
}
