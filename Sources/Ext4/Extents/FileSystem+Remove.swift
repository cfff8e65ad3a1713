import ABI

extension FileSystem {
  /// Takes blocks `from..<to` out of a file's tree, and frees them if `freeing`. Stops when the operation has changed
  /// much; the next block to go on with then, `to` when all is done.
  func remove(_ inode: DiskInode, from: UInt64, to: UInt64, freeing: Bool) throws(Errno) -> UInt64 {
    var place = from
    while place < to {
      if operation.changes > operationCredits / 2 { return place }
      guard let (extent, path) = try firstExtent(inode, from: UInt32(place)) else { return to }
      let start = max(UInt64(extent.logical), from)
      guard start < to else { return to }
      var end = min(extent.end, to)
      let isMetadata = inode.isDirectory || inode.isSymlink
      // Every metadata block that is freed takes room in the journal.
      if isMetadata { end = min(end, start + 2048) }
      if freeing {
        let run = BlockRun(
          start: extent.physical &+ (start - UInt64(extent.logical)), count: Int(end - start))
        try free(run, isMetadata: isMetadata)
        change(inode)
        inode.addBlocks(-run.count, blockSize: blockSize)
      }
      try cut(inode, path, extent, start, end)
      place = end
      if isMetadata, operation.revoked.count >= 2048 { return place }
    }
    return to
  }

  /// Takes `start..<end` out of one entry.
  private func cut(_ inode: DiskInode, _ path: [PathLevel], _ extent: Extent, _ start: UInt64, _ end: UInt64)
    throws(Errno)
  {
    let leaf = path[path.count - 1]
    change(leaf.node, of: inode)
    if start == UInt64(extent.logical), end == extent.end {
      return try removeEntry(inode, path)
    }
    var right = extent
    right.logical = UInt32(end & 0xFFFF_FFFF)
    right.count = Int(extent.end - end)
    right.physical = extent.physical &+ (end - UInt64(extent.logical))
    if start == UInt64(extent.logical) {
      leaf.node.set(leaf.index, right)
      if leaf.index == 0 { fixKeys(path, of: inode) }
      return
    }
    var left = extent
    left.count = Int(start - UInt64(extent.logical))
    leaf.node.set(leaf.index, left)
    if right.count > 0 { try insert(right, into: inode) }
  }

  /// Removes the path's entry, and the nodes that become empty with it.
  private func removeEntry(_ inode: DiskInode, _ path: [PathLevel]) throws(Errno) {
    var level = path.count - 1
    while true {
      let (node, index) = (path[level].node, path[level].index)
      change(node, of: inode)
      node.remove(index)
      guard node.entries == 0 else {
        if index == 0 { fixKeys(Array(path[...level]), of: inode) }
        return
      }
      guard let buffer = node.buffer else {
        node.format(depth: 0)
        return
      }
      try free(BlockRun(start: buffer.block, count: 1), isMetadata: true)
      change(inode)
      inode.addBlocks(-1, blockSize: blockSize)
      level -= 1
    }
  }

  /// Marks blocks that were allocated but never written as written.
  func markWritten(_ inode: DiskInode, from: UInt32, count: Int) throws(Errno) {
    let end = UInt64(from) + UInt64(count)
    var place = UInt64(from)
    while place < end {
      guard let (extent, path) = try firstExtent(inode, from: UInt32(place)), UInt64(extent.logical) < end
      else {
        return
      }
      let start = max(UInt64(extent.logical), place)
      let stop = min(extent.end, end)
      if extent.isUnwritten {
        try cut(inode, path, extent, start, stop)
        try insert(
          Extent(
            logical: UInt32(start), count: Int(stop - start),
            physical: extent.physical &+ (start - UInt64(extent.logical)), isUnwritten: false), into: inode)
      }
      place = stop
    }
  }
}
