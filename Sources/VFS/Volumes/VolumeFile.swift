import ABI
import Ext4
import Tasks

/// A regular file of a volume, through the page cache: reading, writing and mapping use the same frames.
///
/// Written pages stay in memory until they are written back (fsync, by timer, or when there are many), and get their
/// blocks only then; room for them is reserved before.
final class VolumeFile: VolumeInode {
  var pages = FilePages()
  var dirty = PageSet()
  /// Frames cut off while somebody maps the file.
  var retired: [UInt] = []
  /// Dirty pages that have no blocks yet.
  var unallocated = PageSet()
  /// Where the next sequential read would start, and how many pages it reads ahead.
  var nextRead = 0
  var window = 4
  /// Counts errors of writing back, so that each descriptor reports each of them once.
  var failures = 0
  var lastFailure: Errno?
  /// Pages that lie one after the other in the image, as they were found last: the first, how many, and their block.
  private var unchanged: (page: Int, count: Int, block: UInt64) = (0, 0, 0)

  deinit {
    Volume.cachedPages -= pages.count
    volume.countDirty(-dirty.count)
    volume.fileSystem.unreserve(blocks: unallocated.count * blocksPerPage)
    pages.remove(0..<VolumeFile.mostPages) { frames.free($0, 1) }
    for frame in retired { frames.free(frame, 1) }
  }

  static let mostPages = 1 << 32
  var blocksPerPage: Int { 4096 / volume.fileSystem.blockSize }
  var isDirty: Bool { dirty.count > 0 }
  /// What a program writes to a shared mapping is not seen: all pages count as changed then.
  var mayBeDirty: Bool { isDirty || isShared }

  override func currentStatus() -> FileStatus {
    var result = super.currentStatus()
    result.blocks += Int64(unallocated.count * 8)
    return result
  }

  override func open(flags: UInt32) throws(Errno) -> OpenFile {
    guard !volume.isReadOnly || flags & 3 == 0 else { throw .readOnlyFileSystem }
    return VolumeOpenFile(inode: self, flags: flags)
  }

  override func truncate(_ size: Int64) throws(Errno) { try resize(to: size) }
  override func allocate(mode: UInt32, offset: Int64, length: Int64) throws(Errno) {
    try allocateSpace(mode: mode, offset: offset, length: length)
  }
  override func synchronizeContents() throws(Errno) { try synchronize(dataOnly: true) }

  // MARK: The image

  /// Where page `index` and those that follow it lie in the image's file system, unchanged; nil if it does not.
  private func original(_ index: Int) -> (block: UInt64, count: Int)? {
    guard let image = volume.image else { return nil }
    if index < unchanged.page || index - unchanged.page >= unchanged.count { find(index, image) }
    let inside = index - unchanged.page
    guard inside >= 0, inside < unchanged.count else { return nil }
    return (unchanged.block + UInt64(inside), unchanged.count - inside)
  }

  private func find(_ index: Int, _ image: LayeredDisk) {
    unchanged.count = 0
    let end = Int((min(Int64(bitPattern: file.size), status.size) + 4095) >> 12)
    guard index >= 0, index < end,
      let mapping = try? volume.fileSystem.map(file, UInt32(truncatingIfNeeded: index)),
      mapping.state == .written
    else { return }
    var count = image.unchanged(from: mapping.physical, count: min(mapping.count, end - index))
    // A file that was cut has its old contents behind its end on the disk; programs must see zeros there.
    if count > 0, index + count == end,
      hasRest(image.original(mapping.physical + UInt64(count - 1)), from: Int(status.size & 4095))
    {
      count -= 1
    }
    unchanged = (index, count, mapping.physical)
  }

  private func hasRest(_ page: UnsafeRawPointer?, from start: Int) -> Bool {
    guard let page, start != 0 else { return false }
    for offset in start..<4096 where page.load(fromByteOffset: offset, as: UInt8.self) != 0 { return true }
    return false
  }

  /// The file's blocks changed: what was found in the image does not count.
  func forgetOriginal() { unchanged.count = 0 }

  override func imageOffset(page index: Int) -> UInt? {
    guard let image = volume.image, pages.count == 0 || pages.frame(index) == nil else { return nil }
    return original(index).map { image.place($0.block) }
  }

  // MARK: Pages

  override func frame(page index: Int) throws(Errno) -> UInt? {
    if let frame = pages.frame(index) { return frame }
    guard index >= 0, index < Int((status.size + 4095) >> 12) else { throw .noSuchDevice }
    return try fetch(index, ahead: 64)
  }

  /// Reads page `index`, which is not in memory, with up to `ahead` of those that follow.
  func fetch(_ index: Int, ahead: Int) throws(Errno) -> UInt {
    let end = max(index + 1, min(index + ahead, Int((status.size + 4095) >> 12)))
    var count = pages.next(from: index, below: end, hole: false) - index
    let first: UInt
    if count > 1, (try? MemoryLimit.check(count + 64)) != nil, let run = try? frames.allocate(count) {
      first = run
    } else {
      count = 1
      try volume.checkMemory(1)
      first = try frames.allocate(1)
    }
    let memory = UnsafeMutableRawBufferPointer(
      start: UnsafeMutableRawPointer(bitPattern: frames.base + first), count: count << 12)
    do throws(Errno) {
      // What lies past the end on the disk stays zero.
      _ = try volume.fileSystem.read(file, at: UInt64(index) << 12, into: memory)
    } catch {
      frames.free(first, count)
      throw error
    }
    volume.fileSystem.trim()
    for i in 0..<count { pages.set(index + i, first + UInt(i) << 12) }
    Volume.cachedPages += count
    return first
  }

  /// Pages from `page` on, before `end`, that are neither in memory nor on the disk: they read as zeros, and take no memory.
  private func zeroPages(_ page: Int, below end: Int) throws(Errno) -> Int {
    var count = end - page
    if UInt64(page) << 12 < file.size {
      let mapping = try volume.fileSystem.map(file, UInt32(truncatingIfNeeded: page * blocksPerPage))
      guard mapping.state != .written else { return 0 }
      count = min(count, mapping.count / blocksPerPage)
    }
    return pages.next(from: page, below: page + count, hole: false) - page
  }

  func release(_ frame: UInt) {
    Volume.cachedPages -= 1
    if mappings > 0 { retired.append(frame) } else { frames.free(frame, 1) }
  }

  /// Gives up pages that need not be written and nobody maps.
  func dropClean() {
    guard mappings == 0, !isShared, pages.count > dirty.count else { return }
    var page = 0
    while true {
      page = pages.next(from: page, below: VolumeFile.mostPages, hole: false)
      guard page < VolumeFile.mostPages else { return }
      if !dirty.contains(page) { pages.remove(page..<page + 1) { release($0) } }
      page += 1
      if pages.count == dirty.count { return }
    }
  }

  // MARK: Reading

  /// Copies to `slice` from `offset` on; 0 past the end.
  func read(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    guard offset < status.size else { return 0 }
    let count = min(slice.count, Int(status.size - offset))
    // Reading on where the last read ended reads ahead more and more.
    let first = Int(offset >> 12)
    window = first == nextRead || first + 1 == nextRead ? min(window * 2, 256) : 4
    nextRead = Int((offset + Int64(count) + 4095) >> 12)
    var done = 0
    while done < count {
      let position = Int(offset) + done
      let page = position >> 12
      let inside = position & 4095
      let frame: UInt
      do throws(Errno) {
        let needed = (inside + count - done + 4095) >> 12
        if let cached = pages.frame(page) {
          frame = cached
        } else if let found = original(page), let source = volume.image?.original(found.block) {
          // Up to the first page that is in memory, because it changed or somebody shares it.
          let end = pages.next(from: page, below: page + min(found.count, needed), hole: false)
          let length = min((end - page) << 12 - inside, count - done)
          try slice.dropFirst(done).copyOut(UnsafeRawBufferPointer(start: source + inside, count: length))
          done += length
          continue
        } else if case let zeros = try zeroPages(page, below: page + needed), zeros > 0 {
          let length = min(zeros << 12 - inside, count - done)
          try slice.dropFirst(done).clear(length)
          done += length
          continue
        } else {
          frame = try fetch(page, ahead: max(window, min(needed, 256)))
        }
      } catch {
        if done > 0 { return done }
        throw error
      }
      let length = min(pages.run(from: page, atMost: inside + count - done) - inside, count - done)
      let source = UnsafeRawPointer(bitPattern: frames.base + frame + UInt(inside))
      try slice.dropFirst(done).copyOut(UnsafeRawBufferPointer(start: source, count: length))
      done += length
    }
    return count
  }

  // MARK: Writing

  /// Copies from `slice`; EFBIG, ENOSPC, EROFS. As much as there is room for.
  func write(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    let count = try writable(slice.count, at: offset)
    guard count > 0 else { return 0 }
    var done = 0
    do throws(Errno) {
      while done < count {
        let position = Int(offset) + done
        let length = min(4096 - position & 4095, count - done)
        let frame = try writableFrame(position >> 12, isWhole: length == 4096)
        let target = UnsafeMutableRawPointer(bitPattern: frames.base + frame + UInt(position & 4095))
        try slice.dropFirst(done).copyIn(UnsafeMutableRawBufferPointer(start: target, count: length))
        done += length
        status.size = max(status.size, offset + Int64(done))
      }
    } catch {
      if done == 0 { throw error }
    }
    let now = host.realtimeNanoseconds
    status.modified = now
    status.changed = now
    volume.changed()
    if !volume.isVolatile, Volume.dirtyPages > Volume.mostDirtyPages { try? writeBack() }
    return done
  }

  /// How much of a write at `offset` may be done. EROFS; EFBIG past the longest file or RLIMIT_FSIZE.
  func writable(_ count: Int, at offset: Int64) throws(Errno) -> Int {
    guard !volume.isReadOnly else { throw .readOnlyFileSystem }
    guard count > 0 else { return 0 }
    let limit = min(Int64(volume.fileSystem.maximumFileSize), TemporaryFile.sizeLimit())
    guard offset < limit else { throw .fileTooLarge }
    return Int(min(Int64(count), limit - offset))
  }

  /// The frame of a page about to be written, marked dirty, with room reserved for it.
  private func writableFrame(_ page: Int, isWhole: Bool) throws(Errno) -> UInt {
    let frame: UInt
    if let cached = pages.frame(page) {
      frame = cached
    } else if isWhole || Int64(page) << 12 >= status.size {
      try volume.checkMemory(1)
      frame = try frames.allocate(1)
      pages.set(page, frame)
      Volume.cachedPages += 1
    } else {
      frame = try fetch(page, ahead: 1)
    }
    if !dirty.contains(page) {
      if try !isAllocated(page) {
        try volume.fileSystem.reserve(blocks: blocksPerPage)
        _ = unallocated.insert(page)
      }
      _ = dirty.insert(page)
      volume.countDirty(1)
    }
    return frame
  }

  private func isAllocated(_ page: Int) throws(Errno) -> Bool {
    let place = UInt64(page) << 12
    if place >= file.size { return false }
    let mapping = try volume.fileSystem.map(file, UInt32(truncatingIfNeeded: page * blocksPerPage))
    return mapping.state != .hole && mapping.count >= blocksPerPage
  }
}
