/// A seeded generator (SplitMix64): the same seed gives the same run, so that every test can be repeated.
public struct RandomSource: Sendable {
  private var state: UInt64

  public init(seed: UInt64) { state = seed }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    return mixed(state)
  }

  /// A number below `bound`, which is above zero.
  public mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
}

/// Spreads every input bit over the whole word.
@inline(__always)
func mixed(_ value: UInt64) -> UInt64 {
  var word = value
  word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
  word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
  return word ^ (word >> 31)
}
