/// A set of a file's pages, 64 to a word. Kernel lock held.
struct PageSet {
  private var words: [Int: UInt64] = [:]
  private(set) var count = 0

  func contains(_ page: Int) -> Bool { (words[page >> 6] ?? 0) >> UInt64(page & 63) & 1 != 0 }

  /// False if it was there already.
  mutating func insert(_ page: Int) -> Bool {
    let bit = UInt64(1) << UInt64(page & 63)
    let word = words[page >> 6] ?? 0
    guard word & bit == 0 else { return false }
    words[page >> 6] = word | bit
    count += 1
    return true
  }

  /// False if it was not there.
  mutating func remove(_ page: Int) -> Bool {
    let bit = UInt64(1) << UInt64(page & 63)
    guard let word = words[page >> 6], word & bit != 0 else { return false }
    words[page >> 6] = word == bit ? nil : word & ~bit
    count -= 1
    return true
  }

  /// All pages, ascending.
  var pages: [Int] {
    var result: [Int] = []
    result.reserveCapacity(count)
    for key in words.keys.sorted() {
      var word = words[key] ?? 0
      while word != 0 {
        result.append(key << 6 + word.trailingZeroBitCount)
        word &= word - 1
      }
    }
    return result
  }
}
