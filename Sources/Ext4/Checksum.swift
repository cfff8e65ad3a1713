/// CRC32C (Castagnoli, reflected), eight bytes a step; neither the start value nor the result is inverted, as in
/// ext4's and jbd2's use.
enum Checksum {
  /// Tables of the eight steps, one after the other.
  nonisolated(unsafe) private static var tables: [UInt32] = []

  private static func makeTables() {
    var made = [UInt32](repeating: 0, count: 8 * 256)
    for i in 0..<256 {
      var value = UInt32(i)
      for _ in 0..<8 { value = value & 1 != 0 ? value >> 1 ^ 0x82F6_3B78 : value >> 1 }
      made[i] = value
    }
    for table in 1..<8 {
      for i in 0..<256 {
        let before = made[(table - 1) * 256 + i]
        made[table * 256 + i] = before >> 8 ^ made[Int(before & 255)]
      }
    }
    tables = made
  }

  static func crc32c(_ seed: UInt32, _ view: ByteView) -> UInt32 {
    if tables.isEmpty { makeTables() }
    var crc = seed
    var offset = 0
    tables.withUnsafeBufferPointer { (table) in
      while offset &+ 8 <= view.count {
        let word = view.u64(offset)
        let low = UInt32(truncatingIfNeeded: word) ^ crc
        let high = UInt32(truncatingIfNeeded: word >> 32)
        let a = table[1792 &+ Int(low & 255)] ^ table[1536 &+ Int(low >> 8 & 255)]
        let b = table[1280 &+ Int(low >> 16 & 255)] ^ table[1024 &+ Int(low >> 24)]
        let c = table[768 &+ Int(high & 255)] ^ table[512 &+ Int(high >> 8 & 255)]
        let d = table[256 &+ Int(high >> 16 & 255)] ^ table[Int(high >> 24)]
        crc = a ^ b ^ c ^ d
        offset &+= 8
      }
      while offset < view.count {
        crc = crc >> 8 ^ table[Int((crc ^ UInt32(view.u8(offset))) & 255)]
        offset &+= 1
      }
    }
    return crc
  }

  /// A number's bytes, little endian.
  static func crc32c(_ seed: UInt32, number: UInt32) -> UInt32 {
    if tables.isEmpty { makeTables() }
    var crc = seed
    for shift: UInt32 in [0, 8, 16, 24] { crc = crc >> 8 ^ tables[Int((crc ^ number >> shift) & 255)] }
    return crc
  }

  static func crc32c(_ seed: UInt32, number: UInt64) -> UInt32 {
    crc32c(
      crc32c(seed, number: UInt32(truncatingIfNeeded: number)),
      number: UInt32(truncatingIfNeeded: number >> 32))
  }

  /// CRC16 (polynomial 0x8005, reflected): group descriptors of file systems with gdt_csum.
  static func crc16(_ seed: UInt16, _ view: ByteView) -> UInt16 {
    var crc = seed
    for i in 0..<view.count { crc = crc16(crc, view.u8(i)) }
    return crc
  }

  static func crc16(_ seed: UInt16, _ byte: UInt8) -> UInt16 {
    var crc = seed ^ UInt16(byte)
    for _ in 0..<8 { crc = crc & 1 != 0 ? crc >> 1 ^ 0xA001 : crc >> 1 }
    return crc
  }
}
