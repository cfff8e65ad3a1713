// Sending: the transport has built its part in the frame buffer; here come the IP and Ethernet headers (for IPv6 see
// NetworkStack+IPv6Transmit.swift).

/// One packet whose transport header and payload stand at `NetworkStack.transportOffset` in the frame buffer.
struct Transmission {
  let source: IPAddress
  let destination: IPAddress
  let kind: UInt8
  /// Bytes of transport header and payload.
  var length = 0
  /// Bytes of transport header.
  var headerLength = 0
  /// Payload bytes per segment when the packet is to be cut, or 0.
  var segmentSize = 0
  /// Where the transport checksum is, or -1 when it is already done.
  var checksumOffset = -1
  var timeToLive: UInt8 = 64

  /// The type of service or traffic class.
  var trafficClass: UInt8 = 0
  /// Copies of multicast packets come back to the own members (IP_MULTICAST_LOOP).
  var loopsMulticast = true

  init(_ source: IPAddress, _ destination: IPAddress, _ kind: UInt8) {
    self.source = source
    self.destination = destination
    self.kind = kind
  }
}

extension NetworkStack {
  func isOwn(_ target: IPAddress) -> Bool {
    if target.isIPv4 { return target.ipv4.isLoopback || (target.ipv4 == address && !address.isAny) }
    return isOwnIPv6(target)
  }

  func isBroadcast(_ target: IPAddress) -> Bool {
    guard target.isIPv4 else { return false }
    if target.ipv4 == .broadcast { return true }
    return !address.isAny && netmask != .max && netmask != 0
      && target.ipv4.rawValue == address.rawValue | ~netmask
  }

  func canSegment(_ target: IPAddress) -> Bool { offloads.segmentation || isOwn(target) }

  func mtu(toward target: IPAddress) -> Int {
    if isOwn(target) { return 65535 }
    return target.isIPv4 ? linkMTU : pathMTU(toward: target)
  }

  /// The TCP segment size to announce (RFC 9293 section 3.7.1).
  func segmentSize(toward target: IPAddress) -> Int {
    mtu(toward: target) - (target.isIPv4 ? HeaderLength.ipv4 : HeaderLength.ipv6) - HeaderLength.tcp
  }

  /// The address packets to `target` come from.
  public func sourceAddress(toward target: IPAddress) throws(NetworkError) -> IPAddress {
    guard target.isIPv4 else { return try sourceAddressIPv6(toward: target) }
    if target.isLoopback || isOwn(target) { return target }
    guard !address.isAny, device != nil, nextHop(target) != nil else { throw .networkUnreachable }
    return IPAddress(address)
  }

  /// The neighbour to hand packets for `target` to.
  func nextHop(_ target: IPAddress) -> IPAddress? {
    guard target.isIPv4 else { return nextHopIPv6(target) }
    if isBroadcast(target) || target.isMulticast { return target }
    if (target.ipv4.rawValue ^ address.rawValue) & netmask == 0 { return target }
    return gateway.isAny ? nil : IPAddress(gateway)
  }

  /// Finishes the packet in the frame buffer and sends it.
  func transmit(_ packet: Transmission, _ now: UInt64) {
    guard packet.destination.isIPv4 else { return transmitIPv6(packet, now) }
    identification &+= 1
    let total = HeaderLength.ipv4 + packet.length
    guard total <= 65535 else { return }
    writeIPv4Header(packet, total, identification, 0x4000)
    if isOwn(packet.destination) {
      loopBack(total, Self.ipv4Start)
      return
    }
    if packet.destination.isMulticast, packet.loopsMulticast, multicast.contains(packet.destination) {
      loopBack(total, Self.ipv4Start)
    }
    guard device != nil, let hop = nextHop(packet.destination) else { return }
    let fits = total <= linkMTU
    let segments = packet.segmentSize > 0 && offloads.segmentation
    let offload = finishChecksum(packet, partial: offloads.checksum && (fits || segments), segments)
    if fits || segments {
      send(offload, HeaderLength.ethernet + total, to: hop, now)
    } else {
      fragment(packet, hop, now)
    }
  }

  /// Queues the IP packet in the frame buffer, whose Ethernet header begins at `start`, for the stack itself.
  func loopBack(_ length: Int, _ start: Int) {
    let packet = UnsafeRawBufferPointer(start: frame + start + HeaderLength.ethernet, count: length)
    if !packetSockets.isEmpty { observeLoopback(packet) }
    loopback.append(packet)
  }

  private func writeIPv4Header(_ packet: Transmission, _ total: Int, _ id: UInt16, _ fragmentField: UInt16) {
    let header = frame + Self.ipv4Start + HeaderLength.ethernet
    header.put16(0, 0x4500 | UInt16(packet.trafficClass))
    header.put16(2, UInt16(total))
    header.put16(4, id)
    header.put16(6, fragmentField)
    header.put8(8, packet.timeToLive)
    header.put8(9, packet.kind)
    header.put16(10, 0)
    header.put32(12, packet.source.ipv4.rawValue)
    header.put32(16, packet.destination.ipv4.rawValue)
    var sum = Checksum()
    sum.add(UnsafeRawBufferPointer(start: header, count: HeaderLength.ipv4))
    header.put16(10, sum.value)
  }

  /// Transport checksum: done, or left to the link (`partial`).
  func finishChecksum(_ packet: Transmission, partial: Bool, _ segments: Bool) -> TransmitOffload {
    var offload = TransmitOffload()
    guard packet.checksumOffset >= 0 else { return offload }
    // The link counts from the beginning of the frame, which depends on the family.
    let start = Self.transportOffset - (packet.destination.isIPv4 ? Self.ipv4Start : 0)
    offload.isIPv6 = !packet.destination.isIPv4
    let transport = frame + Self.transportOffset
    var sum = Checksum()
    sum.addPseudoHeader(packet.source, packet.destination, packet.kind, packet.length)
    if partial {
      transport.put16(packet.checksumOffset, sum.folded)
      offload.needsChecksum = true
      offload.checksumStart = UInt16(start)
      offload.checksumOffset = UInt16(packet.checksumOffset)
      if segments {
        offload.segmentSize = UInt16(packet.segmentSize)
        offload.headerLength = UInt16(start + packet.headerLength)
      }
      return offload
    }
    transport.put16(packet.checksumOffset, 0)
    sum.add(UnsafeRawBufferPointer(start: transport, count: packet.length))
    let value = sum.value
    // Zero means "no checksum" in UDP (RFC 768).
    transport.put16(packet.checksumOffset, value == 0 && packet.kind == IPProtocol.udp ? 0xFFFF : value)
    return offload
  }

  /// Cuts a large datagram (RFC 791 section 3.2). Rare, so the copy is allocated.
  private func fragment(_ packet: Transmission, _ hop: IPAddress, _ now: UInt64) {
    let id = identification
    let piece = (linkMTU - HeaderLength.ipv4) & ~7
    let payload = UnsafeMutableRawPointer.allocate(byteCount: packet.length, alignment: 16)
    defer { payload.deallocate() }
    payload.copyMemory(from: frame + Self.transportOffset, byteCount: packet.length)
    var offset = 0
    while offset < packet.length {
      let length = min(piece, packet.length - offset)
      let more: UInt16 = offset + length < packet.length ? 0x2000 : 0
      (frame + Self.transportOffset).copyMemory(from: payload + offset, byteCount: length)
      writeIPv4Header(packet, HeaderLength.ipv4 + length, id, more | UInt16(offset / 8))
      send(TransmitOffload(), HeaderLength.ethernet + HeaderLength.ipv4 + length, to: hop, now)
      offset += length
    }
  }

  /// Sends the frame in the buffer, which begins where its family's do, to a neighbour.
  func send(_ offload: TransmitOffload, _ length: Int, to hop: IPAddress, _ now: UInt64) {
    guard let destination = linkAddress(hop, offload, length, now) else { return }
    transmitFrame(offload, length, destination, hop.isIPv4 ? EtherType.ipv4 : EtherType.ipv6)
  }

  func transmitFrame(_ offload: TransmitOffload, _ length: Int, _ destination: MACAddress, _ type: UInt16) {
    let start = frame + (type == EtherType.ipv4 ? Self.ipv4Start : 0)
    start.putMAC(0, destination)
    start.putMAC(6, macAddress)
    start.put16(12, type)
    let bytes = UnsafeRawBufferPointer(start: start, count: length)
    if !packetSockets.isEmpty { observe(bytes, outgoing: true) }
    device?.transmit(offload, bytes)
  }
}
