/// A generator of random bytes: ChaCha20 (RFC 8439, 2.3) with fast key erasure. What it has given out cannot be found
/// from its state, and a seed that somebody knows does no harm to one that nobody knows.
public struct RandomGenerator {
  private var key: [8 of UInt32] = .init(repeating: 0)
  private var pool: [64 of UInt32] = .init(repeating: 0)
  /// Bytes of the pool that have been given out; the first 32 became the key.
  private var used = 256

  public init() {}

  /// Mixes what `seed` holds into the state.
  public mutating func add(_ seed: UnsafeRawBufferPointer) {
    var at = 0
    repeat {
      let count = min(32, seed.count - at)
      for i in 0..<count { key[i >> 2] ^= UInt32(seed[at + i]) << UInt32(8 * (i & 3)) }
      // The length too, so that a seed differs from its own beginning.
      key[7] ^= UInt32(truncatingIfNeeded: count) << 24
      refill()
      at += count
    } while at < seed.count
  }

  public mutating func fill(_ bytes: UnsafeMutableRawBufferPointer) {
    for i in 0..<bytes.count {
      if used == 256 { refill() }
      bytes[i] = UInt8(truncatingIfNeeded: pool[used >> 2] >> UInt32(8 * (used & 3)))
      pool[used >> 2] &= ~(0xff << UInt32(8 * (used & 3)))
      used += 1
    }
  }

  /// Four blocks: the first half block is the next key.
  private mutating func refill() {
    for counter in 0..<4 {
      let block = ChaCha20.block(key: key, counter: UInt32(counter), nonce: .init(repeating: 0))
      for i in 0..<16 { pool[16 * counter + i] = block[i] }
    }
    for i in 0..<8 {
      key[i] = pool[i]
      pool[i] = 0
    }
    used = 32
  }
}

/// The ChaCha20 block function (RFC 8439, 2.3).
public enum ChaCha20 {
  public static func block(key: [8 of UInt32], counter: UInt32, nonce: [3 of UInt32]) -> [16 of UInt32] {
    var state: [16 of UInt32] = .init(repeating: 0)
    (state[0], state[1], state[2], state[3]) = (0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574)
    for i in 0..<8 { state[4 + i] = key[i] }
    state[12] = counter
    for i in 0..<3 { state[13 + i] = nonce[i] }
    let start = state
    for _ in 0..<10 {
      for i in 0..<4 { quarterRound(&state, i, 4 + i, 8 + i, 12 + i) }
      for i in 0..<4 { quarterRound(&state, i, 4 + ((i + 1) & 3), 8 + ((i + 2) & 3), 12 + ((i + 3) & 3)) }
    }
    for i in 0..<16 { state[i] &+= start[i] }
    return state
  }

  @inline(__always)
  private static func quarterRound(_ s: inout [16 of UInt32], _ a: Int, _ b: Int, _ c: Int, _ d: Int) {
    s[a] &+= s[b]
    s[d] = rotated(s[d] ^ s[a], 16)
    s[c] &+= s[d]
    s[b] = rotated(s[b] ^ s[c], 12)
    s[a] &+= s[b]
    s[d] = rotated(s[d] ^ s[a], 8)
    s[c] &+= s[d]
    s[b] = rotated(s[b] ^ s[c], 7)
  }

  @inline(__always)
  private static func rotated(_ value: UInt32, _ bits: UInt32) -> UInt32 {
    value << bits | value >> (32 - bits)
  }
}
