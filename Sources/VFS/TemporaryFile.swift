public import ABI
public import Tasks

/// A regular file of frames; a page without a frame reads as zeros. Kernel lock held.
public final class TemporaryFile: Inode {
  private var pages: [UInt] = []  // arena offset + 1, 0 for a hole
  private var frameCount = 0
  /// Frames cut off while somebody maps the file: they go with the file.
  private var retired: [UInt] = []

  deinit {
    for page in pages where page != 0 { frames.free(page - 1, 1) }
    for page in retired { frames.free(page, 1) }
  }

  public override func currentStatus() -> FileStatus {
    var result = status
    result.blocks = Int64(frameCount * 8)
    return result
  }

  public override func open(flags: UInt32) throws(Errno) -> OpenFile {
    RegularFile(inode: self, flags: flags)
  }

  /// Leave some frames to the libOS itself: its own allocations must not fail.
  private static let reserve = 256

  public override func frame(page index: Int) throws(Errno) -> UInt? {
    if index < pages.count, pages[index] != 0 { return pages[index] - 1 }
    try fill(index, 1)
    return pages[index] - 1
  }

  /// Gives frames to `count` pages from `index` on, adjacent where they can be.
  private func fill(_ index: Int, _ count: Int) throws(Errno) {
    while pages.count < index + count { pages.append(0) }
    var page = index
    while page < index + count {
      if pages[page] != 0 {
        page += 1
        continue
      }
      var run = 1
      while page + run < index + count, pages[page + run] == 0 { run += 1 }
      guard frames.freeFrames > run + TemporaryFile.reserve else { throw .noSpace }
      if let start = try? frames.allocate(run) {
        for i in 0..<run { pages[page + i] = start + UInt(i) << 12 + 1 }
      } else {
        run = 1
        guard let start = try? frames.allocate(1) else { throw .noSpace }
        pages[page] = start + 1
      }
      frameCount += run
      page += run
    }
  }

  /// Copies to `slice` from `offset` on; 0 past the end.
  public func read(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    guard offset < status.size else { return 0 }
    let count = min(slice.count, Int(status.size - offset))
    var done = 0
    while done < count {
      let position = Int(offset) + done
      let page = position >> 12
      let inPage = position & 4095
      let target = slice.dropFirst(done)
      if page < pages.count, pages[page] != 0 {
        // Adjacent frames are copied in one go.
        var length = 4096 - inPage
        var next = page + 1
        while length < count - done, next < pages.count, pages[next] == pages[next - 1] + 4096 {
          length += 4096
          next += 1
        }
        length = min(length, count - done)
        let source = UnsafeRawPointer(bitPattern: frames.base + pages[page] - 1 + UInt(inPage))
        try target.copyOut(UnsafeRawBufferPointer(start: source, count: length))
        done += length
      } else {
        let length = min(4096 - inPage, count - done)
        try target.clear(length)
        done += length
      }
    }
    return count
  }

  /// Copies from `slice`; EFBIG, ENOSPC.
  public func write(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    guard slice.count > 0 else { return 0 }
    guard offset >= 0, offset < 1 << 44 else { throw .fileTooLarge }
    let first = Int(offset) >> 12
    let last = (Int(offset) + slice.count - 1) >> 12
    try fill(first, last - first + 1)
    var done = 0
    while done < slice.count {
      let position = Int(offset) + done
      let page = position >> 12
      let length = min(4096 - position & 4095, slice.count - done)
      let target = UnsafeMutableRawPointer(bitPattern: frames.base + pages[page] - 1 + UInt(position & 4095))
      try slice.dropFirst(done).copyIn(UnsafeMutableRawBufferPointer(start: target, count: length))
      done += length
      status.size = max(status.size, offset + Int64(done))
    }
    let now = host.realtimeNanoseconds
    status.modified = now
    status.changed = now
    return done
  }

  public override func truncate(_ size: Int64) throws(Errno) {
    guard size >= 0 else { throw .invalid }
    guard size < 1 << 44 else { throw .fileTooLarge }
    if size < status.size {
      let keep = Int((size + 4095) >> 12)
      while pages.count > keep { drop(pages.removeLast()) }
      if size & 4095 != 0, keep <= pages.count, keep > 0, pages[keep - 1] != 0 {
        let start = Int(size & 4095)
        let address = frames.base + pages[keep - 1] - 1 + UInt(start)
        let tail = UnsafeMutableRawBufferPointer(
          start: UnsafeMutableRawPointer(bitPattern: address), count: 4096 - start)
        try UserSlice(kernel: tail).clear(4096 - start)
      }
    }
    status.size = size
    let now = host.realtimeNanoseconds
    status.modified = now
    status.changed = now
  }

  private func drop(_ page: UInt) {
    guard page != 0 else { return }
    frameCount -= 1
    if mappings > 0 { retired.append(page - 1) } else { frames.free(page - 1, 1) }
  }

  /// fallocate(2) modes 0, KEEP_SIZE, and PUNCH_HOLE|KEEP_SIZE.
  public func allocate(mode: UInt32, offset: Int64, length: Int64) throws(Errno) {
    guard offset >= 0, length > 0, offset + length < 1 << 44 else { throw .invalid }
    if mode & 2 != 0 {
      try zero(offset, min(length, max(0, status.size - offset)))
      return
    }
    guard mode & ~1 == 0 else { throw .notSupported }
    let first = Int(offset >> 12)
    try fill(first, Int((offset + length + 4095) >> 12) - first)
    if mode & 1 == 0 { status.size = max(status.size, offset + length) }
  }

  private func zero(_ offset: Int64, _ length: Int64) throws(Errno) {
    var position = Int(offset)
    let end = position + Int(length)
    while position < end {
      let page = position >> 12
      let count = min(4096 - position & 4095, end - position)
      if page < pages.count, pages[page] != 0 {
        let address = frames.base + pages[page] - 1 + UInt(position & 4095)
        let part = UnsafeMutableRawBufferPointer(
          start: UnsafeMutableRawPointer(bitPattern: address), count: count)
        try UserSlice(kernel: part).clear(count)
      }
      position += count
    }
  }
}

/// A regular file in use.
public final class RegularFile: OpenFile {
  public let file: TemporaryFile

  init(inode: TemporaryFile, flags: UInt32) {
    file = inode
    super.init(inode: inode, flags: flags)
  }

  public override func read(_ slice: UserSlice) throws(Errno) -> Int {
    let count = try file.read(slice, at: offset)
    offset += Int64(count)
    return count
  }

  public override func write(_ slice: UserSlice) throws(Errno) -> Int {
    if flags & 0o2000 != 0 { offset = file.status.size }
    let count = try file.write(slice, at: offset)
    offset += Int64(count)
    return count
  }

  public override func read(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    guard offset >= 0 else { throw .invalid }
    return try file.read(slice, at: offset)
  }

  public override func write(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    guard offset >= 0 else { throw .invalid }
    return try file.write(slice, at: flags & 0o2000 != 0 ? file.status.size : offset)
  }

  public override func seek(_ offset: Int64, whence: Int32) throws(Errno) -> Int64 {
    let base: Int64
    switch whence {
    case 0: base = 0
    case 1: base = self.offset
    case 2: base = file.status.size
    case 3, 4:  // SEEK_DATA, SEEK_HOLE: all data up to the end
      guard offset >= 0, offset < file.status.size else { throw .noSuchDevice }
      self.offset = whence == 3 ? offset : file.status.size
      return self.offset
    default: throw .invalid
    }
    let (place, overflow) = base.addingReportingOverflow(offset)
    guard !overflow, place >= 0 else { throw .invalid }
    self.offset = place
    return place
  }

  public override func synchronize() throws(Errno) {}
}
