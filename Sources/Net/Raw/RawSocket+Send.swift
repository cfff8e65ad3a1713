extension RawSocket {
  /// Where the bytes of the next packet are put, followed at once by `commitSend`. Throws `messageTooLong`.
  public func sendRegion(_ length: Int) throws(NetworkError) -> UnsafeMutableRawBufferPointer {
    guard length >= 0, length <= Self.largestPayload else { throw .messageTooLong }
    let start = includesHeader ? headerStart : stack.frame + NetworkStack.transportOffset
    return UnsafeMutableRawBufferPointer(start: start, count: length)
  }

  private var headerStart: UnsafeMutableRawPointer {
    stack.frame + NetworkStack.ipv4Start + HeaderLength.ethernet
  }

  /// Sends the bytes put into `sendRegion`, to the connected peer when `target` is nil.
  public func commitSend(
    _ length: Int, to target: Endpoint?, with special: DatagramOptions = DatagramOptions(), now: UInt64
  ) throws(NetworkError) {
    guard length >= 0, length <= Self.largestPayload else { throw .messageTooLong }
    guard let peer = (target ?? remote)?.loopbackIfAny.address else { throw .destinationRequired }
    guard peer.isIPv4 != isIPv6 else { throw .networkUnreachable }
    var source = try stack.sourceAddress(toward: peer)
    if stack.isOwn(local.address) { source = local.address }
    if let wanted = special.source, !wanted.isAny {
      guard stack.isOwn(wanted) else { throw .invalid }
      source = wanted
    }
    if includesHeader {
      try sendWithHeader(length, source, peer, now)
    } else {
      var packet = Transmission(source, peer, kind)
      packet.length = length
      packet.headerLength = min(length, HeaderLength.icmp)
      packet.checksumOffset = try preparedChecksum(length)
      packet.timeToLive = special.timeToLive ?? (peer.isMulticast ? multicastTimeToLive : timeToLive)
      packet.trafficClass = special.trafficClass ?? trafficClass
      packet.loopsMulticast = loopsMulticast
      stack.transmit(packet, now)
    }
    stack.drainLoopback(now)
  }

  /// Ping sockets: sets the identifier and IPv4's checksum. Where the stack shall compute one, or -1.
  private func preparedChecksum(_ length: Int) throws(NetworkError) -> Int {
    let message = stack.frame + NetworkStack.transportOffset
    if isPing {
      let bytes = UnsafeRawBufferPointer(start: message, count: length)
      let request = isIPv6 ? ICMPv6.echoRequest : ICMP.echoRequest
      guard length >= HeaderLength.icmp, bytes.byte(0) == request, bytes.byte(1) == 0 else { throw .invalid }
      if local.port == 0 { try bind(Endpoint(local.address, 0)) }
      message.put16(4, local.port)
      if !isIPv6 {
        message.put16(2, 0)
        var sum = Checksum()
        sum.add(bytes)
        message.put16(2, sum.value)
        return -1
      }
    }
    if kind == IPProtocol.icmpv6 {
      guard length >= 4 else { throw .invalid }
      return 2
    }
    guard checksumOffset >= 0, checksumOffset + 2 <= length else { return -1 }
    return checksumOffset
  }

  /// raw(7): the length and the checksum are always filled in, the identification and the source if zero.
  private func sendWithHeader(
    _ length: Int, _ source: IPAddress, _ peer: IPAddress, _ now: UInt64
  ) throws(NetworkError) {
    let header = headerStart
    let bytes = UnsafeRawBufferPointer(start: header, count: length)
    let headerLength = Int(bytes.byte(0) & 15) * 4
    guard length >= HeaderLength.ipv4, bytes.byte(0) >> 4 == 4, headerLength >= HeaderLength.ipv4,
      headerLength <= length
    else { throw .invalid }
    header.put16(2, UInt16(length))
    if bytes.word16(4) == 0 {
      stack.identification &+= 1
      header.put16(4, stack.identification)
    }
    if bytes.word32(12) == 0 { header.put32(12, source.ipv4.rawValue) }
    header.put16(10, 0)
    var sum = Checksum()
    sum.add(UnsafeRawBufferPointer(start: header, count: headerLength))
    header.put16(10, sum.value)
    if stack.isOwn(peer) {
      stack.loopBack(length, NetworkStack.ipv4Start)
    } else if let hop = stack.nextHop(peer), stack.device != nil {
      guard length <= stack.linkMTU else { throw .messageTooLong }
      stack.send(TransmitOffload(), HeaderLength.ethernet + length, to: hop, now)
    }
  }
}
