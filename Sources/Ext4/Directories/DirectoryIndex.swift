import ABI

/// A node of a directory's hash tree: pairs of hash and block. The first pair's hash is the node's limit and count.
struct IndexNode {
  let buffer: Buffer
  /// Where the pairs start.
  let start: Int
  private var view: ByteView { buffer.view }

  init(buffer: Buffer, start: Int) {
    self.buffer = buffer
    self.start = start
  }

  var limit: Int {
    get { Int(view.u16(start)) }
    nonmutating set { view.set16(start, UInt16(truncatingIfNeeded: newValue)) }
  }
  var count: Int {
    get { Int(view.u16(start + 2)) }
    nonmutating set { view.set16(start + 2, UInt16(truncatingIfNeeded: newValue)) }
  }
  func hash(_ index: Int) -> UInt32 { index == 0 ? 0 : view.u32(start + index * 8) }
  func block(_ index: Int) -> UInt32 { view.u32(start + index * 8 + 4) & 0x0FFF_FFFF }
  func set(_ index: Int, hash: UInt32, block: UInt32) {
    if index > 0 { view.set32(start + index * 8, hash) }
    view.set32(start + index * 8 + 4, block)
  }

  /// The last pair whose hash is `hash` or less.
  func find(_ hash: UInt32) -> Int {
    var (low, high) = (1, count)
    while low < high {
      let middle = (low + high) / 2
      if self.hash(middle) <= hash { low = middle + 1 } else { high = middle }
    }
    return low - 1
  }

  func insert(_ index: Int, hash: UInt32, block: UInt32) {
    view.move(from: start + index * 8, to: start + (index + 1) * 8, length: (count - index) * 8)
    count += 1
    set(index, hash: hash, block: block)
  }

  /// Moves the pairs from `index` on to the empty node `other`.
  func moveTail(from index: Int, to other: IndexNode) {
    let moved = count - index
    for offset in 0..<moved {
      other.set(offset, hash: hash(index + offset), block: block(index + offset))
    }
    other.count = moved
    count = index
  }
}

/// A level of the way from the index's root to a leaf.
struct IndexLevel {
  var node: IndexNode
  var index: Int
}

extension FileSystem {
  func isIndexed(_ directory: DiskInode) -> Bool {
    directory.flags & DiskInode.indexFlag != 0 && layout.compatible & Feature.directoryIndex != 0
  }

  /// The root's hash version; nil if the directory's first block is no index root.
  private func rootVersion(_ view: ByteView) -> UInt8? {
    indexStart(view) == 32 && view.u8(28) <= 2 && view.u8(31) & 1 == 0 ? view.u8(28) : nil
  }

  func hash(_ name: [UInt8], version: UInt8) throws(Errno) -> DirectoryHash {
    guard let hash = DirectoryHash(name, version: version, unsigned: hashesUnsigned, seed: hashSeed) else {
      throw .damaged
    }
    return hash
  }

  /// What new indexes hash with.
  var defaultHashVersion: UInt8 {
    let version = superblockView.u8(252)
    return version <= 2 ? version : 1
  }

  func hashVersion(_ directory: DiskInode) throws(Errno) -> UInt8 {
    guard isIndexed(directory) else { return defaultHashVersion }
    guard let version = rootVersion(try directoryBuffer(directory, 0).view) else { throw .damaged }
    return version
  }

  /// The most pairs that fit a node.
  private func indexLimit(_ start: Int) -> Int { (blockSize - start - (layout.hasChecksums ? 8 : 0)) / 8 }

  private func indexNode(_ directory: DiskInode, _ block: UInt32, isRoot: Bool) throws(Errno) -> IndexNode {
    let buffer = try directoryBuffer(directory, block)
    guard let start = indexStart(buffer.view), (start == 32) == isRoot else { throw .damaged }
    let node = IndexNode(buffer: buffer, start: start)
    guard node.limit == indexLimit(start), node.count >= 1, node.count <= node.limit else { throw .damaged }
    return node
  }

  var maximumIndexLevels: Int { layout.has(incompatible: Feature.largeDirectory) ? 2 : 1 }

  /// The way to the leaf for `hash`.
  func indexPath(_ directory: DiskInode, _ hash: UInt32) throws(Errno) -> [IndexLevel] {
    var node = try indexNode(directory, 0, isRoot: true)
    guard rootVersion(node.buffer.view) != nil else { throw .damaged }
    let levels = Int(node.buffer.view.u8(30))
    guard levels <= maximumIndexLevels else { throw .damaged }
    var path = [IndexLevel(node: node, index: node.find(hash))]
    for level in 0..<levels {
      node = try indexNode(directory, node.block(path[level].index), isRoot: false)
      path.append(IndexLevel(node: node, index: node.find(hash)))
    }
    return path
  }

  func leafBlock(_ path: [IndexLevel]) -> UInt32 {
    let level = path[path.count - 1]
    return level.node.block(level.index)
  }

  /// The hash at which the leaf after the path's starts, low bit set if it goes on with the same hash; nil at the end.
  func nextHash(_ path: [IndexLevel]) -> UInt32? {
    for level in path.reversed() where level.index + 1 < level.node.count {
      return level.node.hash(level.index + 1)
    }
    return nil
  }

  /// Steps to the next leaf; false at the end.
  func advance(_ path: inout [IndexLevel], _ directory: DiskInode) throws(Errno) -> Bool {
    var level = path.count - 1
    while level >= 0, path[level].index + 1 >= path[level].node.count { level -= 1 }
    guard level >= 0 else { return false }
    path[level].index += 1
    while level + 1 < path.count {
      let node = try indexNode(directory, path[level].node.block(path[level].index), isRoot: false)
      level += 1
      path[level] = IndexLevel(node: node, index: 0)
    }
    return true
  }

  // MARK: Growing

  /// Turns a directory of one full block into an index with one leaf.
  func makeIndex(_ directory: DiskInode) throws(Errno) {
    let buffer = try directoryBuffer(directory, 0)
    let old = try directoryBlock(buffer)
    guard let dot = old.record(0), let dots = old.record(dot.length), dot.length == 12,
      old.name(dots) == [0x2E, 0x2E]
    else { throw .damaged }
    let leaf = try appendDirectoryBlock(directory)
    let block = DirectoryBlock(view: leaf.buffer.view, end: directoryEnd)
    pack(old.entries(), into: block)
    change(buffer)
    change(directory)
    let parent = dots.inode
    buffer.view.clear(24, blockSize - 24)
    old.write(12, blockSize - 12, [0x2E, 0x2E], parent, dots.type)
    buffer.view.set8(28, defaultHashVersion)
    buffer.view.set8(29, 8)
    let root = IndexNode(buffer: buffer, start: 32)
    root.limit = indexLimit(32)
    root.count = 1
    root.set(0, hash: 0, block: leaf.index)
    directory.flags |= DiskInode.indexFlag
  }

  /// Fills an empty block with entries, one after the other.
  func pack(_ entries: [DirectoryEntry], into block: DirectoryBlock) {
    block.format()
    var offset = 0
    for (i, entry) in entries.enumerated() {
      let size = DirectoryBlock.size(entry.name.count)
      let length = i == entries.count - 1 ? block.end - offset : size
      block.write(offset, length, entry.name, entry.inode, storedType(entry.type))
      offset += size
    }
  }

  /// Splits the highest node on the path that must be, or adds a level below the root. ENOSPC when the index is full.
  func splitIndex(_ directory: DiskInode, _ path: [IndexLevel]) throws(Errno) {
    var level = path.count - 1
    while level > 0, path[level - 1].node.count >= path[level - 1].node.limit { level -= 1 }
    let added = level > 0 ? nil : path.count <= maximumIndexLevels ? path[0].node : nil
    guard level > 0 || added != nil else { throw .noSpace }
    let new = try appendDirectoryBlock(directory)
    new.buffer.view.clear(0, blockSize)
    new.buffer.view.set16(4, UInt16(truncatingIfNeeded: blockSize))
    let other = IndexNode(buffer: new.buffer, start: 8)
    other.limit = indexLimit(8)
    if let root = added {
      change(root.buffer)
      root.moveTail(from: 0, to: other)
      root.count = 1
      root.set(0, hash: 0, block: new.index)
      root.buffer.view.set8(30, root.buffer.view.u8(30) + 1)
      return
    }
    let (node, parent) = (path[level].node, path[level - 1])
    change(node.buffer)
    change(parent.node.buffer)
    let middle = node.count / 2
    let hash = node.hash(middle)
    node.moveTail(from: middle, to: other)
    parent.node.insert(parent.index + 1, hash: hash, block: new.index)
  }

  /// Splits a full leaf in two halves by hash.
  func splitLeaf(_ directory: DiskInode, _ path: [IndexLevel]) throws(Errno) {
    let version = try hashVersion(directory)
    let buffer = try directoryBuffer(directory, leafBlock(path))
    let block = try directoryBlock(buffer)
    var hashed: [HashedEntry] = []
    var total = 0
    for entry in block.entries() {
      hashed.append(HashedEntry(hash: try hash(entry.name, version: version), entry: entry))
      total += DirectoryBlock.size(entry.name.count)
    }
    guard hashed.count >= 2 else { throw .damaged }
    hashed.sort { $0.hash.major < $1.hash.major }
    var (middle, size) = (0, 0)
    while middle < hashed.count - 1, size < total / 2 || middle == 0 {
      size += DirectoryBlock.size(hashed[middle].entry.name.count)
      middle += 1
    }
    let continued: UInt32 = hashed[middle - 1].hash.major == hashed[middle].hash.major ? 1 : 0
    let new = try appendDirectoryBlock(directory)
    change(buffer)
    let level = path[path.count - 1]
    change(level.node.buffer)
    pack(hashed[middle...].map { $0.entry }, into: DirectoryBlock(view: new.buffer.view, end: directoryEnd))
    pack(hashed[..<middle].map { $0.entry }, into: block)
    level.node.insert(level.index + 1, hash: hashed[middle].hash.major | continued, block: new.index)
  }
}

struct HashedEntry {
  var hash: DirectoryHash
  var entry: DirectoryEntry
}

/// A file type of `d_type` as directories store it.
func storedType(_ type: UInt8) -> UInt8 { directoryEntryType(UInt32(type) << 12) }
