/// Disjoint stretches of sequence space in order, merged when they touch, at most `limit` of them.
struct RangeList {
  private(set) var ranges: [SequenceRange] = []
  private(set) var total = 0
  let limit: Int

  init(limit: Int) { self.limit = limit }

  var isEmpty: Bool { ranges.isEmpty }

  mutating func removeAll() {
    ranges.removeAll(keepingCapacity: true)
    total = 0
  }

  /// Adds a stretch; false when there are too many pieces to remember one more.
  @discardableResult
  mutating func insert(_ new: SequenceRange) -> Bool {
    guard isBefore(new.start, new.end) else { return true }
    var merged = new
    var first = 0
    while first < ranges.count, isBefore(ranges[first].end, merged.start) { first += 1 }
    var last = first
    while last < ranges.count, isAtMost(ranges[last].start, merged.end) {
      merged.start = earlier(merged.start, ranges[last].start)
      merged.end = later(merged.end, ranges[last].end)
      total -= ranges[last].count
      last += 1
    }
    if first == last, ranges.count >= limit { return false }
    if first < last {
      ranges[first] = merged
      if last > first + 1 { ranges.removeSubrange((first + 1)..<last) }
    } else {
      ranges.insert(merged, at: first)
    }
    total += merged.count
    return true
  }

  /// Forgets everything before `edge`.
  mutating func removeBefore(_ edge: UInt32) {
    var gone = 0
    while gone < ranges.count, isAtMost(ranges[gone].end, edge) {
      total -= ranges[gone].count
      gone += 1
    }
    if gone > 0 { ranges.removeSubrange(0..<gone) }
    if let first = ranges.first, isBefore(first.start, edge) {
      total -= Int(edge &- first.start)
      ranges[0].start = edge
    }
  }

  /// The first stretch at or after `from` and before `limit` that is not in the list.
  func gap(from: UInt32, upTo limit: UInt32) -> SequenceRange? {
    var start = from
    for range in ranges {
      if isBefore(start, range.start) {
        let end = earlier(range.start, limit)
        return isBefore(start, end) ? SequenceRange(start: start, end: end) : nil
      }
      if isBefore(start, range.end) { start = range.end }
    }
    return isBefore(start, limit) ? SequenceRange(start: start, end: limit) : nil
  }

  /// Bytes in the list between two points.
  func covered(_ start: UInt32, _ end: UInt32) -> Int {
    guard isBefore(start, end) else { return 0 }
    var sum = 0
    for range in ranges {
      let low = later(range.start, start)
      let high = earlier(range.end, end)
      if isBefore(low, high) { sum += Int(high &- low) }
    }
    return sum
  }

  /// The end of the highest stretch below which more than `bytes` listed bytes lie above (RFC 6675 IsLost).
  func edge(withMoreAbove bytes: Int) -> UInt32? {
    var sum = 0
    for range in ranges.reversed() {
      sum += range.count
      if sum > bytes { return range.start }
    }
    return nil
  }
}
