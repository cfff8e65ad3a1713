import Net

/// IPv6 frames made by hand.
extension Frames {
  static let router: [UInt8] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
  static let allNodes: [UInt8] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]

  static func bytes(_ address: IPAddress) -> [UInt8] {
    (0..<16).map {
      UInt8(truncatingIfNeeded: ($0 < 8 ? address.high : address.low) >> UInt64(56 - $0 % 8 * 8))
    }
  }

  static func address(_ bytes: [UInt8]) -> IPAddress {
    func word(_ part: ArraySlice<UInt8>) -> UInt64 { part.reduce(0) { $0 << 8 | UInt64($1) } }
    return IPAddress(high: word(bytes[0..<8]), low: word(bytes[8..<16]))
  }

  /// A frame with any next header.
  static func ipv6(
    _ next: UInt8, from source: [UInt8], to target: [UInt8], hopLimit: UInt8 = 255, payload: [UInt8]
  ) -> [UInt8] {
    [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0]
      + [UInt8(payload.count >> 8), UInt8(payload.count & 255), next, hopLimit] + source + target + payload
  }

  static func icmpv6(from source: [UInt8], to target: [UInt8], hopLimit: UInt8 = 255, _ message: [UInt8])
    -> [UInt8]
  {
    let pseudo =
      source + target + [0, 0, UInt8(message.count >> 8), UInt8(message.count & 255), 0, 0, 0, 58]
    return ipv6(
      58, from: source, to: target, hopLimit: hopLimit, payload: withChecksum(message, at: 2, pseudo: pseudo))
  }

  static func seconds(_ value: UInt32) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(24 - $0 * 8)) }
  }

  /// A router advertisement of 2001:db8:1::/64 with a name server.
  static func advertisement(
    valid: UInt32 = 86400, preferred: UInt32 = 14400, router lifetime: UInt16 = 1800, mtu: UInt32 = 1500,
    from source: [UInt8] = router, hopLimit: UInt8 = 255
  ) -> [UInt8] {
    let prefix: [UInt8] = [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    var message: [UInt8] = [134, 0, 0, 0, 64, 0, UInt8(lifetime >> 8), UInt8(lifetime & 255)]
    message += [0, 0, 0, 0, 0, 0, 0, 0]
    message += [1, 1, 2, 0, 0, 0, 0, 2]
    message += [3, 4, 64, 0xc0] + seconds(valid) + seconds(preferred) + [0, 0, 0, 0] + prefix
    message += [5, 1, 0, 0] + seconds(mtu)
    message +=
      [25, 3, 0, 0] + seconds(3600) + [0x20, 1, 0x0d, 0xb8] + [UInt8](repeating: 0, count: 11) + [0x53]
    return icmpv6(from: source, to: allNodes, hopLimit: hopLimit, message)
  }
}

extension Simulation {
  /// The link-local addresses of both ends.
  static let localA = IPAddress(high: 0xFE80 << 48, low: 0x0000_00FF_FE00_000A)
  static let localB = IPAddress(high: 0xFE80 << 48, low: 0x0000_00FF_FE00_000B)

  /// Brings IPv6 up at both ends and waits for the addresses.
  func enableIPv6() {
    a.enableIPv6(now: now)
    b.enableIPv6(now: now)
    run(2500)
  }

  /// Hands a frame to A.
  func inject(_ frame: [UInt8]) {
    frame.withUnsafeBytes { a.receive(frame: $0, checksumValidated: false, now: now) }
  }
}
