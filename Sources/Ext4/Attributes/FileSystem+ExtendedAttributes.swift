public import ABI

// Extended attributes (xattr(7)): in the inode behind its fields, and in one block, which inodes may share.
extension FileSystem {
  static let attributeMagic: UInt32 = 0xEA02_0000

  /// The value of an attribute; ENODATA, EOPNOTSUPP.
  public func attribute(_ name: [UInt8], of inode: DiskInode) throws(Errno) -> [UInt8] {
    let (prefix, rest) = try AttributeName.split(name)
    for attribute in try attributes(inode) where attribute.isNamed(prefix, rest) {
      return AttributeName.isAccessList(prefix)
        ? try AccessListFormat.program(attribute.value) : attribute.value
    }
    throw .noData
  }

  /// False if the inode surely has no attributes.
  public func mayHaveAttributes(_ inode: DiskInode) -> Bool {
    if inode.attributeBlock != 0 { return true }
    guard let area = inlineArea(inode) else { return false }
    return inode.view.u32(area.start - 4) == FileSystem.attributeMagic
  }

  /// The names of all attributes.
  public func attributeNames(of inode: DiskInode) throws(Errno) -> [[UInt8]] {
    var result: [[UInt8]] = []
    for attribute in try attributes(inode) {
      if let name = AttributeName.join(attribute.prefix, attribute.name) { result.append(name) }
    }
    return result
  }

  /// setxattr(2), or removexattr(2) where `value` is nil. `flags`: 1 XATTR_CREATE (EEXIST), 2 XATTR_REPLACE (ENODATA).
  /// ENOSPC if the inode and one block have no room.
  public func setAttribute(_ name: [UInt8], _ value: [UInt8]?, flags: UInt32, of inode: DiskInode)
    throws(Errno)
  {
    let (prefix, rest) = try AttributeName.split(name)
    guard rest.count <= 255 else { throw .outOfRange }
    var list = try attributes(inode)
    let index = list.firstIndex { $0.isNamed(prefix, rest) }
    if flags & 1 != 0, index != nil { throw .fileExists }
    if index == nil, value == nil || flags & 2 != 0 { throw .noData }
    if let index { list.remove(at: index) }
    if let value {
      guard value.count <= blockSize else { throw .noSpace }
      let kept = AttributeName.isAccessList(prefix) ? try AccessListFormat.disk(value) : value
      list.append(Attribute(prefix: prefix, name: rest, value: kept))
    }
    try perform { () throws(Errno) in
      try store(list, inode)
      inode.changed = clock.realtimeNanoseconds
      inode.dataTransaction = transaction.number
    }
  }

  private func inlineArea(_ inode: DiskInode) -> AttributeArea? {
    let start = 128 + inode.extraSize + 4
    guard inode.extraSize > 0, inode.view.count - start >= 20 else { return nil }
    // Offsets count from the first entry.
    return AttributeArea(view: inode.view, start: start, base: start)
  }

  private func blockArea(_ buffer: Buffer) -> AttributeArea {
    AttributeArea(view: buffer.view, start: 32, base: 0)
  }

  private func attributeBuffer(_ inode: DiskInode) throws(Errno) -> Buffer? {
    let block = inode.attributeBlock
    guard block != 0 else { return nil }
    guard isDataRun(BlockRun(start: block, count: 1)) else { throw .damaged }
    let buffer = try buffer(block)
    if !buffer.isVerified {
      guard buffer.view.u32(0) == FileSystem.attributeMagic, buffer.view.u32(8) == 1, buffer.view.u32(4) > 0
      else {
        throw .damaged
      }
      if layout.hasChecksums, buffer.view.u32(16) != attributeChecksum(buffer) { throw .badMessage }
      buffer.kind = .attributes
      buffer.isVerified = true
    }
    guard case .attributes = buffer.kind else { throw .damaged }
    return buffer
  }

  private func attributeChecksum(_ buffer: Buffer) -> UInt32 {
    var crc = Checksum.crc32c(layout.checksumSeed, number: buffer.block)
    crc = Checksum.crc32c(crc, buffer.view.part(0, 16))
    crc = Checksum.crc32c(crc, number: UInt32(0))
    return Checksum.crc32c(crc, buffer.view.part(20, blockSize - 20))
  }

  func sealAttributes(_ buffer: Buffer) { buffer.view.set32(16, attributeChecksum(buffer)) }

  private func attributes(_ inode: DiskInode) throws(Errno) -> [Attribute] {
    var result: [Attribute] = []
    if let area = inlineArea(inode), inode.view.u32(area.start - 4) == FileSystem.attributeMagic {
      result = try area.read()
    }
    if let buffer = try attributeBuffer(inode) { result += try blockArea(buffer).read() }
    return result
  }

  /// Writes all attributes anew: into the inode what fits there, the rest into the block.
  private func store(_ list: [Attribute], _ inode: DiskInode) throws(Errno) {
    change(inode)
    var rest = list
    if let area = inlineArea(inode) {
      var inline: [Attribute] = []
      (inline, rest) = divide(list, room: area.room)
      area.write(inline)
      inode.view.set32(area.start - 4, inline.isEmpty ? 0 : FileSystem.attributeMagic)
    }
    guard !rest.isEmpty else { return try dropAttributeBlock(inode) }
    let (fitting, over) = divide(rest, room: blockSize - 36)
    guard over.isEmpty else { throw .noSpace }
    let buffer = try writableAttributeBuffer(inode)
    let sorted = fitting.sorted { $0.precedes($1) }
    blockArea(buffer).write(sorted)
    var hash: UInt32 = 0
    for attribute in sorted { hash = hash << 16 ^ hash >> 16 ^ attribute.hash }
    buffer.view.set32(12, hash)
  }

  private func divide(_ list: [Attribute], room: Int) -> ([Attribute], [Attribute]) {
    var (fitting, rest): ([Attribute], [Attribute]) = ([], [])
    var left = room
    for attribute in list {
      let size = attribute.entrySize + attribute.valueSize
      if size <= left {
        left -= size
        fitting.append(attribute)
      } else {
        rest.append(attribute)
      }
    }
    return (fitting, rest)
  }

  /// The inode's own attribute block: a new one if it has none or shares it.
  private func writableAttributeBuffer(_ inode: DiskInode) throws(Errno) -> Buffer {
    if let old = try attributeBuffer(inode) {
      if old.view.u32(4) == 1 {
        change(old)
        return old
      }
      try dropAttributeBlock(inode)
    }
    let run = try allocateBlocks(goal: goal(inode), wanted: 1)
    let buffer = try newBuffer(run.start)
    buffer.kind = .attributes
    buffer.view.set32(0, FileSystem.attributeMagic)
    buffer.view.set32(4, 1)
    buffer.view.set32(8, 1)
    inode.attributeBlock = run.start
    inode.addBlocks(1, blockSize: blockSize)
    return buffer
  }

  /// Lets go of the inode's attribute block; it is freed with its last user.
  func dropAttributeBlock(_ inode: DiskInode) throws(Errno) {
    guard let buffer = try attributeBuffer(inode) else { return }
    change(inode)
    inode.attributeBlock = 0
    inode.addBlocks(-1, blockSize: blockSize)
    let users = buffer.view.u32(4)
    if users > 1 {
      change(buffer)
      buffer.view.set32(4, users - 1)
    } else {
      try free(BlockRun(start: buffer.block, count: 1), isMetadata: true)
    }
  }
}
