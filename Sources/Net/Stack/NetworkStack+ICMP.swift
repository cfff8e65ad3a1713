enum ICMP {
  static let echoReply: UInt8 = 0
  static let destinationUnreachable: UInt8 = 3
  static let echoRequest: UInt8 = 8
  static let hostUnreachable: UInt8 = 1
  static let protocolUnreachable: UInt8 = 2
  static let portUnreachable: UInt8 = 3
  static let fragmentationNeeded: UInt8 = 4
}

extension NetworkStack {
  func receiveICMP(_ packet: IPPacket, _ now: UInt64) {
    let bytes = packet.payload
    guard bytes.count >= HeaderLength.icmp, isOwn(packet.destination) else { return }
    var sum = Checksum()
    sum.add(bytes)
    guard sum.value == 0 else { return }
    switch bytes.byte(0) {
    case ICMP.echoRequest: sendEchoReply(packet, now)
    case ICMP.destinationUnreachable: receiveUnreachable(bytes, now)
    default: return
    }
  }

  private func sendEchoReply(_ packet: IPPacket, _ now: UInt64) {
    let bytes = packet.payload
    guard bytes.count + HeaderLength.ipv4 <= 65535, let source = bytes.baseAddress else { return }
    (frame + Self.transportOffset).copyMemory(from: source, byteCount: bytes.count)
    (frame + Self.transportOffset).put8(0, ICMP.echoReply)
    sendICMP(packet.destination, packet.source, bytes.count, now)
  }

  private func sendICMP(_ source: IPAddress, _ destination: IPAddress, _ length: Int, _ now: UInt64) {
    let message = frame + Self.transportOffset
    message.put16(2, 0)
    var sum = Checksum()
    sum.add(UnsafeRawBufferPointer(start: message, count: length))
    message.put16(2, sum.value)
    var transmission = Transmission(source, destination, IPProtocol.icmp)
    transmission.length = length
    transmission.headerLength = HeaderLength.icmp
    transmit(transmission, now)
  }

  func sendPortUnreachable(_ packet: IPPacket, _ now: UInt64) {
    if packet.isIPv6 {
      sendErrorICMPv6(packet, ICMPv6.destinationUnreachable, ICMPv6.portUnreachable, 0, now)
    } else {
      sendUnreachable(packet, ICMP.portUnreachable, now)
    }
  }

  func sendProtocolUnreachable(_ packet: IPPacket, _ now: UInt64) {
    if packet.isIPv6 {
      // The field that is not understood: the next header field, here told as that of the fixed header.
      sendErrorICMPv6(packet, ICMPv6.parameterProblem, ICMPv6.unknownNextHeader, 6, now)
    } else {
      sendUnreachable(packet, ICMP.protocolUnreachable, now)
    }
  }

  /// Errors to others are few; what this host tells itself floods nobody, and programs count on it: a resolver whose
  /// question is not refused waits for its time limit.
  func mayReport(to source: IPAddress, _ now: UInt64) -> Bool { isOwn(source) || mayChallenge(now) }

  /// Tells a sender why its packet was not delivered, quoting its beginning (RFC 792).
  private func sendUnreachable(_ packet: IPPacket, _ code: UInt8, _ now: UInt64) {
    guard mayReport(to: packet.source, now), let source = packet.bytes.baseAddress else { return }
    let quoted = min(packet.bytes.count, packet.headerLength + 8)
    let message = frame + Self.transportOffset
    message.put8(0, ICMP.destinationUnreachable)
    message.put8(1, code)
    message.put16(2, 0)
    message.put32(4, 0)
    (message + HeaderLength.icmp).copyMemory(from: source, byteCount: quoted)
    sendICMP(packet.destination, packet.source, HeaderLength.icmp + quoted, now)
  }

  /// The quoted packet is one of ours: find who sent it.
  private func receiveUnreachable(_ bytes: UnsafeRawBufferPointer, _ now: UInt64) {
    let quoted = bytes.part(HeaderLength.icmp, bytes.count)
    let headerLength = Int(quoted.byte(0) & 15) * 4
    guard quoted.byte(0) >> 4 == 4, headerLength >= HeaderLength.ipv4, quoted.count >= headerLength + 8
    else { return }
    let source = IPAddress(IPv4Address(rawValue: quoted.word32(12)))
    let destination = IPAddress(IPv4Address(rawValue: quoted.word32(16)))
    let code = bytes.byte(1)
    // RFC 1191 section 3: old routers do not say how much would fit.
    let nextMTU = code == ICMP.fragmentationNeeded ? max(Int(bytes.word16(6)), 576) : 0
    report(
      error(for: code), nextMTU: nextMTU, quoted.byte(9), quoted.part(headerLength, quoted.count),
      from: source,
      to: destination)
  }

  /// Tells the socket that sent a quoted packet. `nextMTU` is 0 unless the packet was too big.
  func report(
    _ error: NetworkError, nextMTU: Int, _ kind: UInt8, _ transport: UnsafeRawBufferPointer,
    from source: IPAddress, to destination: IPAddress
  ) {
    let local = Endpoint(source, transport.word16(0))
    let remote = Endpoint(destination, transport.word16(2))
    switch kind {
    case IPProtocol.udp: reportUDP(local, remote, error)
    case IPProtocol.tcp:
      guard let connection = connections[TableKey(local: local, remote: remote)] else { return }
      connection.receiveUnreachable(error, sequence: transport.word32(4), nextMTU: nextMTU)
    default: return
    }
  }

  private func error(for code: UInt8) -> NetworkError {
    switch code {
    case 0, 6, 9: .networkUnreachable
    case ICMP.protocolUnreachable, ICMP.portUnreachable: .connectionRefused
    case ICMP.fragmentationNeeded: .messageTooLong
    default: .hostUnreachable
    }
  }
}

extension TCPConnection {
  /// RFC 5927: only a message that quotes data in flight counts, and it ends attempts to connect only. `nextMTU` is
  /// 0 unless a packet was too big.
  func receiveUnreachable(_ error: NetworkError, sequence: UInt32, nextMTU: Int) {
    guard isAtMost(unacknowledged, sequence), isBefore(sequence, sendNext) else { return }
    if nextMTU > 0 {
      let headers = (remote.address.isIPv4 ? HeaderLength.ipv4 : HeaderLength.ipv6) + HeaderLength.tcp
      let size = nextMTU - headers - (usesTimestamps ? 12 : 0)
      if state != .synSent, size < segmentSize {
        segmentSize = size
        enterTimeoutRecovery()
        stack.schedule(self)
      }
    } else if state == .synSent {
      finish(error)
    }
  }
}
