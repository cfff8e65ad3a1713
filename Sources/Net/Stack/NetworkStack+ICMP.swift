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
  func receiveICMP(_ packet: IPv4Packet, _ now: UInt64) {
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

  private func sendEchoReply(_ packet: IPv4Packet, _ now: UInt64) {
    let bytes = packet.payload
    guard bytes.count + HeaderLength.ipv4 <= 65535, let source = bytes.baseAddress else { return }
    (frame + Self.transportOffset).copyMemory(from: source, byteCount: bytes.count)
    (frame + Self.transportOffset).put8(0, ICMP.echoReply)
    sendICMP(packet.destination, packet.source, bytes.count, now)
  }

  private func sendICMP(_ source: IPv4Address, _ destination: IPv4Address, _ length: Int, _ now: UInt64) {
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

  /// Tells a sender why its packet was not delivered, quoting its beginning (RFC 792).
  func sendUnreachable(_ packet: IPv4Packet, _ code: UInt8, _ now: UInt64) {
    guard mayChallenge(now), let source = packet.bytes.baseAddress else { return }
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
    let source = IPv4Address(rawValue: quoted.word32(12))
    let destination = IPv4Address(rawValue: quoted.word32(16))
    let local = Endpoint(source, quoted.word16(headerLength))
    let remote = Endpoint(destination, quoted.word16(headerLength + 2))
    let code = bytes.byte(1)
    switch quoted.byte(9) {
    case IPProtocol.udp: reportUDP(local, remote, error(for: code))
    case IPProtocol.tcp:
      guard let connection = connections[TableKey(local: local, remote: remote)] else { return }
      connection.receiveUnreachable(
        code, error(for: code), sequence: quoted.word32(headerLength + 4), nextMTU: Int(bytes.word16(6)))
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
  /// RFC 5927: only a message that quotes data in flight counts, and it ends attempts to connect only.
  func receiveUnreachable(_ code: UInt8, _ error: NetworkError, sequence: UInt32, nextMTU: Int) {
    guard isAtMost(unacknowledged, sequence), isBefore(sequence, sendNext) else { return }
    if code == ICMP.fragmentationNeeded {
      let size = max(nextMTU, 576) - 40 - (usesTimestamps ? 12 : 0)
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
