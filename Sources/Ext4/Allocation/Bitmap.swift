/// A view of a bitmap block: bit 0 is the lowest of the first byte; a set bit is in use.
struct Bitmap {
  let view: ByteView
  /// Bits that mean something.
  let count: Int

  func isSet(_ bit: Int) -> Bool { view.u8(bit >> 3) >> UInt8(bit & 7) & 1 != 0 }

  private func word(_ index: Int, _ held: [UInt64]?) -> UInt64 {
    let bits = view.u64(index &* 8)
    guard let held, index < held.count else { return bits }
    return bits | held[index]
  }

  /// The first free bit at `from` or later, before `end`.
  func firstFree(_ from: Int, _ held: [UInt64]?) -> Int? {
    var bit = from
    while bit < count {
      let free = ~word(bit >> 6, held) >> UInt64(bit & 63)
      if free != 0 {
        let found = bit + free.trailingZeroBitCount
        return found < count ? found : nil
      }
      bit = (bit | 63) + 1
    }
    return nil
  }

  /// Free bits from `from` on, `limit` at most.
  func freeRun(_ from: Int, _ limit: Int, _ held: [UInt64]?) -> Int {
    var bit = from
    let end = min(count, from + limit)
    while bit < end {
      let used = word(bit >> 6, held) >> UInt64(bit & 63)
      if used != 0 { return min(bit + used.trailingZeroBitCount, end) - from }
      bit = (bit | 63) + 1
    }
    return end - from
  }

  /// Sets or clears bits; false, having changed some, if one had that value already.
  func set(_ start: Int, _ length: Int, _ value: Bool) -> Bool {
    var bit = start
    let end = start + length
    while bit < end {
      if bit & 63 == 0, end - bit >= 64 {
        guard view.u64(bit >> 3) == (value ? 0 : ~0) else { return false }
        view.set64(bit >> 3, value ? ~0 : 0)
        bit += 64
        continue
      }
      let byte = view.u8(bit >> 3)
      let mask = UInt8(1) << UInt8(bit & 7)
      if (byte & mask != 0) == value { return false }
      view.set8(bit >> 3, byte ^ mask)
      bit += 1
    }
    return true
  }

  /// Marks everything past the meaningful bits as used, to the end of the block.
  func pad() {
    var bit = count
    while bit & 7 != 0 {
      view.set8(bit >> 3, view.u8(bit >> 3) | UInt8(1) << UInt8(bit & 7))
      bit += 1
    }
    for byte in (bit >> 3)..<view.count { view.set8(byte, 0xFF) }
  }
}
