/// Which frame holds which page of a file, sparse: a file may be huge and almost empty. Kernel lock held.
struct FilePages {
  static let pagesPerChunk = 256

  /// 256 pages; an entry is a frame's number + 1, 0 for a hole.
  final class Chunk {
    var frames: [256 of UInt32] = .init(repeating: 0)
    var count = 0
  }

  private var chunks: [Int: Chunk] = [:]
  // Neighbours are asked for one after the other.
  private var lastIndex = -1
  private var lastChunk: Chunk?

  /// Pages that have a frame.
  private(set) var count = 0

  /// The arena offset of the page's frame.
  mutating func frame(_ page: Int) -> UInt? {
    guard let chunk = chunk(page >> 8) else { return nil }
    let entry = chunk.frames[page & 255]
    return entry == 0 ? nil : UInt(entry - 1) << 12
  }

  private mutating func chunk(_ index: Int) -> Chunk? {
    if index == lastIndex { return lastChunk }
    guard let chunk = chunks[index] else { return nil }
    lastIndex = index
    lastChunk = chunk
    return chunk
  }

  /// Bytes of the pages from `page` on, which has a frame, that lie one after the other in memory: whole pages, up to the one
  /// in which `bytes` are reached.
  mutating func run(from page: Int, atMost bytes: Int) -> Int {
    guard let first = frame(page) else { return 0 }
    var count = 1
    while count << 12 < bytes, frame(page + count) == first + UInt(count) << 12 { count += 1 }
    return count << 12
  }

  /// The page must have none.
  mutating func set(_ page: Int, _ offset: UInt) {
    let index = page >> 8
    let chunk = chunk(index) ?? Chunk()
    if chunk.count == 0 {
      chunks[index] = chunk
      lastIndex = index
      lastChunk = chunk
    }
    chunk.frames[page & 255] = UInt32(truncatingIfNeeded: offset >> 12) + 1
    chunk.count += 1
    count += 1
  }

  /// Takes the pages of `range` out and hands their frames to `release`.
  mutating func remove(_ range: Range<Int>, _ release: (UInt) -> Void) {
    guard !range.isEmpty else { return }
    var indices: [Int] = []
    if range.count >> 8 < chunks.count {
      for index in range.lowerBound >> 8...(range.upperBound - 1) >> 8 where chunks[index] != nil {
        indices.append(index)
      }
    } else {
      for index in chunks.keys
      where index >= range.lowerBound >> 8 && index <= (range.upperBound - 1) >> 8 {
        indices.append(index)
      }
    }
    for index in indices {
      guard let chunk = chunks[index] else { continue }
      let first = max(range.lowerBound, index << 8)
      let end = min(range.upperBound, (index + 1) << 8)
      for page in first..<end where chunk.frames[page & 255] != 0 {
        release(UInt(chunk.frames[page & 255] - 1) << 12)
        chunk.frames[page & 255] = 0
        chunk.count -= 1
        count -= 1
      }
      if chunk.count == 0 {
        chunks[index] = nil
        lastIndex = -1
        lastChunk = nil
      }
    }
  }

  /// The first page from `page` on that has a frame (or, with `hole`, has none), below `end`; `end` if there is none.
  mutating func next(from page: Int, below end: Int, hole: Bool) -> Int {
    var at = page
    while at < end {
      guard let chunk = chunk(at >> 8) else {
        if hole { return at }
        at = ((at >> 8) + 1) << 8
        if chunks.isEmpty { return end }
        continue
      }
      if (chunk.frames[at & 255] == 0) == hole { return at }
      at += 1
    }
    return end
  }
}
