// Sending IPv6 (RFC 8200), the next hop (RFC 4861 section 5.2) and the source address (RFC 6724).

extension NetworkStack {
  func isOwnIPv6(_ target: IPAddress) -> Bool {
    if target.high == 0, target.low == 1 { return true }
    for entry in ipv6.addresses where entry.address == target && !entry.isTentative && !entry.isDuplicate {
      return true
    }
    return false
  }

  /// The largest packet for a destination: of the link, or less if a router said so (RFC 8201).
  func pathMTU(toward target: IPAddress) -> Int {
    var mtu = ipv6.mtu > 0 ? min(ipv6.mtu, linkMTU) : linkMTU
    for path in ipv6.paths where path.destination == target { mtu = min(mtu, path.mtu) }
    return max(mtu, IPv6Interface.leastMTU)
  }

  /// A router said that less fits.
  func notePath(_ target: IPAddress, _ mtu: Int, _ now: UInt64) {
    ipv6.paths.removeAll { $0.destination == target || $0.validUntil <= now }
    if ipv6.paths.count >= IPv6Interface.pathLimit { ipv6.paths.removeFirst() }
    // RFC 8201 section 4: try more again after ten minutes.
    ipv6.paths.append((target, max(mtu, IPv6Interface.leastMTU), now &+ 600 * Nanoseconds.second))
  }

  func nextHopIPv6(_ target: IPAddress) -> IPAddress? {
    if target.isMulticast || target.isLinkLocal { return target }
    for entry in ipv6.prefixes where target.isIn(entry.prefix, entry.length) { return target }
    var chosen: DefaultRouter?
    for router in ipv6.routers {
      guard let best = chosen else {
        chosen = router
        continue
      }
      // One that answers before one that has not been heard (RFC 4861 section 6.3.6).
      let rank = router.preference * 2 + (neighbour(router.address)?.isResolved == true ? 1 : 0)
      let bestRank = best.preference * 2 + (neighbour(best.address)?.isResolved == true ? 1 : 0)
      if rank > bestRank { chosen = router }
    }
    return chosen?.address
  }

  /// RFC 6724 section 5, as far as one link needs it: rules 1, 2, 3 and 8.
  func sourceAddressIPv6(toward target: IPAddress) throws(NetworkError) -> IPAddress {
    if isOwnIPv6(target) { return target }
    guard device != nil, ipv6.isEnabled else { throw .networkUnreachable }
    guard nextHopIPv6(target) != nil else { throw .networkUnreachable }
    let wantsLinkLocal = target.isLinkLocal || target.isLinkLocalMulticast
    var chosen: InterfaceAddress?
    var bestRank = -1
    for entry in ipv6.addresses where !entry.isTentative && !entry.isDuplicate {
      // Sources of too small a scope do not come back from far away.
      if entry.address.isLinkLocal, !wantsLinkLocal { continue }
      let scopeFits = entry.address.isLinkLocal == wantsLinkLocal
      let rank =
        (scopeFits ? 1024 : 0) + (entry.isDeprecated ? 0 : 512)
        + (label(entry.address) == label(target) ? 256 : 0) + entry.address.commonPrefix(target)
      if rank > bestRank {
        bestRank = rank
        chosen = entry
      }
    }
    guard let chosen else { throw .addressNotAvailable }
    return chosen.address
  }

  /// The policy table of RFC 6724 section 2.1, as far as addresses of ours go: unique local ones stay together.
  private func label(_ address: IPAddress) -> Int { address.high >> 57 == 0x7E ? 13 : 1 }

  func transmitIPv6(_ packet: Transmission, _ now: UInt64) {
    guard packet.length <= 65535 else { return }
    let total = HeaderLength.ipv6 + packet.length
    writeIPv6Header(packet, packet.length, packet.kind)
    if isOwnIPv6(packet.destination) {
      if packet.kind == IPProtocol.icmpv6 { _ = finishChecksum(packet, partial: false, false) }
      loopBack(total, 0)
      return
    }
    if packet.destination.isMulticast, packet.loopsMulticast, multicast.contains(packet.destination) {
      _ = finishChecksum(packet, partial: false, false)
      loopBack(total, 0)
    }
    guard device != nil, ipv6.isEnabled, let hop = nextHopIPv6(packet.destination) else { return }
    let segments = packet.segmentSize > 0 && offloads.segmentation
    let fits = total <= pathMTU(toward: packet.destination)
    let isPartial = offloads.checksum && (fits || segments) && packet.kind != IPProtocol.icmpv6
    let offload = finishChecksum(packet, partial: isPartial, segments)
    if fits || segments {
      send(offload, HeaderLength.ethernet + total, to: hop, now)
    } else {
      fragmentIPv6(packet, hop, now)
    }
  }

  func writeIPv6Header(_ packet: Transmission, _ length: Int, _ next: UInt8) {
    let header = frame + HeaderLength.ethernet
    header.put32(0, 0x6000_0000 | UInt32(packet.trafficClass) << 20)
    header.put16(4, UInt16(truncatingIfNeeded: length))
    header.put8(6, next)
    header.put8(7, packet.timeToLive)
    header.putAddress(8, packet.source)
    header.putAddress(24, packet.destination)
  }

  /// Cuts a large packet (RFC 8200 section 4.5). Rare, so the copy is allocated.
  private func fragmentIPv6(_ packet: Transmission, _ hop: IPAddress, _ now: UInt64) {
    ipv6.fragmentNumber = UInt32(truncatingIfNeeded: random.next())
    let piece = (pathMTU(toward: packet.destination) - HeaderLength.ipv6 - 8) & ~7
    let payload = UnsafeMutableRawPointer.allocate(byteCount: packet.length, alignment: 16)
    defer { payload.deallocate() }
    payload.copyMemory(from: frame + Self.transportOffset, byteCount: packet.length)
    let header = frame + Self.transportOffset
    var offset = 0
    while offset < packet.length {
      let length = min(piece, packet.length - offset)
      header.put8(0, packet.kind)
      header.put8(1, 0)
      header.put16(2, UInt16(offset) | (offset + length < packet.length ? 1 : 0))
      header.put32(4, ipv6.fragmentNumber)
      (header + 8).copyMemory(from: payload + offset, byteCount: length)
      writeIPv6Header(packet, 8 + length, IPProtocol.fragment)
      send(TransmitOffload(), Self.transportOffset + 8 + length, to: hop, now)
      offset += length
    }
  }
}
