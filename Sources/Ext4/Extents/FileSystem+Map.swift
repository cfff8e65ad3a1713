public import ABI

/// A level of the way from the root to a leaf.
struct PathLevel {
  var node: ExtentNode
  /// The entry taken; -1 before the first.
  var index: Int
}

extension FileSystem {
  /// Where block `logical` of a file is, and how many blocks from there on are alike. EUCLEAN, EBADMSG, EIO.
  public func map(_ inode: DiskInode, _ logical: UInt32) throws(Errno) -> Mapping {
    guard inode.usesExtents else { return try mapIndirect(inode, logical) }
    let path = try path(inode, logical)
    let leaf = path[path.count - 1]
    if leaf.index >= 0 {
      let extent = leaf.node.extent(leaf.index)
      if UInt64(logical) < extent.end {
        let inside = UInt64(logical - extent.logical)
        return Mapping(
          state: extent.isUnwritten ? .unwritten : .written, physical: extent.physical &+ inside,
          count: extent.count - Int(inside))
      }
    }
    let next = nextLogical(path)
    return Mapping(state: .hole, physical: 0, count: Int(next - UInt64(logical)))
  }

  /// The first logical block past the path's entry that the tree knows of; 2^32 if there is none.
  func nextLogical(_ path: [PathLevel]) -> UInt64 {
    for level in path.reversed() where level.index + 1 < level.node.entries {
      return UInt64(level.node.logical(level.index + 1))
    }
    return 1 << 32
  }

  /// The way to the entry for `logical`: the last that starts there or before.
  func path(_ inode: DiskInode, _ logical: UInt32) throws(Errno) -> [PathLevel] {
    var node = ExtentNode(view: inode.root, buffer: nil)
    var path: [PathLevel] = []
    path.reserveCapacity(3)
    while true {
      let index = node.find(logical)
      guard node.depth > 0 else {
        path.append(PathLevel(node: node, index: index))
        return path
      }
      // A block before the first entry belongs to the first child.
      let taken = max(0, index)
      path.append(PathLevel(node: node, index: taken))
      guard node.entries > 0, path.count <= 5 else { throw .damaged }
      node = try self.node(node.child(taken), depth: node.depth - 1, of: inode)
    }
  }

  /// The first extent that ends past `logical`, and the way to it; nil if there is none.
  func firstExtent(_ inode: DiskInode, from logical: UInt32) throws(Errno) -> (Extent, [PathLevel])? {
    var way = try path(inode, logical)
    let leaf = way[way.count - 1]
    if leaf.index >= 0 {
      let extent = leaf.node.extent(leaf.index)
      if extent.end > UInt64(logical) { return (extent, way) }
    }
    let next = nextLogical(way)
    guard next < 1 << 32, next > UInt64(logical) else { return nil }
    way = try path(inode, UInt32(next))
    let found = way[way.count - 1]
    guard found.index >= 0 else { return nil }
    let extent = found.node.extent(found.index)
    return extent.end > UInt64(logical) ? (extent, way) : nil
  }

  /// The block map of ext2 and ext3, for reading: 12 blocks, then trees of one, two and three levels.
  private func mapIndirect(_ inode: DiskInode, _ logical: UInt32) throws(Errno) -> Mapping {
    let perBlock = UInt64(blockSize / 4)
    var rest = UInt64(logical)
    if rest < 12 { return try mapping(inode.root, Int(rest), 12) }
    rest -= 12
    var span: UInt64 = perBlock
    for level in 1...3 {
      if rest < span { return try mapTree(inode.root.u32(44 + level * 4), level, rest, span) }
      rest -= span
      span *= perBlock
    }
    return Mapping(state: .hole, physical: 0, count: 1)
  }

  private func mapTree(_ root: UInt32, _ levels: Int, _ index: UInt64, _ size: UInt64) throws(Errno)
    -> Mapping
  {
    var (block, rest, span) = (root, index, size)
    for level in 0..<levels {
      guard block != 0 else {
        return Mapping(state: .hole, physical: 0, count: Int(min(span - rest, 1 << 20)))
      }
      guard isDataRun(BlockRun(start: UInt64(block), count: 1)) else { throw .damaged }
      let view = try buffer(UInt64(block)).view
      span /= UInt64(blockSize / 4)
      if level == levels - 1 { return try mapping(view, Int(rest), blockSize / 4) }
      block = view.u32(Int(rest / span) * 4)
      rest %= span
    }
    throw .damaged
  }

  /// The entry at `index` of a table of block numbers, with those that follow on.
  private func mapping(_ table: ByteView, _ index: Int, _ entries: Int) throws(Errno) -> Mapping {
    let block = UInt64(table.u32(index * 4))
    var count = 1
    while index + count < entries {
      let next = UInt64(table.u32((index + count) * 4))
      guard block == 0 ? next == 0 : next == block + UInt64(count) else { break }
      count += 1
    }
    guard block != 0 else { return Mapping(state: .hole, physical: 0, count: count) }
    guard isDataRun(BlockRun(start: block, count: count)) else { throw .damaged }
    return Mapping(state: .written, physical: block, count: count)
  }
}
