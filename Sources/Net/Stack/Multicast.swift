// Membership in multicast groups: IGMPv3 (RFC 9776) and MLDv2 (RFC 9777), as hosts that filter no sources speak
// them, and the answer to IGMPv2 routers (RFC 2236).

/// The groups that sockets of this host have joined.
struct MulticastMemberships {
  private(set) var groups: [(address: IPAddress, members: Int)] = []
  /// When a router's question is to be answered, or `UInt64.max`.
  var answerIPv4 = UInt64.max
  var answerIPv6 = UInt64.max
  /// The router spoke IGMPv2.
  var usesVersion2 = false
  /// Reports to be repeated once, since any may be lost.
  var repeats: [(group: IPAddress, isJoined: Bool, due: UInt64)] = []

  static let limit = 256

  var deadline: UInt64 { min(answerIPv4, answerIPv6, repeats.first?.due ?? .max) }

  func contains(_ group: IPAddress) -> Bool {
    for entry in groups where entry.address == group { return true }
    return false
  }

  /// True when it is the first member.
  mutating func join(_ group: IPAddress) throws(NetworkError) -> Bool {
    for index in groups.indices where groups[index].address == group {
      groups[index].members += 1
      return false
    }
    guard groups.count < Self.limit else { throw .noBufferSpace }
    groups.append((group, 1))
    return true
  }

  /// True when it was the last member.
  mutating func leave(_ group: IPAddress) -> Bool {
    for index in groups.indices where groups[index].address == group {
      groups[index].members -= 1
      guard groups[index].members == 0 else { return false }
      groups.remove(at: index)
      return true
    }
    return false
  }
}

extension NetworkStack {
  /// One socket more wants packets to `group`. Throws `invalid` for what is no group, `noBufferSpace`.
  public func join(_ group: IPAddress, now: UInt64) throws(NetworkError) {
    guard group.isMulticast else { throw .invalid }
    if try multicast.join(group) { reportMembership(group, isJoined: true, now) }
  }

  public func leave(_ group: IPAddress, now: UInt64) {
    if multicast.leave(group) { reportMembership(group, isJoined: false, now) }
  }

  /// The groups joined, for whoever lists them.
  public var multicastGroups: [IPAddress] { multicast.groups.map { $0.address } }

  private enum Record {
    static let isExclude: UInt8 = 2
    static let toInclude: UInt8 = 3
    static let toExclude: UInt8 = 4
  }

  /// Tells routers and switches of a change, twice.
  func reportMembership(_ group: IPAddress, isJoined: Bool, _ now: UInt64) {
    guard device != nil, isReported(group) else { return }
    report([group], isJoined ? Record.toExclude : Record.toInclude, now)
    multicast.repeats.removeAll { $0.group == group }
    guard multicast.repeats.count < MulticastMemberships.limit else { return }
    multicast.repeats.append((group, isJoined, now &+ Nanoseconds.second))
  }

  /// Every host is in 224.0.0.1 and ff02::1, and what is in one host concerns no router.
  private func isReported(_ group: IPAddress) -> Bool {
    if group.isIPv4 { return group.ipv4 != IPv4Address(224, 0, 0, 1) && !address.isAny }
    return ipv6.isEnabled && group != .allNodes && (group.high >> 48) & 15 > 1
  }

  func pollMulticast(_ now: UInt64) {
    guard multicast.deadline <= now else { return }
    while let next = multicast.repeats.first, next.due <= now {
      multicast.repeats.removeFirst()
      report([next.group], next.isJoined ? Record.toExclude : Record.toInclude, now)
    }
    if multicast.answerIPv4 <= now {
      multicast.answerIPv4 = .max
      report(multicastGroups.filter { $0.isIPv4 && isReported($0) }, Record.isExclude, now)
    }
    if multicast.answerIPv6 <= now {
      multicast.answerIPv6 = .max
      let own = ipv6.addresses.map { $0.address.solicitedNode }
      report(multicastGroups.filter { !$0.isIPv4 && isReported($0) } + own, Record.isExclude, now)
    }
  }

  // MARK: Questions

  func receiveIGMP(_ packet: IPPacket, _ now: UInt64) {
    let bytes = packet.payload
    var sum = Checksum()
    sum.add(bytes)
    guard bytes.count >= 8, sum.value == 0, bytes.byte(0) == 0x11 else { return }
    multicast.usesVersion2 = bytes.count < 12
    // Tenths of a second; the answer comes at a random moment of that time.
    let longest = UInt64(min(max(bytes.byte(1), 1), 100)) * 100 * Nanoseconds.millisecond
    multicast.answerIPv4 = min(multicast.answerIPv4, now &+ random.next() % longest)
  }

  func receiveListenerQuery(_ packet: IPPacket, _ now: UInt64) {
    guard packet.payload.count >= 24, packet.source.isLinkLocal, packet.timeToLive == 1 else { return }
    let longest = UInt64(min(max(packet.payload.word16(4), 1), 10_000)) * Nanoseconds.millisecond
    multicast.answerIPv6 = min(multicast.answerIPv6, now &+ random.next() % longest)
  }

  // MARK: Reports

  /// Sends reports of one family, as many as the groups need.
  private func report(_ groups: [IPAddress], _ kind: UInt8, _ now: UInt64) {
    let most = 50
    var start = 0
    while start < groups.count {
      let part = groups[start..<min(start + most, groups.count)]
      start += part.count
      guard let first = part.first else { return }
      if !first.isIPv4 {
        reportIPv6(part, kind, now)
      } else if multicast.usesVersion2 {
        for group in part { reportVersion2(group, isJoined: kind != Record.toInclude, now) }
      } else {
        reportIPv4(part, kind, now)
      }
    }
  }

  private func reportIPv6(_ groups: ArraySlice<IPAddress>, _ kind: UInt8, _ now: UInt64) {
    let source = (try? sourceAddressIPv6(toward: .allListeners)) ?? .any
    let options = frame + Self.transportOffset
    // A hop-by-hop header with the router alert (RFC 2711) and two bytes of padding.
    options.put32(0, UInt32(IPProtocol.icmpv6) << 24 | 0x0502)
    options.put32(4, 0x0000_0100)
    let message = options + 8
    message.put32(0, UInt32(ICMPv6.listenerReport) << 24)
    message.put32(4, UInt32(groups.count))
    var length = 8
    for group in groups {
      message.put32(length, UInt32(kind) << 24)
      message.putAddress(length + 4, group)
      length += 20
    }
    var sum = Checksum()
    sum.addPseudoHeader(source, .allListeners, IPProtocol.icmpv6, length)
    sum.add(UnsafeRawBufferPointer(start: message, count: length))
    message.put16(2, sum.value)
    var transmission = Transmission(source, .allListeners, IPProtocol.hopByHop)
    transmission.length = 8 + length
    transmission.headerLength = 8
    transmission.timeToLive = 1
    transmission.loopsMulticast = false
    transmit(transmission, now)
  }

  private func reportIPv4(_ groups: ArraySlice<IPAddress>, _ kind: UInt8, _ now: UInt64) {
    let message = frame + Self.transportOffset + 4
    message.put32(0, 0x2200_0000)
    message.put32(4, UInt32(groups.count))
    var length = 8
    for group in groups {
      message.put32(length, UInt32(kind) << 24)
      message.put32(length + 4, group.ipv4.rawValue)
      length += 8
    }
    sendIGMP(IPv4Address(224, 0, 0, 22), length, now)
  }

  private func reportVersion2(_ group: IPAddress, isJoined: Bool, _ now: UInt64) {
    let message = frame + Self.transportOffset + 4
    message.put32(0, isJoined ? 0x1600_0000 : 0x1700_0000)
    message.put32(4, group.ipv4.rawValue)
    sendIGMP(isJoined ? group.ipv4 : IPv4Address(224, 0, 0, 2), 8, now)
  }

  /// Sends the message that stands four bytes behind the transport offset: the header has the router alert option.
  private func sendIGMP(_ destination: IPv4Address, _ length: Int, _ now: UInt64) {
    let message = frame + Self.transportOffset + 4
    var sum = Checksum()
    sum.add(UnsafeRawBufferPointer(start: message, count: length))
    message.put16(2, sum.value)
    let header = frame + Self.ipv4Start + HeaderLength.ethernet
    let headerLength = HeaderLength.ipv4 + 4
    identification &+= 1
    header.put32(0, 0x46C0_0000 | UInt32(headerLength + length))
    header.put32(4, UInt32(identification) << 16)
    header.put32(8, 0x0100_0000 | UInt32(IPProtocol.igmp) << 16)
    header.put32(12, address.rawValue)
    header.put32(16, destination.rawValue)
    header.put32(20, 0x9404_0000)
    sum = Checksum()
    sum.add(UnsafeRawBufferPointer(start: header, count: headerLength))
    header.put16(10, sum.value)
    send(TransmitOffload(), HeaderLength.ethernet + headerLength + length, to: IPAddress(destination), now)
  }
}
