/// Message types of RFC 2132 section 9.6.
enum DHCPType {
  static let discover: UInt8 = 1
  static let offer: UInt8 = 2
  static let request: UInt8 = 3
  static let acknowledge: UInt8 = 5
  static let refuse: UInt8 = 6
}

/// Option numbers of RFC 2132.
enum DHCPOption {
  static let subnetMask: UInt8 = 1
  static let router: UInt8 = 3
  static let nameServers: UInt8 = 6
  static let hostName: UInt8 = 12
  static let requestedAddress: UInt8 = 50
  static let leaseTime: UInt8 = 51
  static let messageType: UInt8 = 53
  static let server: UInt8 = 54
  static let parameters: UInt8 = 55
  static let largestMessage: UInt8 = 57
  static let renewalTime: UInt8 = 58
  static let rebindingTime: UInt8 = 59
  static let clientIdentifier: UInt8 = 61
  static let end: UInt8 = 255
}

/// A server's message (RFC 2131 section 2).
struct DHCPMessage {
  let transaction: UInt32
  let address: IPv4Address
  private(set) var type: UInt8 = 0
  private(set) var server = IPv4Address.any
  private(set) var mask: UInt32 = 0
  private(set) var router = IPv4Address.any
  private(set) var nameServers: [IPv4Address] = []
  /// Seconds; 0 when missing.
  private(set) var lease: UInt32 = 0
  private(set) var renewal: UInt32 = 0
  private(set) var rebinding: UInt32 = 0

  static let fixedLength = 240
  static let cookie: UInt32 = 0x6382_5363

  /// Nil for what is no answer to the client with this hardware address.
  init?(_ bytes: UnsafeRawBufferPointer, for mac: MACAddress) {
    guard bytes.count >= Self.fixedLength, bytes.byte(0) == 2, bytes.byte(1) == 1, bytes.byte(2) == 6,
      bytes.mac(28) == mac, bytes.word32(236) == Self.cookie
    else { return nil }
    transaction = bytes.word32(4)
    address = IPv4Address(rawValue: bytes.word32(16))
    var offset = Self.fixedLength
    while offset < bytes.count {
      let kind = bytes.byte(offset)
      if kind == DHCPOption.end { break }
      if kind == 0 {
        offset += 1
        continue
      }
      let length = Int(bytes.byte(offset + 1))
      guard offset + 2 + length <= bytes.count else { return nil }
      read(kind, bytes.part(offset + 2, offset + 2 + length))
      offset += 2 + length
    }
    guard type != 0 else { return nil }
  }

  private mutating func read(_ kind: UInt8, _ value: UnsafeRawBufferPointer) {
    switch (kind, value.count) {
    case (DHCPOption.messageType, 1): type = value.byte(0)
    case (DHCPOption.server, 4): server = IPv4Address(rawValue: value.word32(0))
    case (DHCPOption.subnetMask, 4): mask = value.word32(0)
    case (DHCPOption.router, 4...): router = IPv4Address(rawValue: value.word32(0))
    case (DHCPOption.nameServers, 4...):
      for index in 0..<min(value.count / 4, 3) {
        nameServers.append(IPv4Address(rawValue: value.word32(index * 4)))
      }
    case (DHCPOption.leaseTime, 4): lease = value.word32(0)
    case (DHCPOption.renewalTime, 4): renewal = value.word32(0)
    case (DHCPOption.rebindingTime, 4): rebinding = value.word32(0)
    default: return
    }
  }

  /// The length of the netmask; a class's when the server did not say (RFC 950).
  var prefixLength: Int {
    if mask != 0 { return (~mask).leadingZeroBitCount }
    switch address.rawValue >> 29 {
    case 0...3: return 8
    case 4, 5: return 16
    default: return 24
    }
  }
}
