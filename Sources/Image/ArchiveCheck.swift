/// Checks every index record of an archive, in order.
struct ArchiveCheck {
  let archive: UnsafeRawBufferPointer
  let paths: UnsafeRawBufferPointer
  let count: Int

  func run() throws(ImageError) {
    guard count > 0 else { throw .missingRoot }
    var seen = PathTable(capacity: count)
    for index in 0..<count {
      let record = Record(archive: archive, index: index)
      guard let path = record.path(in: paths) else { throw .pathOutOfBounds }
      try checkPath(path, index: index, seen: &seen)
      try checkContent(record, index: index)
    }
  }

  private func checkPath(_ path: UnsafeRawBufferPointer, index: Int, seen: inout PathTable) throws(ImageError)
  {
    let isDirectory = Record(archive: archive, index: index).mode & FileType.mask == FileType.directory
    if index == 0 {
      guard path.isEmpty, isDirectory else { throw .missingRoot }
    } else {
      guard !path.isEmpty, isWellFormed(path) else { throw .invalidPath }
      let parent = parentPath(path)
      let found = seen.index(of: parent, in: self)
      guard let found, Record(archive: archive, index: found).mode & FileType.mask == FileType.directory
      else { throw .missingParent }
    }
    guard seen.insert(path, index: index, in: self) else { throw .duplicatePath }
  }

  private func isWellFormed(_ path: UnsafeRawBufferPointer) -> Bool {
    guard path.count <= ImageFormat.longestPath else { return false }
    var start = 0
    for position in 0...path.count {
      if position < path.count {
        if path[position] == 0 { return false }
        if path[position] != 0x2f { continue }
      }
      let length = position &- start
      if length == 0 || length > ImageFormat.longestName { return false }
      if length == 1, path[start] == 0x2e { return false }
      if length == 2, path[start] == 0x2e, path[start &+ 1] == 0x2e { return false }
      start = position &+ 1
    }
    return true
  }

  private func parentPath(_ path: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    var end = path.count &- 1
    while end > 0, path[end] != 0x2f { end &-= 1 }
    return UnsafeRawBufferPointer(rebasing: path[0..<end])
  }

  private func checkContent(_ record: Record, index: Int) throws(ImageError) {
    guard record.mode >> 16 == 0 else { throw .invalidFileType }
    guard record.mtimeNanoseconds < 1_000_000_000, record.mtimeSeconds <= UInt64(Int64.max),
      record.reserved == 0
    else { throw .invalidTimestamp }
    guard let data = archive.slice(record.dataOffset, record.dataLength) else { throw .dataOutOfBounds }
    if record.hardLinkIndex != ImageFormat.noHardLink {
      try checkHardLink(record, data: data, index: index)
      return
    }
    switch record.mode & FileType.mask {
    case FileType.regular:
      guard data.isEmpty || record.dataOffset % UInt64(ImageFormat.pageSize) == 0 else {
        throw .misalignedData
      }
    case FileType.symbolicLink:
      guard !data.isEmpty, data.count <= ImageFormat.longestPath else { throw .emptySymbolicLink }
      for byte in data where byte == 0 { throw .emptySymbolicLink }
    case FileType.directory, FileType.characterDevice, FileType.blockDevice, FileType.pipe, FileType.socket:
      guard data.isEmpty else { throw .unexpectedData }
    default: throw .invalidFileType
    }
  }

  /// A hard link names an earlier entry that is not itself a link and not a directory.
  private func checkHardLink(
    _ record: Record, data: UnsafeRawBufferPointer, index: Int
  ) throws(ImageError) {
    guard record.hardLinkIndex < UInt32(clamping: index), data.isEmpty else { throw .invalidHardLink }
    let target = Record(archive: archive, index: Int(record.hardLinkIndex))
    guard target.hardLinkIndex == ImageFormat.noHardLink, target.mode == record.mode,
      target.mode & FileType.mask != FileType.directory
    else { throw .invalidHardLink }
  }
}

/// Entry indices by path: open addressing, at most half full. The paths stay in the archive.
private struct PathTable {
  private var slots: [UInt32]
  private let mask: Int
  private static let empty: UInt32 = 0xffff_ffff

  init(capacity: Int) {
    var size = 16
    while size < capacity &* 2 { size &*= 2 }
    slots = [UInt32](repeating: PathTable.empty, count: size)
    mask = size &- 1
  }

  func index(of path: UnsafeRawBufferPointer, in check: ArchiveCheck) -> Int? {
    let found = slots[slot(of: path, in: check)]
    return found == PathTable.empty ? nil : Int(found)
  }

  /// False if the path is there already.
  mutating func insert(_ path: UnsafeRawBufferPointer, index: Int, in check: ArchiveCheck) -> Bool {
    let position = slot(of: path, in: check)
    guard slots[position] == PathTable.empty else { return false }
    slots[position] = UInt32(truncatingIfNeeded: index)
    return true
  }

  private func slot(of path: UnsafeRawBufferPointer, in check: ArchiveCheck) -> Int {
    var hash = Checksum()
    hash.add(path)
    // The low bits of FNV-1a are its weakest for short input: fold the high half in.
    var position = Int(truncatingIfNeeded: hash.value ^ (hash.value >> 32)) & mask
    while slots[position] != PathTable.empty {
      let record = Record(archive: check.archive, index: Int(slots[position]))
      if let other = record.path(in: check.paths), sameBytes(other, path) { break }
      position = (position &+ 1) & mask
    }
    return position
  }

  private func sameBytes(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool {
    guard left.count == right.count else { return false }
    for index in 0..<left.count where left[index] != right[index] { return false }
    return true
  }
}
