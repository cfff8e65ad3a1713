import ChaCha
import Testing

@Suite("ChaCha20 and the generator over it")
struct ChaChaTests {
  @Test("the block of RFC 8439, 2.3.2")
  func block() {
    var key: [8 of UInt32] = .init(repeating: 0)
    for i in 0..<8 {
      let byte = UInt32(4 * i)
      key[i] = byte | (byte + 1) << 8 | (byte + 2) << 16 | (byte + 3) << 24
    }
    let block = ChaCha20.block(key: key, counter: 1, nonce: [0x0900_0000, 0x4a00_0000, 0])
    let expected: [UInt32] = [
      0xe4e7_f110, 0x1559_3bd1, 0x1fdd_0f50, 0xc471_20a3, 0xc7f4_d1c7, 0x0368_c033, 0x9aaa_2204, 0x4e6c_d4c3,
      0x4664_82d2, 0x09aa_9f07, 0x05d7_c214, 0xa202_8bd9, 0xd19c_12b5, 0xb94e_16de, 0xe883_d0cb, 0x4e3c_50a2,
    ]
    for i in 0..<16 { #expect(block[i] == expected[i]) }
  }

  private func bytes(_ generator: inout RandomGenerator, _ count: Int) -> [UInt8] {
    var result = [UInt8](repeating: 0, count: count)
    result.withUnsafeMutableBytes { generator.fill($0) }
    return result
  }

  @Test("what is drawn in parts is what is drawn at once, and no seed is like another")
  func generator() {
    func seeded(_ seed: [UInt8]) -> RandomGenerator {
      var generator = RandomGenerator()
      seed.withUnsafeBytes { generator.add($0) }
      return generator
    }
    var one = seeded([1, 2, 3])
    var other = seeded([1, 2, 3])
    let whole = bytes(&one, 1000)
    var parts: [UInt8] = []
    for size in [1, 7, 220, 300, 472] { parts += bytes(&other, size) }
    #expect(whole == parts)
    #expect(Set(stride(from: 0, to: 992, by: 8).map { Array(whole[$0..<$0 + 8]) }).count == 124)
    var longer = seeded([1, 2, 3, 0])
    var long = seeded([UInt8](repeating: 9, count: 100))
    var same = seeded([UInt8](repeating: 9, count: 101))
    #expect(bytes(&longer, 64) != Array(whole[..<64]))
    #expect(bytes(&long, 64) != bytes(&same, 64))
  }
}
