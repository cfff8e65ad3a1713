// Views of received packets: each initialiser checks lengths once and gives nil for what no sender should send.

enum EtherType {
  static let ipv4: UInt16 = 0x0800
  static let arp: UInt16 = 0x0806
}

enum IPProtocol {
  static let icmp: UInt8 = 1
  static let tcp: UInt8 = 6
  static let udp: UInt8 = 17
}

/// Sizes of headers without options, in bytes.
enum HeaderLength {
  static let ethernet = 14
  static let ipv4 = 20
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

/// An IPv4 packet (RFC 791) whose header is whole and whose header checksum is right.
struct IPv4Packet {
  let bytes: UnsafeRawBufferPointer
  let headerLength: Int
  let kind: UInt8
  let source: IPv4Address
  let destination: IPv4Address
  let payload: UnsafeRawBufferPointer

  init?(_ frame: UnsafeRawBufferPointer, checksumValidated: Bool = false) {
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
    source = IPv4Address(rawValue: bytes.word32(12))
    destination = IPv4Address(rawValue: bytes.word32(16))
    payload = bytes.part(headerLength, length)
  }

  var identification: UInt16 { bytes.word16(4) }
  var moreFragments: Bool { bytes.byte(6) & 0x20 != 0 }
  /// Where this fragment lies in the whole payload, in bytes.
  var fragmentOffset: Int { Int(bytes.word16(6) & 0x1FFF) * 8 }
  var isFragment: Bool { bytes.word16(6) & 0x3FFF != 0 }
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
