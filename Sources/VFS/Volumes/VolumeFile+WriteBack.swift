import ABI
import Ext4
import Tasks

extension VolumeFile {
  /// Writes all dirty pages to the device; not for volatile volumes, where they are where they belong. What fails is dropped, as Linux does, and told by `synchronize` of every
  /// descriptor.
  func writeBack() throws(Errno) {
    markShared()
    guard isDirty else { return }
    forgetOriginal()
    let list = dirty.pages
    var failure: Errno?
    var index = 0
    while index < list.count {
      // Pages that follow each other in the file and in memory are written together, 1 MiB at most.
      var count = 1
      let first = pages.frame(list[index]) ?? 0
      while index + count < list.count, count < 256, list[index + count] == list[index] + count,
        pages.frame(list[index + count]) == first + UInt(count) << 12
      {
        count += 1
      }
      do throws(Errno) {
        try write(list[index], count, first)
      } catch {
        failure = failure ?? error
      }
      for page in list[index]..<(list[index] + count) { clean(page) }
      index += count
    }
    var attributes = AttributeChange()
    attributes.modified = status.modified
    attributes.changed = status.changed
    do throws(Errno) {
      try volume.fileSystem.setAttributes(file, attributes)
    } catch {
      failure = failure ?? error
    }
    guard let failure else { return }
    failures += 1
    lastFailure = failure
    throw failure
  }

  /// Pages that a shared mapping may have changed.
  private func markShared() {
    guard isShared else { return }
    let end = Int((status.size + 4095) >> 12)
    var page = 0
    while true {
      page = pages.next(from: page, below: end, hole: false)
      guard page < end else { break }
      if dirty.insert(page) { volume.countDirty(1) }
      page += 1
    }
    if mappings == 0 { isShared = false }
    status.modified = host.realtimeNanoseconds
  }

  private func write(_ page: Int, _ count: Int, _ frame: UInt) throws(Errno) {
    let offset = Int64(page) << 12
    let length = min(Int64(count) << 12, status.size - offset)
    guard length > 0, frame != 0 else { return }
    // The reservation is used up by what is allocated now.
    for index in page..<(page + count) where unallocated.remove(index) {
      volume.fileSystem.unreserve(blocks: blocksPerPage)
    }
    let source = UnsafeRawPointer(bitPattern: frames.base + frame)
    try volume.fileSystem.write(
      file, at: UInt64(offset), UnsafeRawBufferPointer(start: source, count: Int(length)))
  }

  private func clean(_ page: Int) {
    if dirty.remove(page) { volume.countDirty(-1) }
    if unallocated.remove(page) { volume.fileSystem.unreserve(blocks: blocksPerPage) }
  }

  /// fsync(2) and fdatasync(2).
  func synchronize(dataOnly: Bool) throws(Errno) {
    guard !volume.isReadOnly, !volume.isVolatile else { return }
    try writeBack()
    do throws(Errno) {
      try volume.fileSystem.synchronize(file, dataOnly: dataOnly)
    } catch {
      failures += 1
      lastFailure = error
      throw error
    }
  }

  // MARK: Size and space

  func resize(to size: Int64) throws(Errno) {
    guard size >= 0 else { throw .invalid }
    guard !volume.isReadOnly else { throw .readOnlyFileSystem }
    if size > status.size, size > min(Int64(volume.fileSystem.maximumFileSize), TemporaryFile.sizeLimit()) {
      throw .fileTooLarge
    }
    let isResized = size != status.size
    forgetOriginal()
    try volume.fileSystem.truncate(file, to: UInt64(size))
    if size < status.size { cutPages(size) }
    status.size = size
    status.modified = file.modified
    status.changed = file.changed
    volume.changed()
    if isResized, mappings > 0 { Inode.wasTruncated?(self) }
  }

  private func cutPages(_ size: Int64) {
    let keep = Int((size + 4095) >> 12)
    for page in dirty.pages where page >= keep { clean(page) }
    pages.remove(keep..<VolumeFile.mostPages) { release($0) }
    if size & 4095 != 0, let frame = pages.frame(keep - 1) { clearFrame(frame, Int(size & 4095), 4096) }
  }

  private func clearFrame(_ frame: UInt, _ start: Int, _ end: Int) {
    let part = UnsafeMutableRawBufferPointer(
      start: UnsafeMutableRawPointer(bitPattern: frames.base + frame + UInt(start)), count: end - start)
    try? UserSlice(kernel: part).clear(end - start)
  }

  /// fallocate(2) modes 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE and ZERO_RANGE with or without KEEP_SIZE.
  func allocateSpace(mode: UInt32, offset: Int64, length: Int64) throws(Errno) {
    guard !volume.isReadOnly else { throw .readOnlyFileSystem }
    guard offset >= 0, length > 0 else { throw .invalid }
    let limit = min(Int64(volume.fileSystem.maximumFileSize), TemporaryFile.sizeLimit())
    guard offset <= limit, length <= limit - offset else { throw .fileTooLarge }
    let end = offset + length
    let keepsSize = mode & 1 != 0
    let kind: AllocationMode
    switch mode {
    case 0, 1: kind = .allocate(keepSize: keepsSize)
    case 3: kind = .punchHole
    case 0x10, 0x11: kind = .zero(keepSize: keepsSize)
    default: throw .notSupported
    }
    forgetOriginal()
    // The library must know the size; and no dirty page may wait for blocks that it gives.
    if volume.isVolatile {
      if file.size < UInt64(status.size) { try volume.fileSystem.truncate(file, to: UInt64(status.size)) }
      if mode & ~1 == 0 { try volume.checkMemory(Int(length >> 12)) }
    } else {
      try writeBack()
    }
    try volume.fileSystem.allocate(file, offset: UInt64(offset), length: UInt64(length), kind)
    for page in unallocated.pages
    where Int64(page) << 12 < end && Int64(page + 1) << 12 > offset && mode & 2 == 0 {
      _ = unallocated.remove(page)
      volume.fileSystem.unreserve(blocks: blocksPerPage)
    }
    if mode & ~1 != 0 { clearPages(Int(offset), Int(min(end, max(offset, status.size)))) }
    if !keepsSize { status.size = max(status.size, end) }
    refresh()
    volume.changed()
  }

  /// Takes the pages of a range out, where nobody maps them, and clears the others and parts of pages.
  private func clearPages(_ start: Int, _ end: Int) {
    let whole = (start + 4095) >> 12..<max((start + 4095) >> 12, end >> 12)
    if mappings == 0 {
      for page in dirty.pages where whole.contains(page) { clean(page) }
      pages.remove(whole) { release($0) }
    }
    var page = start >> 12
    while page << 12 < end {
      page = pages.next(from: page, below: (end + 4095) >> 12, hole: false)
      guard page << 12 < end, let frame = pages.frame(page) else { return }
      clearFrame(frame, max(start - page << 12, 0), min(end - page << 12, 4096))
      page += 1
    }
  }

  /// SEEK_DATA and SEEK_HOLE of lseek(2). Pages that wait to be written are data, whatever the disk says.
  func seek(hole: Bool, from offset: Int64) throws(Errno) -> Int64 {
    guard offset >= 0, offset < status.size else { throw .noSuchDevice }
    let size = Int64(volume.fileSystem.blockSize)
    var block = offset / size
    while block * size < status.size {
      let page = Int(block * size >> 12)
      let (isData, count) = try kind(ofBlock: block, page)
      if isData != hole { return max(offset, block * size) }
      block += count
    }
    if hole { return status.size }
    throw .noSuchDevice
  }

  /// Whether a block of the page is data, and how many blocks from there on are alike, at least.
  private func kind(ofBlock block: Int64, _ page: Int) throws(Errno) -> (Bool, Int64) {
    let perPage = Int64(blocksPerPage)
    if dirty.contains(page) { return (true, Int64(page + 1) * perPage - block) }
    // Somebody may have written to it through a mapping.
    if isShared, let frame = pages.frame(page), !isZero(frame) {
      return (true, Int64(page + 1) * perPage - block)
    }
    let mapping = try volume.fileSystem.map(file, UInt32(truncatingIfNeeded: block))
    if mapping.state == .written { return (true, Int64(mapping.count)) }
    let end = Int((block + Int64(mapping.count) + perPage - 1) / perPage)
    let next = pages.next(from: page + 1, below: max(page + 1, end), hole: false)
    return (false, max(1, min(Int64(mapping.count), Int64(next) * perPage - block)))
  }

  private func isZero(_ frame: UInt) -> Bool {
    guard let page = UnsafePointer<UInt64>(bitPattern: frames.base + frame) else { return true }
    for word in 0..<512 where page[word] != 0 { return false }
    return true
  }
}
