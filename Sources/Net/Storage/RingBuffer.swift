/// A byte queue in a ring that grows by doubling up to a limit. The owner calls `deallocate` once.
struct RingBuffer {
  private var storage: UnsafeMutableRawPointer?
  private(set) var capacity = 0
  private var head = 0
  private(set) var count = 0
  /// The most bytes the queue may hold.
  var limit: Int

  private static let smallest = 4096

  init(limit: Int) { self.limit = limit }

  mutating func deallocate() {
    storage?.deallocate()
    storage = nil
    capacity = 0
    head = 0
    count = 0
  }

  var space: Int { max(0, limit - count) }

  /// Makes room for `needed` bytes in all; `live` bytes from the head (ordered or not) are kept.
  private mutating func grow(to needed: Int, keeping live: Int) {
    var target = max(capacity, Self.smallest)
    while target < needed { target *= 2 }
    guard target > capacity else { return }
    let bigger = UnsafeMutableRawPointer.allocate(byteCount: target, alignment: 16)
    if let storage {
      let first = min(live, capacity - head)
      bigger.copyMemory(from: storage + head, byteCount: first)
      (bigger + first).copyMemory(from: storage, byteCount: live - first)
      storage.deallocate()
    }
    storage = bigger
    capacity = target
    head = 0
  }

  /// Free bytes in one piece after the queued ones, or an empty region at the limit.
  mutating func writableRegion() -> UnsafeMutableRawBufferPointer {
    guard space > 0 else { return UnsafeMutableRawBufferPointer(start: nil, count: 0) }
    if count == capacity { grow(to: min(limit, max(count * 2, Self.smallest)), keeping: count) }
    guard let storage else { return UnsafeMutableRawBufferPointer(start: nil, count: 0) }
    if count == 0 { head = 0 }
    let tail = (head + count) & (capacity - 1)
    let run = tail >= head || count == 0 ? capacity - tail : head - tail
    return UnsafeMutableRawBufferPointer(start: storage + tail, count: min(run, space))
  }

  /// Counts bytes written by `writableRegion` or `write(_:at:)` as queued.
  mutating func extend(_ added: Int) { count = min(count + added, capacity) }

  /// Queued bytes from `offset` on, in one piece.
  func readableRegion(_ offset: Int = 0) -> UnsafeRawBufferPointer {
    guard let storage, offset >= 0, offset < count else {
      return UnsafeRawBufferPointer(start: nil, count: 0)
    }
    let start = (head + offset) & (capacity - 1)
    return UnsafeRawBufferPointer(start: storage + start, count: min(count - offset, capacity - start))
  }

  mutating func consume(_ removed: Int) {
    let taken = min(removed, count)
    count -= taken
    head = capacity == 0 ? 0 : (head + taken) & (capacity - 1)
  }

  /// Stores bytes `offset` after the head, inside or beyond the queued ones; `live` is the end of what is kept.
  mutating func write(_ bytes: UnsafeRawBufferPointer, at offset: Int, live: Int) {
    let end = offset + bytes.count
    if end > capacity { grow(to: end, keeping: min(max(live, count), capacity)) }
    guard let storage, let source = bytes.baseAddress else { return }
    let start = (head + offset) & (capacity - 1)
    let first = min(bytes.count, capacity - start)
    (storage + start).copyMemory(from: source, byteCount: first)
    storage.copyMemory(from: source + first, byteCount: bytes.count - first)
  }

  /// Copies queued bytes out; the caller has checked that they exist.
  func copy(from offset: Int, _ length: Int, to target: UnsafeMutableRawPointer) {
    guard let storage, length > 0 else { return }
    let start = (head + offset) & (capacity - 1)
    let first = min(length, capacity - start)
    target.copyMemory(from: storage + start, byteCount: first)
    (target + first).copyMemory(from: storage, byteCount: length - first)
  }
}
