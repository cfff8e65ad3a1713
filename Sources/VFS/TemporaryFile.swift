public import ABI
public import Tasks

/// A regular file of frames; a page without a frame reads as zeros. Kernel lock held.
public final class TemporaryFile: Inode {
  private var pages = FilePages()
  /// Frames cut off while somebody maps the file: they go with the file.
  private var retired: [UInt] = []
  /// F_SEAL_ bits (fcntl(2)): only files of memfd_create(2) that allow it have others than F_SEAL_SEAL.
  public var seals: UInt32 = 1
  /// The longest file: MAX_LFS_FILESIZE is more, but nothing needs it.
  public static let longest: Int64 = 1 << 44
  /// RLIMIT_FSIZE of who writes, in bytes; set by the libOS's processes.
  nonisolated(unsafe) public static var sizeLimit: () -> Int64 = { longest }

  deinit {
    pages.remove(0..<Int(TemporaryFile.longest >> 12)) { frames.free($0, 1) }
    for page in retired { frames.free(page, 1) }
  }

  public override func currentStatus() -> FileStatus {
    var result = status
    result.blocks = Int64(pages.count * 8)
    return result
  }

  public override func open(flags: UInt32) throws(Errno) -> OpenFile {
    RegularFile(inode: self, flags: flags)
  }

  public override func frame(page index: Int) throws(Errno) -> UInt? {
    if let frame = pages.frame(index) { return frame }
    guard index < Int(TemporaryFile.longest >> 12), fill(index, 1) == 1 else { throw .noSpace }
    return pages.frame(index)
  }

  /// Gives frames to `count` pages from `index` on, adjacent where they can be; how many pages have one then, counted
  /// from `index` up to the first that could get none.
  private func fill(_ index: Int, _ count: Int) -> Int {
    var page = index
    while page < index + count {
      page = pages.next(from: page, below: index + count, hole: true)
      guard page < index + count else { break }
      var run = min(pages.next(from: page, below: index + count, hole: false) - page, 4096)
      if (try? MemoryLimit.check(run)) == nil {
        run = 1
        guard (try? MemoryLimit.check(1)) != nil else { return page - index }
      }
      if let start = try? frames.allocate(run) {
        for i in 0..<run { pages.set(page + i, start + UInt(i) << 12) }
      } else {
        run = 1
        guard let start = try? frames.allocate(1) else { return page - index }
        pages.set(page, start)
      }
      page += run
    }
    return count
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
      if let frame = pages.frame(page) {
        let length = min(pages.run(from: page, atMost: inPage + count - done) - inPage, count - done)
        let source = UnsafeRawPointer(bitPattern: frames.base + frame + UInt(inPage))
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

  /// How much of a write at `offset` may be done. EFBIG past the longest file, or past RLIMIT_FSIZE (which raises
  /// SIGXFSZ besides: setrlimit(2)).
  private func allowed(_ count: Int, at offset: Int64) throws(Errno) -> Int {
    let limit = min(TemporaryFile.longest, TemporaryFile.sizeLimit())
    if seals & 0x18 != 0 { throw .notPermitted }
    if seals & 4 != 0, offset + Int64(min(count, 1 << 40)) > status.size { throw .notPermitted }
    guard offset >= 0, offset < limit else { throw .fileTooLarge }
    return Int(min(Int64(count), limit - offset))
  }

  /// Copies from `slice`; EFBIG, ENOSPC. As much as there is room for.
  public func write(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    guard slice.count > 0 else { return 0 }
    let wanted = try allowed(slice.count, at: offset)
    let first = Int(offset) >> 12
    let last = (Int(offset) + wanted - 1) >> 12
    let filled = fill(first, last - first + 1)
    guard filled > 0 else { throw .noSpace }
    let count = min(wanted, filled << 12 - Int(offset) & 4095)
    var done = 0
    while done < count {
      let position = Int(offset) + done
      let length = min(4096 - position & 4095, count - done)
      guard let frame = pages.frame(position >> 12) else { throw .inputOutput }
      let target = UnsafeMutableRawPointer(bitPattern: frames.base + frame + UInt(position & 4095))
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
    if size > status.size, size > min(TemporaryFile.longest, TemporaryFile.sizeLimit()) {
      throw .fileTooLarge
    }
    guard seals & (size < status.size ? 2 : 0) == 0, seals & (size > status.size ? 4 : 0) == 0 else {
      throw .notPermitted
    }
    let isResized = size != status.size
    if size < status.size {
      let keep = Int((size + 4095) >> 12)
      pages.remove(keep..<Int(TemporaryFile.longest >> 12)) { drop($0) }
      if size & 4095 != 0, let frame = pages.frame(keep - 1) {
        let start = Int(size & 4095)
        let tail = UnsafeMutableRawBufferPointer(
          start: UnsafeMutableRawPointer(bitPattern: frames.base + frame + UInt(start)), count: 4096 - start)
        try UserSlice(kernel: tail).clear(4096 - start)
      }
    }
    status.size = size
    let now = host.realtimeNanoseconds
    status.modified = now
    status.changed = now
    if isResized, mappings > 0 { Inode.wasTruncated?(self) }
  }

  private func drop(_ frame: UInt) {
    if mappings > 0 { retired.append(frame) } else { frames.free(frame, 1) }
  }

  /// fallocate(2) modes 0, KEEP_SIZE, and PUNCH_HOLE|KEEP_SIZE.
  public override func allocate(mode: UInt32, offset: Int64, length: Int64) throws(Errno) {
    guard offset >= 0, length > 0 else { throw .invalid }
    guard offset <= TemporaryFile.longest, length <= TemporaryFile.longest - offset else {
      throw .fileTooLarge
    }
    if mode & 2 != 0 {
      if seals & 0x18 != 0 { throw .notPermitted }
      try zero(offset, min(length, max(0, status.size - offset)))
      return
    }
    guard mode & ~1 == 0 else { throw .notSupported }
    let first = Int(offset >> 12)
    if mode & 1 == 0, offset + length > status.size {
      guard try allowed(Int(length), at: offset) == Int(length) else { throw .fileTooLarge }
    }
    let count = Int((offset + length + 4095) >> 12) - first
    guard (try? MemoryLimit.check(count - pages.count)) != nil, fill(first, count) == count else {
      throw .noSpace
    }
    if mode & 1 == 0 { status.size = max(status.size, offset + length) }
  }

  /// Whole pages that nobody maps are given back, the others cleared.
  private func zero(_ offset: Int64, _ length: Int64) throws(Errno) {
    guard length > 0 else { return }
    let end = Int(offset) + Int(length)
    let whole = (Int(offset) + 4095) >> 12..<max((Int(offset) + 4095) >> 12, end >> 12)
    if mappings == 0 { pages.remove(whole) { frames.free($0, 1) } }
    var page = Int(offset) >> 12
    while page << 12 < end {
      page = pages.next(from: page, below: (end + 4095) >> 12, hole: false)
      guard page << 12 < end, let frame = pages.frame(page) else { return }
      let start = max(page << 12, Int(offset))
      let count = min((page + 1) << 12, end) - start
      let part = UnsafeMutableRawBufferPointer(
        start: UnsafeMutableRawPointer(bitPattern: frames.base + frame + UInt(start & 4095)), count: count)
      try UserSlice(kernel: part).clear(count)
      page += 1
    }
  }

  /// SEEK_DATA and SEEK_HOLE (lseek(2)): the next page with a frame, or without one. ENXIO.
  func seek(hole: Bool, from offset: Int64) throws(Errno) -> Int64 {
    guard offset >= 0, offset < status.size else { throw .noSuchDevice }
    let end = Int((status.size + 4095) >> 12)
    let start = Int(offset >> 12)
    let page = pages.next(from: start, below: end, hole: hole)
    if page == end {
      guard hole else { throw .noSuchDevice }
      return status.size
    }
    return min(max(offset, Int64(page) << 12), status.size)
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
    advance(by: try file.read(slice, at: offset))
  }

  public override func write(_ slice: UserSlice) throws(Errno) -> Int {
    if flags & 0o2000 != 0 { offset = file.status.size }
    return advance(by: try file.write(slice, at: offset))
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
    guard whence == 3 || whence == 4 else { return try move(offset, whence, end: file.status.size) }
    // SEEK_DATA, SEEK_HOLE
    self.offset = try file.seek(hole: whence == 4, from: offset)
    return self.offset
  }

  public override func synchronize() throws(Errno) {}
}
