// Neighbour discovery (RFC 4861 section 7) and duplicate address detection (RFC 4862 section 5.4).

/// Options of neighbour discovery messages (RFC 4861 section 4.6).
enum DiscoveryOption {
  static let sourceLinkAddress: UInt8 = 1
  static let targetLinkAddress: UInt8 = 2
  static let prefix: UInt8 = 3
  static let mtu: UInt8 = 5
  static let nameServers: UInt8 = 25
}

extension UnsafeRawBufferPointer {
  /// Whether the options from `start` on are whole: one of length zero makes the message invalid.
  func hasDiscoveryOptions(_ start: Int) -> Bool {
    var offset = start
    while offset < count {
      let length = Int(byte(offset + 1)) * 8
      guard length > 0, offset + length <= count else { return false }
      offset += length
    }
    return offset == count
  }

  /// The link-layer address of an option of this kind.
  func linkAddress(_ kind: UInt8, from start: Int) -> MACAddress? {
    var offset = start
    while offset + 8 <= count {
      let length = Int(byte(offset + 1)) * 8
      guard length > 0 else { return nil }
      if byte(offset) == kind { return mac(offset + 2) }
      offset += length
    }
    return nil
  }
}

extension NetworkStack {
  /// Asks for a neighbour's link address. Overwrites the frame buffer.
  func solicit(_ target: IPAddress, _ now: UInt64) {
    guard let source = try? sourceAddressIPv6(toward: target) else { return }
    sendSolicitation(target, from: source, now)
  }

  private func sendSolicitation(_ target: IPAddress, from source: IPAddress, _ now: UInt64) {
    let message = frame + Self.transportOffset
    message.put32(0, UInt32(ICMPv6.neighbourSolicitation) << 24)
    message.put32(4, 0)
    message.putAddress(8, target)
    var length = 24
    if !source.isAny { length += putLinkAddress(DiscoveryOption.sourceLinkAddress, 24) }
    sendICMPv6(source, target.solicitedNode, length, hopLimit: 255, now)
  }

  private func putLinkAddress(_ kind: UInt8, _ offset: Int) -> Int {
    let option = frame + Self.transportOffset + offset
    option.put8(0, kind)
    option.put8(1, 1)
    option.putMAC(2, macAddress)
    return 8
  }

  func receiveSolicitation(_ packet: IPPacket, _ now: UInt64) {
    let bytes = packet.payload
    let target = bytes.address(8)
    guard bytes.count >= 24, bytes.hasDiscoveryOptions(24), !target.isMulticast else { return }
    if packet.source.isAny {
      // Somebody else is about to take the address, as we are: neither gets it (RFC 4862 section 5.4.3).
      if let index = ipv6.addresses.firstIndex(where: { $0.address == target && $0.isTentative }) {
        return loseAddress(index)
      }
      guard packet.destination == target.solicitedNode, isOwnIPv6(target) else { return }
      return advertise(target, to: .allNodes, isSolicited: false, now)
    }
    guard isOwnIPv6(target), !target.isLoopback else { return }
    if let mac = bytes.linkAddress(DiscoveryOption.sourceLinkAddress, from: 24) {
      learn(packet.source, mac, isNew: true, now)
    }
    advertise(target, to: packet.source, isSolicited: true, now)
  }

  private func advertise(_ target: IPAddress, to destination: IPAddress, isSolicited: Bool, _ now: UInt64) {
    let message = frame + Self.transportOffset
    message.put32(0, UInt32(ICMPv6.neighbourAdvertisement) << 24)
    message.put32(4, isSolicited ? 0x6000_0000 : 0x2000_0000)  // solicited, override
    message.putAddress(8, target)
    let length = 24 + putLinkAddress(DiscoveryOption.targetLinkAddress, 24)
    sendICMPv6(target, destination, length, hopLimit: 255, now)
  }

  func receiveNeighbour(_ packet: IPPacket, _ now: UInt64) {
    let bytes = packet.payload
    let target = bytes.address(8)
    let flags = bytes.byte(4)
    let isSolicited = flags & 0x40 != 0
    guard bytes.count >= 24, bytes.hasDiscoveryOptions(24), !target.isMulticast,
      !(isSolicited && packet.destination.isMulticast)
    else { return }
    if let index = ipv6.addresses.firstIndex(where: { $0.address == target }) {
      if ipv6.addresses[index].isTentative { loseAddress(index) }
      return
    }
    guard let neighbour = neighbour(target) else { return }
    let mac = bytes.linkAddress(DiscoveryOption.targetLinkAddress, from: 24)
    // Without the override flag an answer does not change what is known (RFC 4861 section 7.2.5).
    if let mac, !neighbour.isResolved || flags & 0x20 != 0 || mac == neighbour.mac {
      learn(target, mac, isNew: false, now)
    } else if mac == nil, neighbour.isResolved, isSolicited {
      neighbour.deadline = now &+ Neighbour.lifetime
    }
    // No longer a router.
    if flags & 0x80 == 0, ipv6.routers.contains(where: { $0.address == target }) {
      ipv6.routers.removeAll { $0.address == target }
      ipv6.generation += 1
    }
  }

  // MARK: Duplicate address detection

  private func loseAddress(_ index: Int) {
    ipv6.addresses[index].isDuplicate = true
    ipv6.addresses[index].isTentative = false
    ipv6.generation += 1
  }

  /// Begins to use an address, unless somebody has it.
  func insert(_ entry: InterfaceAddress, _ now: UInt64) {
    guard ipv6.addresses.count < IPv6Interface.addressLimit,
      !ipv6.addresses.contains(where: { $0.address == entry.address })
    else { return }
    var new = entry
    new.nextProbe = now
    ipv6.addresses.append(new)
    ipv6.deadline = 0
    // Switches that listen in on memberships must let solicitations through (RFC 4862 section 5.4.2).
    reportMembership(new.address.solicitedNode, isJoined: true, now)
  }

  func probeAddresses(_ now: UInt64) {
    for index in ipv6.addresses.indices {
      let entry = ipv6.addresses[index]
      guard entry.isTentative, entry.nextProbe <= now else { continue }
      if entry.probes < 1 {
        ipv6.addresses[index].probes += 1
        ipv6.addresses[index].nextProbe = now &+ ipv6.retransmitInterval
        sendSolicitation(entry.address, from: .any, now)
      } else {
        ipv6.addresses[index].isTentative = false
        ipv6.generation += 1
        if entry.address.isLinkLocal, ipv6.solicitations == 0 { ipv6.nextSolicitation = now }
      }
    }
  }
}
