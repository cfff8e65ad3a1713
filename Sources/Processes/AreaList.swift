/// Areas in order of address, with a gap where the last change was: programs map next to what they mapped last, and
/// tens of thousands of areas must not be moved for each. Its memory grows by the caller's leave (`isFull`).
public struct AreaList: RandomAccessCollection {
  private var below: [VirtualMemoryArea] = []
  private var above: [VirtualMemoryArea] = []  // last one first

  public init() {}

  public var startIndex: Int { 0 }
  public var endIndex: Int { below.count + above.count }

  /// Another area makes an array grow to twice its size.
  var isFull: Bool { below.count == below.capacity || above.count == above.capacity }

  public subscript(index: Int) -> VirtualMemoryArea {
    get { index < below.count ? below[index] : above[above.count - 1 - (index - below.count)] }
    set {
      if index < below.count {
        below[index] = newValue
      } else {
        above[above.count - 1 - (index - below.count)] = newValue
      }
    }
  }

  /// The area's first address and the one behind its last; without a copy of all of it.
  @inline(__always)
  func bounds(_ index: Int) -> (start: UInt, end: UInt) {
    if index < below.count { return (below[index].start, below[index].end) }
    let place = above.count - 1 - (index - below.count)
    return (above[place].start, above[place].end)
  }

  private mutating func moveGap(to index: Int) {
    while below.count > index { above.append(below.removeLast()) }
    while below.count < index, let area = above.popLast() { below.append(area) }
  }

  mutating func insert(_ area: VirtualMemoryArea, at index: Int) {
    moveGap(to: index)
    below.append(area)
  }

  mutating func remove(_ range: Range<Int>) {
    guard !range.isEmpty else { return }
    moveGap(to: range.upperBound)
    below.removeLast(range.count)
  }
}
