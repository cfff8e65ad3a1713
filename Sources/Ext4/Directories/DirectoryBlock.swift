import ABI

/// An entry of a directory.
public struct DirectoryEntry {
  public var name: [UInt8]
  public var inode: UInt32
  /// As `d_type` of getdents64(2) numbers file types.
  public var type: UInt8
  /// Where to go on after this entry; more than 2.
  public var cookie: UInt64
}

/// A block of a directory as a chain of entries: inode (4 bytes), length of the record (2), of the name (1), file type
/// (1), name.
struct DirectoryBlock {
  let view: ByteView
  /// Where the entries end: before the checksum.
  let end: Int

  struct Record {
    var offset: Int
    var length: Int
    var inode: UInt32
    var nameLength: Int
    var type: UInt8
    /// What the entry itself needs of the record.
    var used: Int { inode == 0 ? 0 : DirectoryBlock.size(nameLength) }
  }

  static func size(_ nameLength: Int) -> Int { (8 + nameLength + 3) & ~3 }

  /// The record at `offset`; nil at the end, or where the chain is damaged.
  func record(_ offset: Int) -> Record? {
    guard offset >= 0, offset + 8 <= end else { return nil }
    let record = Record(
      offset: offset, length: Int(view.u16(offset + 4)), inode: view.u32(offset),
      nameLength: Int(view.u8(offset + 6)),
      type: view.u8(offset + 7))
    guard record.length >= 8, record.length & 3 == 0, offset + record.length <= end,
      record.used <= record.length
    else { return nil }
    return record
  }

  /// Whether the chain ends exactly where it must.
  var isSound: Bool {
    var offset = 0
    while let record = record(offset) {
      if record.inode != 0, record.nameLength == 0 { return false }
      offset += record.length
    }
    return offset == end
  }

  func name(_ record: Record) -> [UInt8] { view.bytes(record.offset + 8, record.nameLength) }

  func find(_ name: [UInt8]) -> Record? {
    var offset = 0
    while let record = record(offset) {
      if record.inode != 0, record.nameLength == name.count, view.equals(name, at: offset + 8) {
        return record
      }
      offset += record.length
    }
    return nil
  }

  /// Whether `find` would give nothing but a place with room for `name`.
  func room(_ name: [UInt8]) -> Record? {
    let needed = DirectoryBlock.size(name.count)
    var offset = 0
    while let record = record(offset) {
      if record.length - record.used >= needed { return record }
      offset += record.length
    }
    return nil
  }

  /// Adds an entry in the spare part of `record`.
  func insert(_ name: [UInt8], _ inode: UInt32, _ type: UInt8, in record: Record) {
    var offset = record.offset
    var length = record.length
    if record.inode != 0 {
      view.set16(offset + 4, UInt16(truncatingIfNeeded: record.used))
      offset += record.used
      length -= record.used
    }
    write(offset, length, name, inode, type)
  }

  func write(_ offset: Int, _ length: Int, _ name: [UInt8], _ inode: UInt32, _ type: UInt8) {
    view.set32(offset, inode)
    view.set16(offset + 4, UInt16(truncatingIfNeeded: length))
    view.set8(offset + 6, UInt8(truncatingIfNeeded: name.count))
    view.set8(offset + 7, type)
    view.store(name, at: offset + 8)
    view.clear(offset + 8 + name.count, DirectoryBlock.size(name.count) - 8 - name.count)
  }

  /// Takes an entry out: its record joins the one before it.
  func remove(_ record: Record) {
    var before: Record? = nil
    var offset = 0
    while let other = self.record(offset), offset < record.offset {
      before = other
      offset += other.length
    }
    if let before {
      view.set16(before.offset + 4, UInt16(truncatingIfNeeded: before.length + record.length))
    }
    view.set32(record.offset, 0)
  }

  /// Makes the block one empty record, and its checksum's record where there is one.
  func format() {
    view.clear(0, view.count)
    view.set16(4, UInt16(truncatingIfNeeded: end))
    if end < view.count {
      view.set16(end + 4, 12)
      view.set8(end + 7, 0xDE)
    }
  }
}

/// The file types of directory entries, from an inode's mode.
func directoryEntryType(_ mode: UInt32) -> UInt8 {
  switch mode & 0o170000 {
  case 0o100000: 1
  case 0o040000: 2
  case 0o020000: 3
  case 0o060000: 4
  case 0o010000: 5
  case 0o140000: 6
  case 0o120000: 7
  default: 0
  }
}

/// The same as `d_type` numbers them.
private func publicType(_ type: UInt8) -> UInt8 {
  switch type {
  case 1: 8
  case 2: 4
  case 3: 2
  case 4: 6
  case 5: 1
  case 6: 12
  case 7: 10
  default: 0
  }
}

extension DirectoryBlock {
  /// All entries but `.` and `..`, without cookies.
  func entries() -> [DirectoryEntry] {
    var result: [DirectoryEntry] = []
    var offset = 0
    while let record = record(offset) {
      let name = name(record)
      if record.inode != 0, name != [0x2E], name != [0x2E, 0x2E] {
        result.append(
          DirectoryEntry(
            name: name, inode: record.inode, type: publicType(record.type), cookie: UInt64(offset)))
      }
      offset += record.length
    }
    return result
  }
}

extension FileSystem {
  /// Where entries end in a directory's blocks.
  var directoryEnd: Int { blockSize - (layout.hasChecksums ? 12 : 0) }

  /// Where the index's entries start in a block of a directory's hash tree; nil if the block is none.
  func indexStart(_ view: ByteView) -> Int? {
    if view.u32(0) == 0, Int(view.u16(4)) == blockSize { return 8 }
    if view.u16(4) == 12, Int(view.u16(16)) == blockSize - 12, view.u32(24) == 0, view.u8(29) == 8 {
      return 32
    }
    return nil
  }

  /// Block `index` of a directory, checked when it is first seen. EUCLEAN for a hole.
  func directoryBuffer(_ inode: DiskInode, _ index: UInt32) throws(Errno) -> Buffer {
    guard UInt64(index) < inode.size / UInt64(blockSize) else { throw .damaged }
    let mapping = try map(inode, index)
    guard mapping.state == .written else { throw .damaged }
    let buffer = try buffer(mapping.physical)
    if !buffer.isVerified {
      buffer.kind = .directory(seed: inode.seed)
      if layout.hasChecksums { try checkDirectory(buffer.view, inode) }
      buffer.isVerified = true
    }
    guard case .directory(inode.seed) = buffer.kind else { throw .damaged }
    return buffer
  }

  private func checkDirectory(_ view: ByteView, _ inode: DiskInode) throws(Errno) {
    let isIndex = inode.flags & DiskInode.indexFlag != 0 && indexStart(view) != nil
    let stored = isIndex ? indexChecksumPlace(view).map { view.u32($0) } : view.u32(blockSize - 4)
    guard let stored, stored == directoryChecksum(view, inode.seed) else { throw .badMessage }
  }

  private func indexChecksumPlace(_ view: ByteView) -> Int? {
    guard let start = indexStart(view) else { return nil }
    let place = start + Int(view.u16(start)) * 8 + 4
    return place + 4 <= blockSize && view.u16(start + 2) <= view.u16(start) ? place : nil
  }

  private func directoryChecksum(_ view: ByteView, _ seed: UInt32) -> UInt32 {
    guard let start = indexStart(view), let place = indexChecksumPlace(view) else {
      return Checksum.crc32c(seed, view.part(0, blockSize - 12))
    }
    var crc = Checksum.crc32c(seed, view.part(0, start + Int(view.u16(start + 2)) * 8))
    crc = Checksum.crc32c(crc, view.part(place - 4, 4))
    return Checksum.crc32c(crc, number: UInt32(0))
  }

  func sealDirectory(_ view: ByteView, _ seed: UInt32) {
    view.set32(indexChecksumPlace(view) ?? blockSize - 4, directoryChecksum(view, seed))
  }

  /// The entries of a block that is not part of the index; EUCLEAN if their chain is broken.
  func directoryBlock(_ buffer: Buffer) throws(Errno) -> DirectoryBlock {
    let block = DirectoryBlock(view: buffer.view, end: directoryEnd)
    guard block.isSound else { throw .damaged }
    return block
  }
}
