/// The Internet checksum (RFC 1071), summed in memory order eight bytes at a time; byte order is set right at
/// the end, which RFC 1071 section 2(B) allows.
struct Checksum {
  private var sum: UInt64 = 0

  /// Adds bytes that begin at an even offset of the checked data.
  mutating func add(_ bytes: UnsafeRawBufferPointer) {
    guard let base = bytes.baseAddress else { return }
    var total = sum
    var offset = 0
    let count = bytes.count
    while offset &+ 8 <= count {
      let word = base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      // Two 32-bit halves into a 64-bit sum: no carry can be lost below 2^32 additions.
      total &+= (word & 0xFFFF_FFFF) &+ (word >> 32)
      offset &+= 8
    }
    while offset &+ 2 <= count {
      total &+= UInt64(base.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
      offset &+= 2
    }
    if offset < count {
      total &+= UInt64(UInt16(littleEndian: UInt16(base.load(fromByteOffset: offset, as: UInt8.self))))
    }
    sum = total
  }

  /// Adds a number as it would lie in network order.
  mutating func add(_ word: UInt16) { sum &+= UInt64(word.bigEndian) }

  mutating func add(_ word: UInt32) {
    add(UInt16(word >> 16))
    add(UInt16(truncatingIfNeeded: word))
  }

  mutating func add(_ word: UInt64) {
    add(UInt32(word >> 32))
    add(UInt32(truncatingIfNeeded: word))
  }

  /// Adds the pseudo-header of TCP, UDP and ICMPv6 (RFC 9293 section 3.1, RFC 8200 section 8.1). The prefix of a
  /// mapped IPv4 address adds 0xFFFF, which is zero in this arithmetic: one rule serves both families.
  mutating func addPseudoHeader(
    _ source: IPAddress, _ destination: IPAddress, _ kind: UInt8, _ length: Int
  ) {
    add(source.low)
    add(destination.low)
    if source.high | destination.high != 0 {
      add(source.high)
      add(destination.high)
    }
    add(UInt16(kind))
    add(UInt32(truncatingIfNeeded: length))
  }

  /// The sum folded to 16 bits, not inverted, as a number for `put16`.
  var folded: UInt16 {
    var total = (sum & 0xFFFF_FFFF) &+ (sum >> 32)
    total = (total & 0xFFFF) &+ (total >> 16)
    total = (total & 0xFFFF) &+ (total >> 16)
    total = (total & 0xFFFF) &+ (total >> 16)
    return UInt16(truncatingIfNeeded: total).bigEndian
  }

  /// What goes into the checksum field; zero when the summed data holds a right checksum.
  var value: UInt16 { ~folded }
}
