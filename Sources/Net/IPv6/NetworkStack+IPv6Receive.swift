// Receiving IPv6 (RFC 8200): the fixed header, and extension headers up to what is inside.

extension NetworkStack {
  func receiveIPv6(_ bytes: UnsafeRawBufferPointer, _ validated: Bool, isLoopback: Bool, _ now: UInt64) {
    guard var packet = IPPacket(ipv6: bytes), !packet.source.isMulticast else { return }
    if !isLoopback {
      // Own, loopback and mapped addresses never come from outside (RFC 4291 section 2.5.3).
      guard ipv6.isEnabled, !packet.source.isLoopback, !packet.source.isIPv4, !packet.destination.isIPv4,
        !packet.destination.isLoopback, !isOwnIPv6(packet.source)
      else { return }
    }
    guard isOwnIPv6(packet.destination) || isMember(packet.destination) else { return }
    guard skipExtensions(&packet, now) else { return }
    if packet.isFragment {
      reassembly.add(packet, now) { whole in
        var rest = whole
        if skipExtensions(&rest, now), rest.fragmentHeader == 0 { deliver(rest, isLoopback, isLoopback, now) }
      }
      return
    }
    deliver(packet, validated, isLoopback, now)
  }

  /// Groups that packets are taken from: all nodes, the solicited-node groups, and what programs have joined.
  private func isMember(_ group: IPAddress) -> Bool {
    guard group.high >> 56 == 0xFF else { return false }
    if group == .allNodes || group.high == 0xFF01_0000_0000_0000 && group.low == 1 { return true }
    for entry in ipv6.addresses where entry.address.solicitedNode == group { return true }
    return multicast.contains(group)
  }

  /// Moves `packet` behind its extension headers; stops at a fragment that must be put together first. False when
  /// it is to be dropped.
  private func skipExtensions(_ packet: inout IPPacket, _ now: UInt64) -> Bool {
    // No sender has use for more; a long chain only costs time.
    for count in 0..<10 {
      switch packet.kind {
      case IPProtocol.hopByHop:
        // Only right behind the fixed header (RFC 8200 section 4.1).
        guard count == 0, skip(&packet, readsOptions: true, now) else {
          if count > 0 { problem(packet, ICMPv6.unknownNextHeader, packet.headerLength, now) }
          return false
        }
      case IPProtocol.destinationOptions:
        guard skip(&packet, readsOptions: true, now) else { return false }
      case IPProtocol.routing:
        // A host forwards nothing: routes still to go are refused (RFC 8200 section 4.4, RFC 5095).
        guard packet.payload.byte(3) == 0 else {
          problem(packet, ICMPv6.erroneousField, packet.headerLength + 2, now)
          return false
        }
        guard skip(&packet, readsOptions: false, now) else { return false }
      case IPProtocol.fragment:
        // One fragment header only: fragments of fragments serve no one.
        guard packet.fragmentHeader == 0, packet.payload.count >= 8 else { return false }
        packet.fragmentHeader = packet.headerLength
        step(&packet, 8)
        if packet.isFragment { return true }
      default: return true
      }
    }
    return false
  }

  private func step(_ packet: inout IPPacket, _ length: Int) {
    packet.kind = packet.payload.byte(0)
    packet.headerLength += length
    packet.payload = packet.payload.part(length, packet.payload.count)
  }

  private func skip(_ packet: inout IPPacket, readsOptions: Bool, _ now: UInt64) -> Bool {
    let length = (Int(packet.payload.byte(1)) + 1) * 8
    guard packet.payload.count >= length else { return false }
    if readsOptions, !checkOptions(packet, packet.payload.part(2, length), now) { return false }
    step(&packet, length)
    return true
  }

  /// Options nobody knows say themselves what to do (RFC 8200 section 4.2).
  private func checkOptions(_ packet: IPPacket, _ options: UnsafeRawBufferPointer, _ now: UInt64) -> Bool {
    var offset = 0
    while offset < options.count {
      let kind = options.byte(offset)
      if kind == 0 {
        offset += 1
        continue
      }
      // Pad, and router alert, which asks routers only (RFC 2711).
      if kind != 1, kind != 5, kind >> 6 != 0 {
        if kind >> 6 == 2 || (kind >> 6 == 3 && !packet.destination.isMulticast) {
          problem(packet, ICMPv6.unknownOption, packet.headerLength + 2 + offset, now)
        }
        return false
      }
      offset += 2 + Int(options.byte(offset + 1))
    }
    return offset == options.count
  }

  private func problem(_ packet: IPPacket, _ code: UInt8, _ pointer: Int, _ now: UInt64) {
    sendErrorICMPv6(packet, ICMPv6.parameterProblem, code, UInt32(truncatingIfNeeded: pointer), now)
  }
}
