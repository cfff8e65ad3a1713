/// An address of the interface and how far it may be used (RFC 4862 section 5.5.4).
public struct InterfaceAddress {
  public let address: IPAddress
  public let prefixLength: Int
  /// Being checked for duplicates: packets to it are not taken yet (RFC 4862 section 5.4).
  public internal(set) var isTentative = true
  /// Somebody else has it: it is never used.
  public internal(set) var isDuplicate = false
  /// Past its preferred lifetime: new conversations begin elsewhere.
  public internal(set) var isDeprecated = false
  /// Times in nanoseconds; `UInt64.max` is for ever.
  public internal(set) var preferredUntil = UInt64.max
  public internal(set) var validUntil = UInt64.max
  /// Came from a router's prefix, not from the launch record.
  public internal(set) var isAutomatic = false
  var probes = 0
  var nextProbe: UInt64 = 0

  init(_ address: IPAddress, _ prefixLength: Int) {
    self.address = address
    self.prefixLength = prefixLength
  }
}

/// A router of the link (RFC 4861 section 5.1).
public struct DefaultRouter {
  public let address: IPAddress
  /// Nanoseconds; `UInt64.max` is for ever.
  public internal(set) var validUntil: UInt64
  /// -1, 0 or 1 (RFC 4191 section 2.1).
  var preference = 0
}

/// What the IPv6 side of the one link knows. The lists are short, and bounded against hostile routers.
struct IPv6Interface {
  /// Nothing is sent or taken over the link before `enableIPv6`.
  var isEnabled = false
  var addresses: [InterfaceAddress] = []
  var routers: [DefaultRouter] = []
  /// On-link prefixes (RFC 4861 section 6.3.4).
  var prefixes: [(prefix: IPAddress, length: Int, validUntil: UInt64)] = []
  /// Recursive name servers (RFC 8106) and until when they serve.
  var nameServers: [(address: IPAddress, validUntil: UInt64)] = []
  var paths: [(destination: IPAddress, mtu: Int, validUntil: UInt64)] = []
  var hopLimit: UInt8 = 64
  /// The link's MTU as routers tell it, or 0.
  var mtu = 0
  /// Nanoseconds between solicitations (RetransTimer).
  var retransmitInterval = Nanoseconds.second
  var solicitations = 0
  var nextSolicitation = UInt64.max
  var fragmentNumber: UInt32 = 0
  /// When the next of all this happens.
  var deadline = UInt64.max
  /// What programs were told has changed: addresses, routers or name servers.
  var generation = 0

  static let addressLimit = 16
  static let routerLimit = 8
  static let prefixLimit = 16
  static let pathLimit = 64
  static let nameServerLimit = 4
  /// RFC 4861 section 10.
  static let solicitationLimit = 3
  static let solicitationInterval = 4 * Nanoseconds.second
  /// Every link carries this much (RFC 8200 section 5).
  static let leastMTU = 1280
}
