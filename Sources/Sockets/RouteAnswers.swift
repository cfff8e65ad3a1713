import ABI
import Net
import Tasks

/// What rtnetlink(7) tells: two interfaces, their addresses, the routes through them, the neighbours.
extension RouteRequest {
  private static var ipv4: UInt8 { 2 }
  private static var ipv6: UInt8 { 10 }
  private var stack: NetworkStack { Network.stack }
  private var hasLink: Bool { Network.interface != nil }

  private func wants(_ family: UInt8) -> Bool { self.family == 0 || self.family == family }

  private static func macBytes(_ mac: UInt64) -> [UInt8] {
    var result: [UInt8] = []
    for shift in stride(from: 40, through: 0, by: -8) {
      result.append(UInt8(truncatingIfNeeded: mac >> UInt64(shift)))
    }
    return result
  }

  // MARK: Interfaces

  func links() throws(Errno) -> [RouteMessage] {
    if isDump { return hasLink ? [link(1), link(2)] : [link(1)] }
    var index = Int32(bitPattern: word(4))
    // IFLA_IFNAME
    if let name = attribute(3, after: 16) {
      let text = Array(name[..<(name.firstIndex(of: 0) ?? name.count)])
      index = text == InterfaceRequest.name(1) ? 1 : text == InterfaceRequest.name(2) ? 2 : 0
    }
    guard InterfaceRequest.exists(index) else { throw .operationNotOnDevice }
    return [link(index)]
  }

  private func link(_ index: Int32) -> RouteMessage {
    let isLoopback = index == 1
    var message = message(RouteMessage.newLink)
    message.add(UInt16(0))
    message.add(UInt16(isLoopback ? 772 : 1))  // ARPHRD_LOOPBACK, ARPHRD_ETHER
    message.add(UInt32(bitPattern: index))
    // IFF_UP, _RUNNING and _LOWER_UP with _LOOPBACK, or _BROADCAST and _MULTICAST
    message.add(UInt32(isLoopback ? 0x1_0049 : 0x1_1043))
    message.add(UInt32(0))
    message.attribute(3, InterfaceRequest.name(index) + [0])
    message.attribute(13, UInt32(1000))  // IFLA_TXQLEN
    message.attribute(16, [isLoopback ? 0 : 6])  // IFLA_OPERSTATE: unknown, up
    message.attribute(17, [0])  // IFLA_LINKMODE
    message.attribute(4, UInt32(isLoopback ? 65536 : Network.interface?.mtu ?? 1500))
    message.attribute(27, UInt32(0))  // IFLA_GROUP
    message.attribute(6, Array("noqueue".utf8) + [0])
    message.attribute(1, RouteRequest.macBytes(isLoopback ? 0 : stack.macAddress.rawValue))
    message.attribute(2, RouteRequest.macBytes(isLoopback ? 0 : 0xFFFF_FFFF_FFFF))
    return message
  }

  // MARK: Addresses

  func addresses() -> [RouteMessage] {
    var result: [RouteMessage] = []
    let wanted = word(4)
    if wants(RouteRequest.ipv4) {
      if wanted == 0 || wanted == 1 { result.append(addressIPv4(.loopback, 8, 1)) }
      if hasLink, !stack.address.isAny, wanted == 0 || wanted == 2 {
        result.append(addressIPv4(stack.address, Network.prefixLength, 2))
      }
    }
    if wants(RouteRequest.ipv6) {
      if wanted == 0 || wanted == 1 { result.append(addressIPv6(.loopbackIPv6, 128, 1, scope: 254, nil)) }
      for entry in stack.interfaceAddresses where wanted == 0 || wanted == 2 {
        let scope: UInt8 = entry.address.isLinkLocal ? 253 : 0
        result.append(addressIPv6(entry.address, entry.prefixLength, 2, scope: scope, entry))
      }
    }
    return result
  }

  private func addressHeader(_ family: UInt8, _ prefix: Int, flags: UInt8, scope: UInt8, _ index: UInt32)
    -> RouteMessage
  {
    var message = message(RouteMessage.newAddress)
    message.add(family)
    message.add(UInt8(clamping: prefix))
    message.add(flags)
    message.add(scope)
    message.add(index)
    return message
  }

  private func addressIPv4(_ address: IPv4Address, _ prefix: Int, _ index: UInt32) -> RouteMessage {
    let isLoopback = index == 1
    var message = addressHeader(RouteRequest.ipv4, prefix, flags: 0x80, scope: isLoopback ? 254 : 0, index)
    let bytes = InternetSocket.bytes(address)
    message.attribute(1, bytes)
    message.attribute(2, bytes)
    if !isLoopback, prefix < 31 {
      let mask = prefix <= 0 ? 0 : UInt32.max << UInt32(32 - prefix)
      message.attribute(4, InternetSocket.bytes(IPv4Address(rawValue: address.rawValue | ~mask)))
    }
    message.attribute(3, InterfaceRequest.name(Int32(bitPattern: index)) + [0])
    message.attribute(8, UInt32(0x80))
    message.attribute(6, lifetimes(.max, .max))
    return message
  }

  private func addressIPv6(
    _ address: IPAddress, _ prefix: Int, _ index: UInt32, scope: UInt8, _ entry: InterfaceAddress?
  ) -> RouteMessage {
    var flags: UInt8 = entry?.isAutomatic == true ? 0 : 0x80
    if entry?.isTentative == true { flags |= 0x40 }
    if entry?.isDeprecated == true { flags |= 0x20 }
    if entry?.isDuplicate == true { flags |= 0x48 }
    var message = addressHeader(RouteRequest.ipv6, prefix, flags: flags, scope: scope, index)
    message.attribute(1, InternetSocket.bytes(address))
    message.attribute(6, lifetimes(entry?.preferredUntil ?? .max, entry?.validUntil ?? .max))
    message.attribute(8, UInt32(flags))
    return message
  }

  /// struct ifa_cacheinfo: seconds left, and stamps that nobody reads.
  private func lifetimes(_ preferred: UInt64, _ valid: UInt64) -> [UInt8] {
    let now = host.monotonicNanoseconds
    func seconds(_ until: UInt64) -> [UInt8] {
      if until == .max { return [255, 255, 255, 255] }
      return Socket.bytes(Int32(truncatingIfNeeded: until > now ? (until - now) / 1_000_000_000 : 0))
    }
    return seconds(preferred) + seconds(valid) + [0, 0, 0, 0, 0, 0, 0, 0]
  }

  // MARK: Routes

  func routes() throws(Errno) -> [RouteMessage] {
    if !isDump { return [try route(to: try target())] }
    var result: [RouteMessage] = []
    guard hasLink else { return result }
    if wants(RouteRequest.ipv4), !stack.address.isAny {
      if !stack.gatewayAddress.isAny {
        result.append(route(.anyIPv4, 0, gateway: IPAddress(stack.gatewayAddress), source: nil, origin: 3))
      }
      let prefix = min(max(Network.prefixLength, 0), 32)
      let mask = prefix == 0 ? 0 : UInt32.max << UInt32(32 - prefix)
      let network = IPAddress(IPv4Address(rawValue: stack.address.rawValue & mask))
      result.append(route(network, prefix, gateway: nil, source: IPAddress(stack.address), origin: 2))
    }
    if wants(RouteRequest.ipv6), !stack.interfaceAddresses.isEmpty {
      for entry in stack.onLinkPrefixes {
        result.append(route(entry.prefix, entry.length, gateway: nil, source: nil, origin: 2))
      }
      result.append(route(IPAddress(high: 0xFE80 << 48, low: 0), 64, gateway: nil, source: nil, origin: 2))
      for router in stack.defaultRouters {
        let origin: UInt8 = router.validUntil == .max ? 3 : 9  // RTPROT_BOOT, RTPROT_RA
        result.append(route(.any, 0, gateway: router.address, source: nil, origin: origin))
      }
    }
    return result
  }

  /// One route of the link. `origin`: RTPROT_….
  private func route(
    _ target: IPAddress, _ length: Int, gateway: IPAddress?, source: IPAddress?, origin: UInt8,
    interface: UInt32 = 2
  ) -> RouteMessage {
    func bytes(_ address: IPAddress) -> [UInt8] {
      address.isIPv4 ? InternetSocket.bytes(address.ipv4) : InternetSocket.bytes(address)
    }
    var message = message(RouteMessage.newRoute)
    message.add(target.isIPv4 ? RouteRequest.ipv4 : RouteRequest.ipv6)
    message.add(UInt8(clamping: length))
    message.add(UInt16(0))
    message.add(UInt8(254))  // RT_TABLE_MAIN
    message.add(origin)
    // RT_SCOPE_LINK for IPv4 neighbours, else RT_SCOPE_UNIVERSE; RTN_UNICAST or RTN_LOCAL
    message.add(UInt8(gateway == nil && target.isIPv4 && length < 32 ? 253 : 0))
    message.add(UInt8(interface == 1 ? 2 : 1))
    message.add(UInt32(0))
    message.attribute(15, UInt32(254))
    if length > 0 { message.attribute(1, bytes(target)) }
    if let source { message.attribute(7, bytes(source)) }
    if let gateway { message.attribute(5, bytes(gateway)) }
    message.attribute(4, interface)
    if !target.isIPv4 { message.attribute(6, UInt32(length == 0 ? 1024 : 256)) }
    return message
  }

  /// RTA_DST of a question about one route. EINVAL.
  private func target() throws(Errno) -> IPAddress {
    guard let value = attribute(1, after: 12) else { throw .invalid }
    if family == RouteRequest.ipv4, value.count == 4 {
      return IPAddress(IPv4Address(value[0], value[1], value[2], value[3]))
    }
    guard family == RouteRequest.ipv6, value.count == 16 else { throw .invalid }
    return InternetSocket.address(value, 0)
  }

  private func route(to target: IPAddress) throws(Errno) -> RouteMessage {
    let source: IPAddress
    do throws(NetworkError) { source = try stack.sourceAddress(toward: target) } catch { throw error.number }
    let length = target.isIPv4 ? 32 : 128
    if stack.isLocal(target) {
      return route(target, length, gateway: nil, source: source, origin: 0, interface: 1)
    }
    let hop = stack.neighbourAddress(toward: target)
    return route(target, length, gateway: hop == target ? nil : hop, source: source, origin: 0)
  }

  // MARK: Neighbours

  func neighbours() -> [RouteMessage] {
    var result: [RouteMessage] = []
    for entry in stack.neighbourEntries where wants(entry.address.isIPv4 ? 2 : 10) {
      var message = message(RouteMessage.newNeighbour)
      message.add(entry.address.isIPv4 ? RouteRequest.ipv4 : RouteRequest.ipv6)
      message.add(UInt8(0))
      message.add(UInt16(0))
      message.add(UInt32(2))
      // NUD_INCOMPLETE, NUD_REACHABLE
      message.add(UInt16(entry.isResolved ? 2 : 1))
      message.add(UInt8(0))
      message.add(UInt8(1))
      let address = entry.address
      message.attribute(
        1, address.isIPv4 ? InternetSocket.bytes(address.ipv4) : InternetSocket.bytes(address))
      if entry.isResolved { message.attribute(2, RouteRequest.macBytes(entry.mac.rawValue)) }
      result.append(message)
    }
    return result
  }
}
