/// An IPv4 address in host byte order.
public struct IPv4Address: Equatable, Sendable {
  public var rawValue: UInt32

  @inlinable
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

/// An address of either family. IPv4 addresses are kept in their IPv4-mapped form (RFC 4291 section 2.5.5.2), so
/// that tables, comparisons and dual-stack sockets need no second kind.
public struct IPAddress: Equatable, Sendable {
  /// The first and the last eight bytes, in host byte order.
  public var high: UInt64
  public var low: UInt64

  @inlinable
  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  @inlinable
  public init(_ address: IPv4Address) {
    high = 0
    low = 0xFFFF_0000_0000 | UInt64(address.rawValue)
  }

  /// `::`, which stands for every address of both families.
  public static var any: IPAddress { IPAddress(high: 0, low: 0) }
  /// 0.0.0.0
  public static var anyIPv4: IPAddress { IPAddress(IPv4Address.any) }
  /// 127.0.0.1
  public static var loopback: IPAddress { IPAddress(IPv4Address.loopback) }
  /// ::1
  public static var loopbackIPv6: IPAddress { IPAddress(high: 0, low: 1) }
  /// ff02::1 and ff02::2 (RFC 4291 section 2.7.1), ff02::16 (RFC 9777).
  static var allNodes: IPAddress { IPAddress(high: 0xFF02_0000_0000_0000, low: 1) }
  static var allRouters: IPAddress { IPAddress(high: 0xFF02_0000_0000_0000, low: 2) }
  static var allListeners: IPAddress { IPAddress(high: 0xFF02_0000_0000_0000, low: 0x16) }

  @inlinable public var isIPv4: Bool { high == 0 && low >> 32 == 0xFFFF }
  /// Meaningful when `isIPv4`.
  @inlinable public var ipv4: IPv4Address { IPv4Address(rawValue: UInt32(truncatingIfNeeded: low)) }
  @inlinable public var isAny: Bool { high == 0 && (low == 0 || low == 0xFFFF_0000_0000) }
  public var isLoopback: Bool { isIPv4 ? ipv4.isLoopback : high == 0 && low == 1 }
  public var isMulticast: Bool { isIPv4 ? ipv4.isMulticast : high >> 56 == 0xFF }
  /// fe80::/10: means something on one link only.
  public var isLinkLocal: Bool { high >> 54 == 0x3FA }
  /// Multicast that routers keep on the link, or to the own host (RFC 4291 section 2.7).
  public var isLinkLocalMulticast: Bool { high >> 56 == 0xFF && (high >> 48) & 15 <= 2 }

  /// The group of neighbour solicitations for this address (RFC 4291 section 2.7.1).
  var solicitedNode: IPAddress {
    IPAddress(high: 0xFF02_0000_0000_0000, low: 0x0000_0001_FF00_0000 | low & 0xFF_FFFF)
  }

  /// Bits at the beginning that two addresses share.
  func commonPrefix(_ other: IPAddress) -> Int {
    if high != other.high { return (high ^ other.high).leadingZeroBitCount }
    return 64 + (low ^ other.low).leadingZeroBitCount
  }

  func isIn(_ prefix: IPAddress, _ length: Int) -> Bool { commonPrefix(prefix) >= length }

  /// The text of an IPv6 address, all eight groups without leading zeros (RFC 4291 section 2.2, form 1).
  public var text: [UInt8] {
    var result: [UInt8] = []
    for index in 0..<8 {
      if index > 0 { result.append(0x3a) }
      let group = (index < 4 ? high : low) >> UInt64(48 - index % 4 * 16) & 0xFFFF
      var isSignificant = false
      for shift in stride(from: 12, through: 0, by: -4) {
        let digit = UInt8(group >> UInt64(shift) & 15)
        isSignificant = isSignificant || digit != 0 || shift == 0
        if isSignificant { result.append(digit < 10 ? 0x30 + digit : 0x57 + digit) }
      }
    }
    return result
  }

  /// Whether a socket bound to this address hears what is sent to `target`: `::` hears IPv4, too, unless it is to
  /// hear IPv6 only (RFC 3493 sections 3.7 and 5.3).
  func hears(_ target: IPAddress, onlyIPv6: Bool) -> Bool {
    if self == target { return true }
    guard isAny else { return false }
    return isIPv4 ? target.isIPv4 : !(onlyIPv6 && target.isIPv4)
  }
}

/// An address and a port: one end of a conversation.
public struct Endpoint: Equatable, Sendable {
  public var address: IPAddress
  public var port: UInt16

  public init(_ address: IPAddress, _ port: UInt16) {
    self.address = address
    self.port = port
  }

  /// A short form; `.any` and `.loopback` mean those of `IPAddress`.
  @_disfavoredOverload
  public init(_ address: IPv4Address, _ port: UInt16) { self.init(IPAddress(address), port) }

  /// Connecting to any address means to this host (Linux's custom).
  var loopbackIfAny: Endpoint {
    guard address.isAny else { return self }
    return Endpoint(address.isIPv4 ? .loopback : .loopbackIPv6, port)
  }

  public static var any: Endpoint { Endpoint(IPAddress.any, 0) }
}
