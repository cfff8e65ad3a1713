/// Message types and codes of RFC 4443 and RFC 4861.
enum ICMPv6 {
  static let destinationUnreachable: UInt8 = 1
  static let packetTooBig: UInt8 = 2
  static let timeExceeded: UInt8 = 3
  static let parameterProblem: UInt8 = 4
  static let echoRequest: UInt8 = 128
  static let echoReply: UInt8 = 129
  static let listenerQuery: UInt8 = 130
  static let routerSolicitation: UInt8 = 133
  static let routerAdvertisement: UInt8 = 134
  static let neighbourSolicitation: UInt8 = 135
  static let neighbourAdvertisement: UInt8 = 136
  static let listenerReport: UInt8 = 143
  // Codes of destination unreachable and of parameter problem.
  static let portUnreachable: UInt8 = 4
  static let erroneousField: UInt8 = 0
  static let unknownNextHeader: UInt8 = 1
  static let unknownOption: UInt8 = 2
}

extension NetworkStack {
  func receiveICMPv6(_ packet: IPPacket, _ validated: Bool, _ now: UInt64) {
    let bytes = packet.payload
    guard bytes.count >= HeaderLength.icmp, validated || checksumIsRight(packet) else { return }
    switch bytes.byte(0) {
    case ICMPv6.echoRequest: answerEcho(packet, now)
    case ICMPv6.destinationUnreachable, ICMPv6.packetTooBig, ICMPv6.timeExceeded, ICMPv6.parameterProblem:
      receiveErrorICMPv6(bytes, now)
    case ICMPv6.listenerQuery: receiveListenerQuery(packet, now)
    // RFC 4861: never through a router, which would have counted the hop limit down; a code means another protocol.
    case ICMPv6.routerAdvertisement where packet.timeToLive == 255 && bytes.byte(1) == 0:
      receiveAdvertisement(packet, now)
    case ICMPv6.neighbourSolicitation where packet.timeToLive == 255 && bytes.byte(1) == 0:
      receiveSolicitation(packet, now)
    case ICMPv6.neighbourAdvertisement where packet.timeToLive == 255 && bytes.byte(1) == 0:
      receiveNeighbour(packet, now)
    default: return
    }
  }

  private func answerEcho(_ packet: IPPacket, _ now: UInt64) {
    let bytes = packet.payload
    guard let start = bytes.baseAddress, !packet.source.isAny else { return }
    var source = packet.destination
    if source.isMulticast {
      guard let own = try? sourceAddressIPv6(toward: packet.source) else { return }
      source = own
    }
    let message = frame + Self.transportOffset
    message.copyMemory(from: start, byteCount: bytes.count)
    message.put8(0, ICMPv6.echoReply)
    sendICMPv6(source, packet.source, bytes.count, now)
  }

  /// Sends the message in the frame buffer.
  func sendICMPv6(
    _ source: IPAddress, _ destination: IPAddress, _ length: Int, hopLimit: UInt8? = nil, _ now: UInt64
  ) {
    var transmission = Transmission(source, destination, IPProtocol.icmpv6)
    transmission.length = length
    transmission.headerLength = HeaderLength.icmp
    transmission.checksumOffset = 2
    transmission.timeToLive = hopLimit ?? ipv6.hopLimit
    transmission.loopsMulticast = false
    transmit(transmission, now)
  }

  /// Tells a sender why its packet was not delivered, quoting what fits the least MTU (RFC 4443 section 2.4).
  func sendErrorICMPv6(_ packet: IPPacket, _ kind: UInt8, _ code: UInt8, _ pointer: UInt32, _ now: UInt64) {
    // Not about errors, not to nobody; of multicast only options may be refused (section 2.4 e).
    let isError = packet.kind == IPProtocol.icmpv6 && packet.payload.byte(0) < 128
    guard !isError, !packet.source.isAny, !packet.source.isMulticast, let start = packet.bytes.baseAddress
    else { return }
    if packet.destination.isMulticast, kind != ICMPv6.parameterProblem || code != ICMPv6.unknownOption {
      return
    }
    var source = packet.destination
    if source.isMulticast {
      guard let own = try? sourceAddressIPv6(toward: packet.source) else { return }
      source = own
    }
    guard mayReport(to: packet.source, now) else { return }
    let room = IPv6Interface.leastMTU - HeaderLength.ipv6 - HeaderLength.icmp
    let quoted = min(packet.bytes.count, room)
    let message = frame + Self.transportOffset
    (message + HeaderLength.icmp).copyMemory(from: start, byteCount: quoted)
    message.put8(0, kind)
    message.put8(1, code)
    message.put32(4, pointer)
    sendICMPv6(source, packet.source, HeaderLength.icmp + quoted, now)
  }

  /// The quoted packet is one of ours: find who sent it.
  private func receiveErrorICMPv6(_ bytes: UnsafeRawBufferPointer, _ now: UInt64) {
    let quoted = bytes.part(HeaderLength.icmp, bytes.count)
    guard quoted.count >= HeaderLength.ipv6 + 8, quoted.byte(0) >> 4 == 6, isOwnIPv6(quoted.address(8))
    else { return }
    let destination = quoted.address(24)
    var nextMTU = 0
    if bytes.byte(0) == ICMPv6.packetTooBig {
      // Less than the least MTU would only be an attack (RFC 8201 section 4).
      nextMTU = max(Int(min(bytes.word32(4), 65535)), IPv6Interface.leastMTU)
      if nextMTU < pathMTU(toward: destination) { notePath(destination, nextMTU, now) }
    }
    report(
      errorICMPv6(bytes.byte(0), bytes.byte(1)), nextMTU: nextMTU, quoted.byte(6),
      quoted.part(HeaderLength.ipv6, quoted.count), from: quoted.address(8), to: destination)
  }

  private func errorICMPv6(_ kind: UInt8, _ code: UInt8) -> NetworkError {
    switch (kind, code) {
    case (ICMPv6.packetTooBig, _): .messageTooLong
    case (ICMPv6.destinationUnreachable, 0): .networkUnreachable
    case (ICMPv6.destinationUnreachable, 1), (ICMPv6.destinationUnreachable, 5...6): .accessDenied
    case (ICMPv6.destinationUnreachable, ICMPv6.portUnreachable): .connectionRefused
    case (ICMPv6.parameterProblem, _): .connectionRefused
    default: .hostUnreachable
    }
  }
}
