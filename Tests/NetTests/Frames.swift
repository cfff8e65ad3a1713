/// Frames made by hand, from 10.0.0.2 to 10.0.0.1.
enum Frames {
  static let arpReply: [UInt8] =
    [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2]
    + [2, 0, 0, 0, 0, 1, 10, 0, 0, 1]

  /// The Internet checksum, written as plainly as possible to check the fast one.
  static func sum(_ bytes: [UInt8]) -> UInt16 {
    var total: UInt32 = 0
    for index in bytes.indices { total += UInt32(bytes[index]) << (index % 2 == 0 ? 8 : 0) }
    while total > 0xFFFF { total = (total & 0xFFFF) + (total >> 16) }
    return ~UInt16(total)
  }

  static func withChecksum(_ bytes: [UInt8], at offset: Int, pseudo: [UInt8] = []) -> [UInt8] {
    var result = bytes
    let value = sum(pseudo + bytes)
    result[offset] = UInt8(value >> 8)
    result[offset + 1] = UInt8(value & 255)
    return result
  }

  static func ipv4(kind: UInt8, payload: [UInt8]) -> [UInt8] {
    let length = 20 + payload.count
    let header = withChecksum(
      [
        0x45, 0, UInt8(length >> 8), UInt8(length & 255), 0, 1, 0, 0, 64, kind, 0, 0, 10, 0, 0, 2, 10, 0, 0,
        1,
      ],
      at: 10)
    return [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0] + header + payload
  }
}
