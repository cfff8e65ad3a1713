// Views of received packets: each initialiser checks lengths once and gives nil for what no sender should send.

enum EtherType {
  static let ipv4: UInt16 = 0x0800
  static let arp: UInt16 = 0x0806
  static let ipv6: UInt16 = 0x86DD
}

/// Numbers of protocols and of IPv6 extension headers (IANA, Protocol Numbers).
enum IPProtocol {
  static let hopByHop: UInt8 = 0
  static let icmp: UInt8 = 1
  static let igmp: UInt8 = 2
  static let tcp: UInt8 = 6
  static let udp: UInt8 = 17
  static let routing: UInt8 = 43
  static let fragment: UInt8 = 44
  static let icmpv6: UInt8 = 58
  static let noNext: UInt8 = 59
  static let destinationOptions: UInt8 = 60
}

/// Sizes of headers without options, in bytes.
enum HeaderLength {
  static let ethernet = 14
  static let ipv4 = 20
  static let ipv6 = 40
  static let udp = 8
  static let tcp = 20
  static let icmp = 8
  static let arp = 28
}

/// IPv4 over Ethernet address resolution (RFC 826).
struct ARPPacket {
  let operation: UInt16
  let senderMAC: MACAddress
  let sender: IPv4Address
  let target: IPv4Address

  static let request: UInt16 = 1
  static let reply: UInt16 = 2

  init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= HeaderLength.arp, bytes.word16(0) == 1, bytes.word16(2) == EtherType.ipv4,
      bytes.byte(4) == 6, bytes.byte(5) == 4
    else { return nil }
    operation = bytes.word16(6)
    senderMAC = MACAddress(rawValue: UInt64(bytes.word16(8)) << 32 | UInt64(bytes.word32(10)))
    sender = IPv4Address(rawValue: bytes.word32(14))
    target = IPv4Address(rawValue: bytes.word32(24))
  }
}

/// A packet of either family whose headers are whole (RFC 791, RFC 8200) and whose IPv4 header checksum is right.
struct IPPacket {
  let bytes: UnsafeRawBufferPointer
  /// Bytes in front of `payload`: for IPv6, extension headers too.
  var headerLength: Int
  /// What `payload` is (`IPProtocol`).
  var kind: UInt8
  let source: IPAddress
  let destination: IPAddress
  var payload: UnsafeRawBufferPointer
  /// IPv6: where the fragment header is, or 0.
  var fragmentHeader = 0

  init?(ipv4 frame: UnsafeRawBufferPointer, checksumValidated: Bool = false) {
    let first = frame.byte(0)
    let length = Int(frame.word16(2))
    headerLength = Int(first & 15) * 4
    guard first >> 4 == 4, headerLength >= HeaderLength.ipv4, length >= headerLength, length <= frame.count
    else { return nil }
    bytes = frame.part(0, length)
    if !checksumValidated {
      var sum = Checksum()
      sum.add(frame.part(0, headerLength))
      guard sum.value == 0 else { return nil }
    }
    kind = bytes.byte(9)
    source = IPAddress(IPv4Address(rawValue: bytes.word32(12)))
    destination = IPAddress(IPv4Address(rawValue: bytes.word32(16)))
    payload = bytes.part(headerLength, length)
  }

  /// Only the fixed header is read; see `NetworkStack.skipExtensions`.
  init?(ipv6 frame: UnsafeRawBufferPointer) {
    let length = HeaderLength.ipv6 + Int(frame.word16(4))
    guard frame.byte(0) >> 4 == 6, frame.count >= length else { return nil }
    bytes = frame.part(0, length)
    headerLength = HeaderLength.ipv6
    kind = bytes.byte(6)
    source = bytes.address(8)
    destination = bytes.address(24)
    payload = bytes.part(HeaderLength.ipv6, length)
  }

  var isIPv6: Bool { bytes.byte(0) >> 4 == 6 }
  /// The time to live or hop limit that is left.
  var timeToLive: UInt8 { bytes.byte(isIPv6 ? 7 : 8) }
  /// The type of service or traffic class.
  var trafficClass: UInt8 { isIPv6 ? UInt8(truncatingIfNeeded: bytes.word16(0) >> 4) : bytes.byte(1) }

  var identification: UInt32 {
    isIPv6 ? bytes.word32(fragmentHeader + 4) : UInt32(bytes.word16(4))
  }
  var moreFragments: Bool {
    isIPv6 ? bytes.byte(fragmentHeader + 3) & 1 != 0 : bytes.byte(6) & 0x20 != 0
  }
  /// Where this fragment lies in the whole payload, in bytes.
  var fragmentOffset: Int {
    isIPv6 ? Int(bytes.word16(fragmentHeader + 2) & 0xFFF8) : Int(bytes.word16(6) & 0x1FFF) * 8
  }
  /// IPv6: a fragment header alone does not make a fragment (RFC 6946).
  var isFragment: Bool {
    isIPv6
      ? fragmentHeader > 0 && bytes.word16(fragmentHeader + 2) & 0xFFF9 != 0
      : bytes.word16(6) & 0x3FFF != 0
  }
}

/// A UDP datagram (RFC 768) whose length is right.
struct UDPDatagram {
  let sourcePort: UInt16
  let destinationPort: UInt16
  let checksum: UInt16
  let bytes: UnsafeRawBufferPointer
  var payload: UnsafeRawBufferPointer { bytes.part(HeaderLength.udp, bytes.count) }

  init?(_ packet: UnsafeRawBufferPointer) {
    let length = Int(packet.word16(4))
    guard packet.count >= HeaderLength.udp, length >= HeaderLength.udp, length <= packet.count else {
      return nil
    }
    sourcePort = packet.word16(0)
    destinationPort = packet.word16(2)
    checksum = packet.word16(6)
    bytes = packet.part(0, length)
  }
}
