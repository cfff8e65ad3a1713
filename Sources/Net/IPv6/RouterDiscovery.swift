// Routers, prefixes and addresses made from them (RFC 4861 section 6.3, RFC 4862 section 5.5, RFC 8106).

extension NetworkStack {
  /// Brings IPv6 up on the link: a link-local address from the hardware address (RFC 4291 appendix A), and with it
  /// the search for routers.
  public func enableIPv6(now: UInt64) {
    guard device != nil, !ipv6.isEnabled, linkMTU >= IPv6Interface.leastMTU else { return }
    ipv6.isEnabled = true
    insert(InterfaceAddress(IPAddress(high: 0xFE80 << 48, low: interfaceIdentifier), 64), now)
  }

  private var interfaceIdentifier: UInt64 {
    let mac = macAddress.rawValue ^ 0x0200_0000_0000
    return (mac & 0xFFFF_FF00_0000) << 16 | 0xFF_FE00_0000 | mac & 0xFF_FFFF
  }

  /// Gives the interface an address beside those that routers lead to.
  public func addIPv6(_ address: IPAddress, prefixLength: Int, now: UInt64) {
    guard ipv6.isEnabled, !address.isIPv4, !address.isMulticast, !address.isAny else { return }
    let length = min(max(prefixLength, 0), 128)
    insert(InterfaceAddress(address, length), now)
    notePrefix(address, length, .max)
  }

  /// Sets a router that never expires.
  public func addRouter(_ address: IPAddress) {
    guard ipv6.routers.count < IPv6Interface.routerLimit else { return }
    ipv6.routers.append(DefaultRouter(address: address, validUntil: .max))
  }

  /// Addresses of the interface, tentative and duplicate ones included.
  public var interfaceAddresses: [InterfaceAddress] { ipv6.addresses }
  public var defaultRouters: [DefaultRouter] { ipv6.routers }
  public var onLinkPrefixes: [(prefix: IPAddress, length: Int, validUntil: UInt64)] { ipv6.prefixes }
  /// Name servers that routers tell of.
  public var nameServersIPv6: [IPAddress] { ipv6.nameServers.map { $0.address } }
  /// Changes whenever addresses, routers or name servers do.
  public var configurationGeneration: Int { ipv6.generation }

  func receiveAdvertisement(_ packet: IPPacket, _ now: UInt64) {
    let bytes = packet.payload
    guard packet.source.isLinkLocal, bytes.count >= 16, bytes.hasDiscoveryOptions(16) else { return }
    if bytes.byte(4) != 0 { ipv6.hopLimit = bytes.byte(4) }
    noteRouter(packet.source, seconds: UInt64(bytes.word16(6)), flags: bytes.byte(5), now)
    let interval = UInt64(bytes.word32(12)) * Nanoseconds.millisecond
    if interval >= 100 * Nanoseconds.millisecond, interval <= 10 * Nanoseconds.second {
      ipv6.retransmitInterval = interval
    }
    if let mac = bytes.linkAddress(DiscoveryOption.sourceLinkAddress, from: 16) {
      learn(packet.source, mac, isNew: true, now)
    }
    var offset = 16
    while offset < bytes.count {
      let length = Int(bytes.byte(offset + 1)) * 8
      readOption(bytes.part(offset, offset + length), now)
      offset += length
    }
    ipv6.nextSolicitation = .max
    ipv6.deadline = 0
  }

  private func readOption(_ option: UnsafeRawBufferPointer, _ now: UInt64) {
    switch option.byte(0) {
    case DiscoveryOption.prefix where option.count == 32: receivePrefix(option, now)
    case DiscoveryOption.mtu where option.count == 8:
      let mtu = Int(option.word32(4))
      if mtu >= IPv6Interface.leastMTU, mtu <= linkMTU { ipv6.mtu = mtu }
    case DiscoveryOption.nameServers where option.count >= 24:
      for index in 0..<(option.count - 8) / 16 {
        noteNameServer(option.address(8 + index * 16), seconds: UInt64(option.word32(4)), now)
      }
    default: return
    }
  }

  /// A time so many seconds from now; all ones are for ever.
  private func end(_ seconds: UInt64, _ now: UInt64) -> UInt64 {
    seconds == 0xFFFF_FFFF ? .max : now &+ seconds * Nanoseconds.second
  }

  private func noteRouter(_ address: IPAddress, seconds: UInt64, flags: UInt8, _ now: UInt64) {
    let known = ipv6.routers.firstIndex { $0.address == address }
    guard seconds > 0 else {
      if let known {
        ipv6.routers.remove(at: known)
        ipv6.generation += 1
      }
      return
    }
    let bits = flags >> 3 & 3
    var router = DefaultRouter(address: address, validUntil: end(seconds, now))
    router.preference = bits == 1 ? 1 : bits == 3 ? -1 : 0
    if let known {
      ipv6.routers[known] = router
    } else if ipv6.routers.count < IPv6Interface.routerLimit {
      ipv6.routers.append(router)
      ipv6.generation += 1
    }
  }

  private func notePrefix(_ prefix: IPAddress, _ length: Int, _ validUntil: UInt64) {
    ipv6.prefixes.removeAll { $0.length == length && prefix.isIn($0.prefix, length) }
    if validUntil > 0, ipv6.prefixes.count < IPv6Interface.prefixLimit {
      ipv6.prefixes.append((prefix, length, validUntil))
    }
  }

  private func receivePrefix(_ option: UnsafeRawBufferPointer, _ now: UInt64) {
    let length = Int(option.byte(2))
    let prefix = option.address(16)
    let valid = UInt64(option.word32(4))
    let preferred = UInt64(option.word32(8))
    guard length <= 128, !prefix.isLinkLocal, !prefix.isMulticast, preferred <= valid else { return }
    if option.byte(3) & 0x80 != 0 { notePrefix(prefix, length, valid == 0 ? 0 : end(valid, now)) }
    guard option.byte(3) & 0x40 != 0, length == 64 else { return }
    let address = IPAddress(high: prefix.high, low: interfaceIdentifier)
    if let index = ipv6.addresses.firstIndex(where: { $0.address == address }) {
      refresh(index, valid, preferred, now)
    } else if valid > 0 {
      var entry = InterfaceAddress(address, length)
      entry.isAutomatic = true
      entry.validUntil = end(valid, now)
      entry.preferredUntil = end(preferred, now)
      insert(entry, now)
    }
  }

  /// RFC 4862 section 5.5.3 e: a forged advertisement cannot end an address sooner than in two hours.
  private func refresh(_ index: Int, _ valid: UInt64, _ preferred: UInt64, _ now: UInt64) {
    guard ipv6.addresses[index].isAutomatic else { return }
    let until = ipv6.addresses[index].validUntil
    let remaining = until == .max ? .max : (until > now ? until - now : 0) / Nanoseconds.second
    ipv6.addresses[index].preferredUntil = end(preferred, now)
    if valid > 7200 || valid > remaining {
      ipv6.addresses[index].validUntil = end(valid, now)
    } else if remaining > 7200 {
      ipv6.addresses[index].validUntil = end(7200, now)
    }
  }

  private func noteNameServer(_ address: IPAddress, seconds: UInt64, _ now: UInt64) {
    let known = ipv6.nameServers.contains { $0.address == address }
    ipv6.nameServers.removeAll { $0.address == address }
    if seconds > 0, ipv6.nameServers.count < IPv6Interface.nameServerLimit {
      ipv6.nameServers.append((address, end(seconds, now)))
    }
    if known != (seconds > 0) { ipv6.generation += 1 }
  }

  // MARK: Time

  /// Probes, solicits and forgets what is over.
  func pollIPv6(_ now: UInt64) {
    guard ipv6.isEnabled, ipv6.deadline <= now else { return }
    probeAddresses(now)
    if ipv6.nextSolicitation <= now { solicitRouters(now) }
    let before = ipv6.addresses.count + ipv6.routers.count + ipv6.nameServers.count
    ipv6.addresses.removeAll { $0.validUntil <= now }
    ipv6.routers.removeAll { $0.validUntil <= now }
    ipv6.nameServers.removeAll { $0.validUntil <= now }
    ipv6.prefixes.removeAll { $0.validUntil <= now }
    ipv6.paths.removeAll { $0.validUntil <= now }
    if before != ipv6.addresses.count + ipv6.routers.count + ipv6.nameServers.count { ipv6.generation += 1 }
    var next = ipv6.nextSolicitation
    for index in ipv6.addresses.indices {
      let entry = ipv6.addresses[index]
      ipv6.addresses[index].isDeprecated = entry.preferredUntil <= now
      if entry.isTentative { next = min(next, entry.nextProbe) }
      next = min(next, entry.validUntil, entry.preferredUntil > now ? entry.preferredUntil : .max)
    }
    for router in ipv6.routers { next = min(next, router.validUntil) }
    for server in ipv6.nameServers { next = min(next, server.validUntil) }
    for prefix in ipv6.prefixes { next = min(next, prefix.validUntil) }
    for path in ipv6.paths { next = min(next, path.validUntil) }
    ipv6.deadline = next
  }

  private func solicitRouters(_ now: UInt64) {
    ipv6.solicitations += 1
    ipv6.nextSolicitation =
      ipv6.solicitations < IPv6Interface.solicitationLimit ? now &+ IPv6Interface.solicitationInterval : .max
    guard let source = try? sourceAddressIPv6(toward: .allRouters) else { return }
    let message = frame + Self.transportOffset
    message.put32(0, UInt32(ICMPv6.routerSolicitation) << 24)
    message.put32(4, 0)
    message.put16(8, UInt16(DiscoveryOption.sourceLinkAddress) << 8 | 1)
    message.putMAC(10, macAddress)
    sendICMPv6(source, .allRouters, 16, hopLimit: 255, now)
  }
}
