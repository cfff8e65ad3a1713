import ABI
import Net
import Tasks

/// struct sockaddr_in and struct sockaddr_in6 (ip(7), ipv6(7)). The only interface with link-local addresses is
/// eth0, so that their scope is always 2.
extension InternetSocket {
  static var linkInterface: Int32 { 2 }

  private static func port(_ address: [UInt8]) -> UInt16 { UInt16(address[2]) << 8 | UInt16(address[3]) }

  /// The endpoint of a socket address; nil for AF_UNSPEC. EINVAL, EAFNOSUPPORT.
  final func endpoint(_ address: [UInt8]) throws(Errno) -> Endpoint? {
    guard address.count >= 2 else { throw .invalid }
    let family = Int32(address[0]) | Int32(address[1]) << 8
    if family == 0 { return nil }
    // sizeof(struct sockaddr_in6) without the scope (RFC 2133); Linux looks at it first.
    if isIPv6, address.count < 24 { throw .invalid }
    guard family == domain else { throw .addressFamilyNotSupported }
    guard isIPv6 else { return try InternetSocket.endpointIPv4(address) }
    let target = InternetSocket.address(address, 8)
    if target.isLinkLocal || target.isLinkLocalMulticast {
      let scope = address.count >= 28 ? InternetSocket.word(address, 24) : 0
      guard scope == 0 || scope == InternetSocket.linkInterface else { throw .invalid }
      if target.isLinkLocal, scope == 0, options.boundInterface == 0 { throw .invalid }
    }
    return Endpoint(target, InternetSocket.port(address))
  }

  static func endpointIPv4(_ address: [UInt8]) throws(Errno) -> Endpoint {
    guard address.count >= 16 else { throw .invalid }
    let value = IPv4Address(address[4], address[5], address[6], address[7])
    return Endpoint(IPAddress(value), port(address))
  }

  /// Sixteen bytes of an array that has them.
  static func address(_ bytes: [UInt8], _ offset: Int) -> IPAddress {
    var high: UInt64 = 0
    var low: UInt64 = 0
    for index in 0..<8 {
      high = high << 8 | UInt64(bytes[offset + index])
      low = low << 8 | UInt64(bytes[offset + 8 + index])
    }
    return IPAddress(high: high, low: low)
  }

  static func bytes(_ address: IPAddress) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(16)
    for word in [address.high, address.low] {
      for shift in stride(from: 56, through: 0, by: -8) {
        result.append(UInt8(truncatingIfNeeded: word >> UInt64(shift)))
      }
    }
    return result
  }

  /// The four bytes of an IPv4 address; those of `::` are 0.0.0.0.
  static func bytes(_ address: IPv4Address) -> [UInt8] {
    let value = address.rawValue
    return [
      UInt8(truncatingIfNeeded: value >> 24), UInt8(truncatingIfNeeded: value >> 16),
      UInt8(truncatingIfNeeded: value >> 8), UInt8(truncatingIfNeeded: value),
    ]
  }

  /// A socket address of a family.
  static func bytes(_ endpoint: Endpoint, domain: Int32) -> [UInt8] {
    let port = [UInt8(truncatingIfNeeded: endpoint.port >> 8), UInt8(truncatingIfNeeded: endpoint.port)]
    let address = endpoint.address
    if domain == family { return [2, 0] + port + bytes(address.ipv4) + [0, 0, 0, 0, 0, 0, 0, 0] }
    let scope = address.isLinkLocal || address.isLinkLocalMulticast ? linkInterface : 0
    return [10, 0] + port + [0, 0, 0, 0] + bytes(address) + Socket.bytes(scope)
  }

  final func bytes(_ endpoint: Endpoint) -> [UInt8] { InternetSocket.bytes(endpoint, domain: domain) }

  /// The endpoint to bind to: bind(2) takes AF_UNSPEC for AF_INET when the address is any. EADDRNOTAVAIL for an
  /// IPv4-mapped address of a socket with IPV6_V6ONLY, as in Linux.
  final func boundEndpoint(_ address: [UInt8]) throws(Errno) -> Endpoint {
    if let endpoint = try endpoint(address) {
      if isIPv6, options.onlyIPv6, endpoint.address.isIPv4 { throw .invalid }
      return endpoint
    }
    guard !isIPv6, address.count >= 16, address[4...7].allSatisfy({ $0 == 0 }) else {
      throw .addressFamilyNotSupported
    }
    return Endpoint(.anyIPv4, InternetSocket.port(address))
  }

  /// Where to connect or send to; nil for AF_UNSPEC. A UDP socket of AF_INET6 takes addresses of AF_INET, too.
  final func peerEndpoint(_ address: [UInt8]) throws(Errno) -> Endpoint? {
    var target: Endpoint?
    if isIPv6, type == 2, address.count >= 2, address[0] == 2, address[1] == 0 {
      target = try InternetSocket.endpointIPv4(address)
    } else {
      target = try endpoint(address)
    }
    if isIPv6, options.onlyIPv6, let target, target.address.isIPv4 { throw .networkUnreachable }
    return target
  }
}
