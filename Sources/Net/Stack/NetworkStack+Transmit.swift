// Sending: the transport has built its part in the frame buffer; here come the IPv4 and Ethernet headers.

/// One packet whose transport header and payload stand at `NetworkStack.transportOffset` in the frame buffer.
struct Transmission {
  let source: IPv4Address
  let destination: IPv4Address
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

  init(_ source: IPv4Address, _ destination: IPv4Address, _ kind: UInt8) {
    self.source = source
    self.destination = destination
    self.kind = kind
  }
}

extension NetworkStack {
  func isOwn(_ target: IPv4Address) -> Bool { target.isLoopback || (target == address && !target.isAny) }

  func isBroadcast(_ target: IPv4Address) -> Bool {
    if target == .broadcast { return true }
    return !address.isAny && netmask != .max && netmask != 0
      && target.rawValue == address.rawValue | ~netmask
  }

  func canSegment(_ target: IPv4Address) -> Bool { offloads.segmentation || isOwn(target) }

  func mtu(toward target: IPv4Address) -> Int { isOwn(target) ? 65535 : linkMTU }

  /// The TCP segment size to announce (RFC 9293 section 3.7.1).
  func segmentSize(toward target: IPv4Address) -> Int { mtu(toward: target) - 40 }

  /// The address packets to `target` come from.
  func sourceAddress(toward target: IPv4Address) throws(NetworkError) -> IPv4Address {
    if target.isLoopback { return target }
    if target == address, !target.isAny { return target }
    guard !address.isAny, device != nil, nextHop(target) != nil else { throw .networkUnreachable }
    return address
  }

  func nextHop(_ target: IPv4Address) -> IPv4Address? {
    if isBroadcast(target) || target.isMulticast { return target }
    if (target.rawValue ^ address.rawValue) & netmask == 0 { return target }
    return gateway.isAny ? nil : gateway
  }

  /// Finishes the packet in the frame buffer and sends it.
  func transmit(_ packet: Transmission, _ now: UInt64) {
    identification &+= 1
    let total = HeaderLength.ipv4 + packet.length
    guard total <= 65535 else { return }
    writeIPv4Header(packet, total, identification, 0x4000)
    if isOwn(packet.destination) {
      loopback.append(UnsafeRawBufferPointer(start: frame + HeaderLength.ethernet, count: total))
      return
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

  private func writeIPv4Header(_ packet: Transmission, _ total: Int, _ id: UInt16, _ fragmentField: UInt16) {
    let header = frame + HeaderLength.ethernet
    header.put16(0, 0x4500)
    header.put16(2, UInt16(total))
    header.put16(4, id)
    header.put16(6, fragmentField)
    header.put8(8, packet.timeToLive)
    header.put8(9, packet.kind)
    header.put16(10, 0)
    header.put32(12, packet.source.rawValue)
    header.put32(16, packet.destination.rawValue)
    var sum = Checksum()
    sum.add(UnsafeRawBufferPointer(start: header, count: HeaderLength.ipv4))
    header.put16(10, sum.value)
  }

  private func finishChecksum(_ packet: Transmission, partial: Bool, _ segments: Bool) -> TransmitOffload {
    var offload = TransmitOffload()
    guard packet.checksumOffset >= 0 else { return offload }
    let transport = frame + Self.transportOffset
    var sum = Checksum()
    sum.addPseudoHeader(packet.source, packet.destination, packet.kind, packet.length)
    if partial {
      transport.put16(packet.checksumOffset, sum.folded)
      offload.needsChecksum = true
      offload.checksumStart = UInt16(Self.transportOffset)
      offload.checksumOffset = UInt16(packet.checksumOffset)
      if segments {
        offload.segmentSize = UInt16(packet.segmentSize)
        offload.headerLength = UInt16(Self.transportOffset + packet.headerLength)
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
  private func fragment(_ packet: Transmission, _ hop: IPv4Address, _ now: UInt64) {
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
      send(TransmitOffload(), Self.transportOffset + length, to: hop, now)
      offset += length
    }
  }

  private func send(_ offload: TransmitOffload, _ length: Int, to hop: IPv4Address, _ now: UInt64) {
    guard let destination = linkAddress(hop, offload, length, now) else { return }
    transmitFrame(offload, length, destination, EtherType.ipv4)
  }

  func transmitFrame(_ offload: TransmitOffload, _ length: Int, _ destination: MACAddress, _ type: UInt16) {
    frame.putMAC(0, destination)
    frame.putMAC(6, macAddress)
    frame.put16(12, type)
    device?.transmit(offload, UnsafeRawBufferPointer(start: frame, count: length))
  }
}
