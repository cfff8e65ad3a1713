import ABI

/// A run of a file's blocks.
struct Extent {
  /// First block within the file.
  var logical: UInt32
  var count: Int
  /// First block on the device.
  var physical: UInt64
  /// Allocated but never written: reads as zeros.
  var isUnwritten: Bool

  /// The first block past it; files have up to 2^32 blocks.
  var end: UInt64 { UInt64(logical) + UInt64(count) }
  /// Blocks that one entry can describe (ee_len).
  var limit: Int { isUnwritten ? 32767 : 32768 }
}

/// Where part of a file is.
public struct Mapping {
  public enum State { case hole, unwritten, written }
  public var state: State
  /// The block on the device; 0 for a hole.
  public var physical: UInt64
  /// Blocks from the one asked for on that are alike.
  public var count: Int
}

/// A node of an extent tree: a header, then entries of 12 bytes. The root is in the inode, the others are blocks.
struct ExtentNode {
  let view: ByteView
  /// nil for the root.
  let buffer: Buffer?

  static let magic: UInt16 = 0xF30A

  var entries: Int {
    get { Int(view.u16(2)) }
    nonmutating set { view.set16(2, UInt16(truncatingIfNeeded: newValue)) }
  }
  var capacity: Int { Int(view.u16(4)) }
  var depth: Int {
    get { Int(view.u16(6)) }
    nonmutating set { view.set16(6, UInt16(truncatingIfNeeded: newValue)) }
  }
  var isFull: Bool { entries >= capacity }

  /// Readies an empty node.
  func format(depth: Int) {
    view.clear(0, view.count)
    view.set16(0, ExtentNode.magic)
    view.set16(4, UInt16((view.count - 12) / 12))
    self.depth = depth
  }

  private func place(_ index: Int) -> Int { 12 &+ index &* 12 }

  /// First logical block of an entry, of both kinds.
  func logical(_ index: Int) -> UInt32 { view.u32(place(index)) }
  func setLogical(_ index: Int, _ value: UInt32) { view.set32(place(index), value) }

  func child(_ index: Int) -> UInt64 {
    UInt64(view.u32(place(index) + 4)) | UInt64(view.u16(place(index) + 8)) << 32
  }

  func extent(_ index: Int) -> Extent {
    let at = place(index)
    let length = Int(view.u16(at + 4))
    return Extent(
      logical: view.u32(at), count: length > 32768 ? length - 32768 : length,
      physical: UInt64(view.u32(at + 8)) | UInt64(view.u16(at + 6)) << 32, isUnwritten: length > 32768)
  }

  func set(_ index: Int, _ extent: Extent) {
    let at = place(index)
    view.set32(at, extent.logical)
    view.set16(at + 4, UInt16(truncatingIfNeeded: extent.isUnwritten ? extent.count + 32768 : extent.count))
    view.set16(at + 6, UInt16(truncatingIfNeeded: extent.physical >> 32))
    view.set32(at + 8, UInt32(truncatingIfNeeded: extent.physical))
  }

  func setChild(_ index: Int, _ logical: UInt32, _ block: UInt64) {
    let at = place(index)
    view.set32(at, logical)
    view.set32(at + 4, UInt32(truncatingIfNeeded: block))
    view.set16(at + 8, UInt16(truncatingIfNeeded: block >> 32))
    view.set16(at + 10, 0)
  }

  /// Makes room for an entry before `index`.
  func open(_ index: Int) {
    view.move(from: place(index), to: place(index + 1), length: (entries - index) * 12)
    entries += 1
  }

  func remove(_ index: Int) {
    view.move(from: place(index + 1), to: place(index), length: (entries - index - 1) * 12)
    entries -= 1
    view.clear(place(entries), 12)
  }

  /// The last entry that starts at `logical` or before; -1 if there is none.
  func find(_ logical: UInt32) -> Int {
    var (low, high) = (0, entries)
    while low < high {
      let middle = (low + high) / 2
      if self.logical(middle) <= logical { low = middle + 1 } else { high = middle }
    }
    return low - 1
  }

  /// Moves the entries from `index` on to the empty node `other`.
  func moveTail(from index: Int, to other: ExtentNode) {
    let count = entries - index
    other.view.part(12, count * 12).copy(view.part(place(index), count * 12))
    other.entries = count
    entries = index
    view.clear(place(index), count * 12)
  }
}

extension FileSystem {
  /// Checks a node read from the disk: `depth` as its parent has it, nil for the root.
  func checkNode(_ view: ByteView, depth: Int?, isRoot: Bool) throws(Errno) {
    let node = ExtentNode(view: view, buffer: nil)
    guard view.u16(0) == ExtentNode.magic, node.capacity <= (view.count - 12) / 12, node.capacity > 0,
      node.entries <= node.capacity, node.depth <= 5, depth == nil || node.depth == depth,
      isRoot || node.entries > 0
    else { throw .damaged }
    if node.depth > 0, node.entries == 0 { throw .damaged }
    var end: UInt64 = 0
    for index in 0..<node.entries {
      guard index == 0 || UInt64(node.logical(index)) >= end else { throw .damaged }
      if node.depth == 0 {
        let extent = node.extent(index)
        guard isDataRun(BlockRun(start: extent.physical, count: extent.count)), extent.end <= 1 << 32 else {
          throw .damaged
        }
        end = extent.end
      } else {
        guard isDataRun(BlockRun(start: node.child(index), count: 1)) else { throw .damaged }
        end = UInt64(node.logical(index)) + 1
      }
    }
  }

  /// A node that is a block, checked when it is first seen.
  func node(_ block: UInt64, depth: Int, of inode: DiskInode) throws(Errno) -> ExtentNode {
    let buffer = try buffer(block)
    if !buffer.isVerified {
      try checkNode(buffer.view, depth: depth, isRoot: false)
      if layout.hasChecksums {
        let end = 12 + Int(buffer.view.u16(4)) * 12
        guard Checksum.crc32c(inode.seed, buffer.view.part(0, end)) == buffer.view.u32(end) else {
          throw .badMessage
        }
      }
      buffer.kind = .extents(seed: inode.seed)
      buffer.isVerified = true
    }
    // A block seen before may be no extent node at all, or of another level: a damaged tree.
    guard case .extents = buffer.kind, buffer.view.u16(6) == UInt16(depth) else { throw .damaged }
    return ExtentNode(view: buffer.view, buffer: buffer)
  }

  func sealExtents(_ view: ByteView, _ seed: UInt32) {
    let end = 12 + Int(view.u16(4)) * 12
    view.set32(end, Checksum.crc32c(seed, view.part(0, end)))
  }
}
