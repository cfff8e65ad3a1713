// Receiving: IPv4, and for both families finding the socket a packet is for.

extension NetworkStack {
  func receiveIPv4(_ bytes: UnsafeRawBufferPointer, _ validated: Bool, isLoopback: Bool, _ now: UInt64) {
    guard let packet = IPPacket(ipv4: bytes, checksumValidated: isLoopback) else { return }
    if !isLoopback {
      // Own and loopback addresses never come from outside (RFC 1122 section 3.2.1.3).
      guard !isOwn(packet.source), !packet.source.isMulticast, !isBroadcast(packet.source),
        !packet.destination.isLoopback
      else { return }
    }
    if dhcp.state != .off, !isLoopback, !packet.isFragment, isForDHCP(packet) {
      return receiveDHCP(packet, validated, now)
    }
    guard isOwn(packet.destination) || isBroadcast(packet.destination) || isMemberIPv4(packet.destination)
    else { return }
    if packet.isFragment {
      reassembly.add(packet, now) { whole in deliver(whole, isLoopback, isLoopback, now) }
      return
    }
    deliver(packet, validated, isLoopback, now)
  }

  /// All systems, and what programs have joined (RFC 1112 section 7).
  private func isMemberIPv4(_ group: IPAddress) -> Bool {
    group.isMulticast && (group.ipv4 == IPv4Address(224, 0, 0, 1) || multicast.contains(group))
  }

  func deliver(_ packet: IPPacket, _ validated: Bool, _ isLoopback: Bool, _ now: UInt64) {
    let wasTaken = rawSockets.isEmpty ? false : deliverRaw(packet)
    switch packet.kind {
    case IPProtocol.tcp:
      guard isOwn(packet.destination), validated || checksumIsRight(packet) else { return }
      receiveTCP(packet, now)
    case IPProtocol.udp: receiveUDP(packet, validated, isLoopback, now)
    case IPProtocol.icmp where !packet.isIPv6: receiveICMP(packet, now)
    case IPProtocol.igmp where !packet.isIPv6: receiveIGMP(packet, now)
    case IPProtocol.icmpv6 where packet.isIPv6: receiveICMPv6(packet, validated, now)
    case IPProtocol.noNext where packet.isIPv6: return
    default:
      if isOwn(packet.destination), !wasTaken { sendProtocolUnreachable(packet, now) }
    }
  }

  func checksumIsRight(_ packet: IPPacket) -> Bool {
    var sum = Checksum()
    sum.addPseudoHeader(packet.source, packet.destination, packet.kind, packet.payload.count)
    sum.add(packet.payload)
    return sum.value == 0
  }

  // MARK: TCP

  private func receiveTCP(_ packet: IPPacket, _ now: UInt64) {
    guard let segment = TCPSegment(packet.payload), segment.sourcePort != 0 else { return }
    let local = Endpoint(packet.destination, segment.destinationPort)
    let remote = Endpoint(packet.source, segment.sourcePort)
    let key = TableKey(local: local, remote: remote)
    if let connection = connections[key] {
      connection.receive(segment, now)
      return
    }
    if let entry = timeWaits[key], receiveInTimeWait(entry, segment, now) { return }
    if segment.has(TCPFlags.syn), !segment.has(TCPFlags.ack), !segment.has(TCPFlags.rst),
      !segment.has(TCPFlags.fin), let listener = listener(local, remote)
    {
      listener.receiveSyn(segment, local, remote, now)
      return
    }
    sendReset(for: segment, local, remote, now)
  }

  /// Answers a segment that belongs to nothing (RFC 9293 section 3.5.2, group 1).
  func sendReset(for segment: TCPSegment, _ local: Endpoint, _ remote: Endpoint, _ now: UInt64) {
    if segment.has(TCPFlags.rst) { return }
    if segment.has(TCPFlags.ack) {
      sendBare(local, remote, sequence: segment.acknowledgement, acknowledgement: 0, TCPFlags.rst, now)
    } else {
      let end = segment.sequence &+ segment.length
      sendBare(local, remote, sequence: 0, acknowledgement: end, TCPFlags.rst | TCPFlags.ack, now)
    }
  }

  /// A segment without options or data, for no connection.
  func sendBare(
    _ local: Endpoint, _ remote: Endpoint, sequence: UInt32, acknowledgement: UInt32, _ flags: UInt8,
    _ now: UInt64
  ) {
    let header = frame + Self.transportOffset
    header.put16(0, local.port)
    header.put16(2, remote.port)
    header.put32(4, sequence)
    header.put32(8, acknowledgement)
    header.put8(12, 0x50)
    header.put8(13, flags)
    header.put32(14, 0)
    header.put16(18, 0)
    var packet = Transmission(local.address, remote.address, IPProtocol.tcp)
    packet.length = HeaderLength.tcp
    packet.headerLength = HeaderLength.tcp
    packet.checksumOffset = 16
    transmit(packet, now)
  }
}
