import ABI

// Changing extent trees. All of it runs inside an operation, which undoes what an error leaves half done.
extension FileSystem {
  /// To be called before a node changes.
  func change(_ node: ExtentNode, of inode: DiskInode) {
    if let buffer = node.buffer { change(buffer) } else { change(inode) }
  }

  /// Adds an extent where the file has a hole; it is merged with its neighbours where that fits.
  func insert(_ extent: Extent, into inode: DiskInode) throws(Errno) {
    var path = try path(inode, extent.logical)
    var leaf = path[path.count - 1]
    if leaf.index >= 0, leaf.node.extent(leaf.index).end > UInt64(extent.logical) { throw .damaged }
    guard nextLogical(path) >= extent.end else { throw .damaged }
    change(leaf.node, of: inode)
    if merge(extent, leaf) {
      fixKeys(path, of: inode)
      return
    }
    while leaf.node.isFull {
      try split(path, of: inode, for: extent.logical)
      path = try self.path(inode, extent.logical)
      leaf = path[path.count - 1]
    }
    change(leaf.node, of: inode)
    leaf.node.open(leaf.index + 1)
    leaf.node.set(leaf.index + 1, extent)
    if leaf.index < 0 {
      path[path.count - 1].index = 0
      fixKeys(path, of: inode)
    }
  }

  /// Joins the extent to the entry before it, the one after it, or both.
  private func merge(_ extent: Extent, _ leaf: PathLevel) -> Bool {
    let node = leaf.node
    if leaf.index >= 0 {
      var before = node.extent(leaf.index)
      if joins(before, extent) {
        before.count += extent.count
        if leaf.index + 1 < node.entries {
          let after = node.extent(leaf.index + 1)
          if joins(before, after) {
            before.count += after.count
            node.remove(leaf.index + 1)
          }
        }
        node.set(leaf.index, before)
        return true
      }
    }
    guard leaf.index + 1 < node.entries else { return false }
    let after = node.extent(leaf.index + 1)
    guard joins(extent, after) else { return false }
    var joined = extent
    joined.count += after.count
    node.set(leaf.index + 1, joined)
    return true
  }

  private func joins(_ first: Extent, _ second: Extent) -> Bool {
    first.isUnwritten == second.isUnwritten && first.end == UInt64(second.logical)
      && first.physical &+ UInt64(first.count) == second.physical && first.count + second.count <= first.limit
  }

  /// An index entry's key is the first key of its child: brings the keys above a leaf up to date.
  func fixKeys(_ path: [PathLevel], of inode: DiskInode) {
    var level = path.count - 1
    while level > 0 {
      let node = path[level].node
      guard node.entries > 0 else { return }
      let (key, parent) = (node.logical(0), path[level - 1])
      if parent.node.logical(parent.index) != key {
        change(parent.node, of: inode)
        parent.node.setLogical(parent.index, key)
      }
      level -= 1
    }
  }

  /// Makes room on the way to a full leaf: splits the highest node that must be, or grows the tree by a level.
  private func split(_ path: [PathLevel], of inode: DiskInode, for logical: UInt32) throws(Errno) {
    var level = path.count - 1
    while level > 0, path[level - 1].node.isFull { level -= 1 }
    guard level > 0 else { return try grow(inode) }
    let (node, parent) = (path[level].node, path[level - 1])
    let block = try allocateTreeBlock(inode)
    let buffer = try newBuffer(block)
    buffer.kind = .extents(seed: inode.seed)
    let other = ExtentNode(view: buffer.view, buffer: buffer)
    other.format(depth: node.depth)
    // Files mostly grow at the end: leave the old node full then.
    let isAppend = logical > node.logical(node.entries - 1)
    let middle = isAppend ? node.entries - 1 : node.entries / 2
    change(node, of: inode)
    change(parent.node, of: inode)
    node.moveTail(from: middle, to: other)
    parent.node.open(parent.index + 1)
    parent.node.setChild(parent.index + 1, other.logical(0), block)
  }

  /// Moves the root's entries to a block of their own, so that the root has room again.
  private func grow(_ inode: DiskInode) throws(Errno) {
    let root = ExtentNode(view: inode.root, buffer: nil)
    guard root.depth < 5 else { throw .fileTooLarge }
    let block = try allocateTreeBlock(inode)
    let buffer = try newBuffer(block)
    buffer.kind = .extents(seed: inode.seed)
    let node = ExtentNode(view: buffer.view, buffer: buffer)
    node.format(depth: root.depth)
    change(inode)
    let first = root.logical(0)
    root.moveTail(from: 0, to: node)
    root.depth = node.depth + 1
    root.open(0)
    root.setChild(0, first, block)
  }

  private func allocateTreeBlock(_ inode: DiskInode) throws(Errno) -> UInt64 {
    let run = try allocateBlocks(goal: inode.goal, wanted: 1)
    change(inode)
    inode.addBlocks(1, blockSize: blockSize)
    return run.start
  }
}
