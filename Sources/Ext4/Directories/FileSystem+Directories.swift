public import ABI

/// Where an entry is.
struct EntryPlace {
  let buffer: Buffer
  let block: DirectoryBlock
  let record: DirectoryBlock.Record
}

extension FileSystem {
  /// The inode number of a name in a directory, ENOENT; ENOTDIR.
  public func lookup(_ name: [UInt8], in directory: DiskInode) throws(Errno) -> UInt32 {
    guard let place = try findEntry(name, directory) else { throw .noSuchFile }
    return place.record.inode
  }

  func findEntry(_ name: [UInt8], _ directory: DiskInode) throws(Errno) -> EntryPlace? {
    guard directory.isDirectory else { throw .notDirectory }
    guard name.count <= 255 else { throw .nameTooLong }
    guard isIndexed(directory), name != [0x2E], name != [0x2E, 0x2E] else {
      return try findLinearly(name, directory)
    }
    let hash = try hash(name, version: try hashVersion(directory)).major
    var path = try indexPath(directory, hash)
    while true {
      if let place = try find(name, directory, leafBlock(path)) { return place }
      // The hash may go on in the next leaf.
      guard let next = nextHash(path), next & 1 != 0, next & ~1 == hash, try advance(&path, directory) else {
        return nil
      }
    }
  }

  private func find(_ name: [UInt8], _ directory: DiskInode, _ index: UInt32) throws(Errno) -> EntryPlace? {
    let buffer = try directoryBuffer(directory, index)
    let block = DirectoryBlock(view: buffer.view, end: directoryEnd)
    guard let record = block.find(name) else { return nil }
    return EntryPlace(buffer: buffer, block: block, record: record)
  }

  private func findLinearly(_ name: [UInt8], _ directory: DiskInode) throws(Errno) -> EntryPlace? {
    let blocks = isIndexed(directory) ? 1 : directory.size / UInt64(blockSize)
    var index: UInt64 = 0
    while index < blocks, index < 1 << 32 {
      // In an index's root the entry for `..` covers the pairs, past where other blocks' entries end.
      let buffer = try directoryBuffer(directory, UInt32(index))
      let end = isIndexed(directory) ? blockSize : directoryEnd
      let block = DirectoryBlock(view: buffer.view, end: end)
      if let record = block.find(name) { return EntryPlace(buffer: buffer, block: block, record: record) }
      index += 1
    }
    return nil
  }

  /// A new last block for a directory: empty, with room for entries.
  func appendDirectoryBlock(_ directory: DiskInode) throws(Errno) -> (buffer: Buffer, index: UInt32) {
    let index = directory.size / UInt64(blockSize)
    guard index < 1 << 28 else { throw .noSpace }
    guard directory.usesExtents else { throw .notSupported }
    let run = try allocateBlocks(goal: goal(directory), wanted: 1)
    change(directory)
    directory.addBlocks(1, blockSize: blockSize)
    directory.goal = run.end
    try insert(
      Extent(logical: UInt32(index), count: 1, physical: run.start, isUnwritten: false), into: directory)
    directory.size += UInt64(blockSize)
    let buffer = try newBuffer(run.start)
    buffer.kind = .directory(seed: directory.seed)
    DirectoryBlock(view: buffer.view, end: directoryEnd).format()
    return (buffer, UInt32(index))
  }

  /// Adds a name; the caller knows that it is not there.
  func addEntry(_ name: [UInt8], _ inode: UInt32, _ mode: UInt32, to directory: DiskInode) throws(Errno) {
    let type = layout.has(incompatible: Feature.fileType) ? directoryEntryType(mode) : 0
    change(directory)
    let now = clock.realtimeNanoseconds
    directory.modified = now
    directory.changed = now
    if isIndexed(directory) { return try addIndexed(name, inode, type, directory) }
    // Should something without knowledge of indexes have changed the directory, its index is void.
    directory.flags &= ~DiskInode.indexFlag
    let blocks = directory.size / UInt64(blockSize)
    var index: UInt64 = 0
    while index < blocks {
      let buffer = try directoryBuffer(directory, UInt32(index))
      if try insert(name, inode, type, into: buffer) { return }
      index += 1
    }
    if blocks == 1, layout.compatible & Feature.directoryIndex != 0 {
      try makeIndex(directory)
      return try addIndexed(name, inode, type, directory)
    }
    let new = try appendDirectoryBlock(directory)
    _ = try insert(name, inode, type, into: new.buffer)
  }

  private func insert(_ name: [UInt8], _ inode: UInt32, _ type: UInt8, into buffer: Buffer) throws(Errno)
    -> Bool
  {
    let block = try directoryBlock(buffer)
    guard let record = block.room(name) else { return false }
    change(buffer)
    block.insert(name, inode, type, in: record)
    return true
  }

  private func addIndexed(_ name: [UInt8], _ inode: UInt32, _ type: UInt8, _ directory: DiskInode)
    throws(Errno)
  {
    let hash = try hash(name, version: try hashVersion(directory)).major
    // Each round splits one node or one leaf; a tree of three levels needs four at most.
    for _ in 0..<8 {
      let path = try indexPath(directory, hash)
      let buffer = try directoryBuffer(directory, leafBlock(path))
      if try insert(name, inode, type, into: buffer) { return }
      let level = path[path.count - 1]
      if level.node.count >= level.node.limit {
        try splitIndex(directory, path)
      } else {
        try splitLeaf(directory, path)
      }
    }
    throw .noSpace
  }

  func removeEntry(_ place: EntryPlace, from directory: DiskInode) {
    change(place.buffer)
    place.block.remove(place.record)
    change(directory)
    let now = clock.realtimeNanoseconds
    directory.modified = now
    directory.changed = now
  }

  /// Points an entry to another inode.
  func replaceEntry(_ place: EntryPlace, _ inode: UInt32, _ mode: UInt32) {
    change(place.buffer)
    place.block.view.set32(place.record.offset, inode)
    if layout.has(incompatible: Feature.fileType) {
      place.block.view.set8(place.record.offset + 7, directoryEntryType(mode))
    }
  }

  func isEmpty(_ directory: DiskInode) throws(Errno) -> Bool {
    try entries(of: directory, after: 0).isEmpty
  }

  // MARK: Reading

  /// Some entries after the one with `cookie` (0: from the start), without `.` and `..`; none at the end. Entries that
  /// stay in the directory while it is read are found exactly once.
  public func entries(of directory: DiskInode, after cookie: UInt64) throws(Errno) -> [DirectoryEntry] {
    guard directory.isDirectory else { throw .notDirectory }
    let isSmall = directory.size == UInt64(blockSize) && layout.compatible & Feature.directoryIndex != 0
    if isIndexed(directory) || isSmall { return try entriesByHash(directory, after: cookie) }
    let blocks = directory.size / UInt64(blockSize)
    var index = cookie < 3 ? 0 : (cookie - 3) / UInt64(blockSize)
    while index < blocks, index < 1 << 32 {
      let block = try directoryBlock(try directoryBuffer(directory, UInt32(index)))
      var result: [DirectoryEntry] = []
      for var entry in block.entries() {
        entry.cookie += 3 + index * UInt64(blockSize)
        if entry.cookie > cookie { result.append(entry) }
      }
      if !result.isEmpty { return result }
      index += 1
    }
    return []
  }

  /// In the order of hashes, which splits of leaves do not change.
  private func entriesByHash(_ directory: DiskInode, after cookie: UInt64) throws(Errno) -> [DirectoryEntry] {
    let version = try hashVersion(directory)
    guard isIndexed(directory) else {
      return try sorted(
        try directoryBlock(try directoryBuffer(directory, 0)).entries(), version, after: cookie)
    }
    let start = cookie < 3 ? 0 : UInt32(truncatingIfNeeded: (cookie - 3) >> 32) << 1
    var path = try indexPath(directory, start)
    while true {
      var entries = try directoryBlock(try directoryBuffer(directory, leafBlock(path))).entries()
      // Leaves that go on with the same hash belong together.
      var next = nextHash(path)
      while let hash = next, hash & 1 != 0, entries.count < 65536, try advance(&path, directory) {
        entries += try directoryBlock(try directoryBuffer(directory, leafBlock(path))).entries()
        next = nextHash(path)
      }
      let result = try sorted(entries, version, after: cookie)
      if !result.isEmpty { return result }
      guard try advance(&path, directory) else { return [] }
    }
  }

  private func sorted(_ entries: [DirectoryEntry], _ version: UInt8, after cookie: UInt64) throws(Errno)
    -> [DirectoryEntry]
  {
    var result: [DirectoryEntry] = []
    for var entry in entries {
      let hash = try hash(entry.name, version: version)
      entry.cookie = UInt64(hash.major >> 1) << 32 + UInt64(hash.minor) + 3
      if entry.cookie > cookie { result.append(entry) }
    }
    result.sort { $0.cookie < $1.cookie }
    return result
  }
}
