/// An IPv4 address in host byte order.
public struct IPv4Address: Equatable, Sendable {
  public var rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public init(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) {
    rawValue = UInt32(a) << 24 | UInt32(b) << 16 | UInt32(c) << 8 | UInt32(d)
  }

  public static var any: IPv4Address { IPv4Address(rawValue: 0) }
  public static var loopback: IPv4Address { IPv4Address(127, 0, 0, 1) }
  public static var broadcast: IPv4Address { IPv4Address(rawValue: .max) }

  public var isAny: Bool { rawValue == 0 }
  public var isLoopback: Bool { rawValue >> 24 == 127 }
  public var isMulticast: Bool { rawValue >> 28 == 0xE }
}

/// An Ethernet address in the low 48 bits, first byte highest.
public struct MACAddress: Equatable, Sendable {
  public var rawValue: UInt64

  public init(rawValue: UInt64) { self.rawValue = rawValue & 0xFFFF_FFFF_FFFF }

  public static var broadcast: MACAddress { MACAddress(rawValue: 0xFFFF_FFFF_FFFF) }
}

/// An address and a port: one end of a conversation.
public struct Endpoint: Equatable, Sendable {
  public var address: IPv4Address
  public var port: UInt16

  public init(_ address: IPv4Address, _ port: UInt16) {
    self.address = address
    self.port = port
  }

  public static var any: Endpoint { Endpoint(.any, 0) }
}
