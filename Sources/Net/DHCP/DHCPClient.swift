/// What a DHCP server has given (RFC 2131).
public struct DHCPLease {
  public let address: IPv4Address
  public let prefixLength: Int
  public let gateway: IPv4Address
  public let nameServers: [IPv4Address]
  let server: IPv4Address
  /// Nanoseconds; `UInt64.max` is for ever.
  let renewAt: UInt64
  let rebindAt: UInt64
  public let validUntil: UInt64

  /// Times that make no sense become the usual parts of the lease (RFC 2131 section 4.4.5).
  init(_ message: DHCPMessage, _ now: UInt64) {
    address = message.address
    prefixLength = message.prefixLength
    gateway = message.router
    nameServers = message.nameServers
    server = message.server
    guard message.lease != .max else {
      renewAt = .max
      rebindAt = .max
      validUntil = .max
      return
    }
    // Less than a minute would only keep everybody busy.
    let lease = max(UInt64(message.lease), 60)
    let rebinding = UInt64(message.rebinding)
    let isSensible = rebinding > 0 && rebinding < lease
    let second = isSensible ? rebinding : lease * 7 / 8
    let renewal = UInt64(message.renewal)
    let first = renewal > 0 && renewal < second ? renewal : min(lease / 2, second)
    renewAt = now &+ first * Nanoseconds.second
    rebindAt = now &+ second * Nanoseconds.second
    validUntil = now &+ lease * Nanoseconds.second
  }
}

/// The state of the client (RFC 2131 figure 5). Renewing and rebinding are told apart by the time.
struct DHCPClient {
  enum State {
    case off, selecting, requesting, bound, renewing
  }

  var state = State.off
  var transaction: UInt32 = 0
  /// The offer that is being asked for.
  var offered = IPv4Address.any
  var server = IPv4Address.any
  var lease: DHCPLease?
  var hostName: [UInt8] = []
  var attempts = 0
  var deadline = UInt64.max
  var startedAt: UInt64 = 0

  static let clientPort: UInt16 = 68
  static let serverPort: UInt16 = 67
}

extension NetworkStack {
  /// Asks for an address, and keeps it for as long as the stack lives. `hostName` is told to the server unless
  /// empty.
  public func startDHCP(hostName: [UInt8], now: UInt64) {
    guard device != nil, dhcp.state == .off else { return }
    dhcp.hostName = Array(hostName.prefix(63))
    discover(now)
  }

  /// What the server gave; nil before it did and after it has run out.
  public var lease: DHCPLease? { dhcp.lease }

  private func discover(_ now: UInt64) {
    dhcp.state = .selecting
    dhcp.transaction = UInt32(truncatingIfNeeded: random.next())
    dhcp.startedAt = now
    dhcp.attempts = 0
    ask(now)
  }

  func pollDHCP(_ now: UInt64) {
    guard dhcp.deadline <= now else { return }
    switch dhcp.state {
    case .off: dhcp.deadline = .max
    case .selecting: ask(now)
    case .requesting:
      // The server may be gone: begin anew (RFC 2131 section 3.1 item 5).
      if dhcp.attempts >= 4 { discover(now) } else { ask(now) }
    case .bound:
      dhcp.state = .renewing
      dhcp.transaction = UInt32(truncatingIfNeeded: random.next())
      dhcp.startedAt = now
      ask(now)
    case .renewing:
      guard let lease = dhcp.lease, lease.validUntil > now else {
        loseLease()
        return discover(now)
      }
      ask(now)
    }
  }

  private func loseLease() {
    dhcp.lease = nil
    configure(address: .any, prefixLength: 0, gateway: .any)
    ipv6.generation += 1
  }

  // MARK: Sending

  /// Sends what the state calls for and sets the time to do it again.
  private func ask(_ now: UInt64) {
    dhcp.attempts += 1
    if dhcp.state == .renewing, let lease = dhcp.lease {
      // Half of the time that is left, but not more than once a minute (RFC 2131 section 4.4.5).
      let end = now < lease.rebindAt ? lease.rebindAt : lease.validUntil
      let half = (end > now ? end - now : 0) / 2
      dhcp.deadline = min(now &+ max(half, 60 * Nanoseconds.second), lease.validUntil)
    } else {
      // 1, 2, 4… 64 seconds, give or take a quarter (RFC 2131 section 4.1 begins with four).
      let interval = Nanoseconds.second << UInt64(min(dhcp.attempts - 1, 6))
      dhcp.deadline = now &+ interval * 3 / 4 &+ random.next() % (interval / 2)
    }
    let length = writeMessage(now)
    var source = IPAddress.anyIPv4
    var destination = IPAddress(IPv4Address.broadcast)
    if dhcp.state == .renewing, let lease = dhcp.lease {
      source = IPAddress(lease.address)
      if now < lease.rebindAt { destination = IPAddress(lease.server) }
    }
    let header = frame + Self.transportOffset
    header.put16(0, DHCPClient.clientPort)
    header.put16(2, DHCPClient.serverPort)
    header.put16(4, UInt16(HeaderLength.udp + length))
    header.put16(6, 0)
    var packet = Transmission(source, destination, IPProtocol.udp)
    packet.length = HeaderLength.udp + length
    packet.headerLength = HeaderLength.udp
    packet.checksumOffset = 6
    transmit(packet, now)
  }

  /// Builds the message behind the UDP header; its length.
  private func writeMessage(_ now: UInt64) -> Int {
    let message = frame + Self.transportOffset + HeaderLength.udp
    UnsafeMutableRawBufferPointer(start: message, count: 600).initializeMemory(as: UInt8.self, repeating: 0)
    message.put32(0, 0x0101_0600)
    message.put32(4, dhcp.transaction)
    message.put16(8, UInt16(clamping: (now &- dhcp.startedAt) / Nanoseconds.second))
    // There is no address yet that an answer could be sent to: broadcast it.
    if dhcp.state != .renewing { message.put16(10, 0x8000) }
    if dhcp.state == .renewing, let lease = dhcp.lease { message.put32(12, lease.address.rawValue) }
    message.putMAC(28, macAddress)
    message.put32(236, DHCPMessage.cookie)
    var length = DHCPMessage.fixedLength
    func option(_ kind: UInt8, _ value: [UInt8]) {
      message.put8(length, kind)
      message.put8(length + 1, UInt8(value.count))
      for (index, byte) in value.enumerated() { message.put8(length + 2 + index, byte) }
      length += 2 + value.count
    }
    func bytes(_ value: UInt32) -> [UInt8] {
      [
        UInt8(truncatingIfNeeded: value >> 24), UInt8(truncatingIfNeeded: value >> 16),
        UInt8(truncatingIfNeeded: value >> 8), UInt8(truncatingIfNeeded: value),
      ]
    }
    option(DHCPOption.messageType, [dhcp.state == .selecting ? DHCPType.discover : DHCPType.request])
    let mac = macAddress.rawValue
    option(
      DHCPOption.clientIdentifier,
      [1, UInt8(truncatingIfNeeded: mac >> 40), UInt8(truncatingIfNeeded: mac >> 32)]
        + bytes(UInt32(truncatingIfNeeded: mac)))
    if dhcp.state == .requesting {
      option(DHCPOption.requestedAddress, bytes(dhcp.offered.rawValue))
      option(DHCPOption.server, bytes(dhcp.server.rawValue))
    }
    option(DHCPOption.largestMessage, [5, 220])
    if !dhcp.hostName.isEmpty { option(DHCPOption.hostName, dhcp.hostName) }
    option(
      DHCPOption.parameters,
      [
        DHCPOption.subnetMask, DHCPOption.router, DHCPOption.nameServers, DHCPOption.leaseTime,
        DHCPOption.renewalTime, DHCPOption.rebindingTime,
      ])
    message.put8(length, DHCPOption.end)
    // BOOTP's least length, which some servers want.
    return max(length + 1, 300)
  }

  // MARK: Receiving

  /// Whether a datagram is the client's, although its address may not be ours yet.
  func isForDHCP(_ packet: IPPacket) -> Bool {
    dhcp.state != .off && dhcp.state != .bound && packet.kind == IPProtocol.udp && !packet.isIPv6
      && packet.payload.word16(0) == DHCPClient.serverPort
      && packet.payload.word16(2) == DHCPClient.clientPort
  }

  func receiveDHCP(_ packet: IPPacket, _ validated: Bool, _ now: UInt64) {
    guard let datagram = UDPDatagram(packet.payload),
      validated || datagram.checksum == 0 || checksumIsRight(packet),
      let message = DHCPMessage(datagram.payload, for: macAddress), message.transaction == dhcp.transaction
    else { return }
    switch (dhcp.state, message.type) {
    case (.selecting, DHCPType.offer):
      guard isUsable(message) else { return }
      dhcp.offered = message.address
      dhcp.server = message.server
      dhcp.state = .requesting
      dhcp.attempts = 0
      ask(now)
    case (.requesting, DHCPType.acknowledge), (.renewing, DHCPType.acknowledge):
      guard isUsable(message), dhcp.state == .renewing || message.address == dhcp.offered else { return }
      take(DHCPLease(message, now))
    case (.requesting, DHCPType.refuse):
      // Anew, but not at once: a server that offers and refuses must not make a storm.
      dhcp.state = .selecting
      dhcp.attempts = 0
      dhcp.transaction = UInt32(truncatingIfNeeded: random.next())
      dhcp.startedAt = now
      dhcp.deadline = now &+ 10 * Nanoseconds.second
    case (.renewing, DHCPType.refuse):
      loseLease()
      discover(now)
    default: return
    }
  }

  private func isUsable(_ message: DHCPMessage) -> Bool {
    let address = message.address
    return !address.isAny && !address.isLoopback && !address.isMulticast && address != .broadcast
      && !message.server.isAny && (message.type == DHCPType.offer || message.lease > 0)
  }

  private func take(_ lease: DHCPLease) {
    let old = dhcp.lease
    dhcp.lease = lease
    dhcp.state = .bound
    dhcp.deadline = lease.renewAt
    guard
      lease.address != old?.address || lease.gateway != old?.gateway
        || lease.prefixLength != old?.prefixLength || lease.nameServers != old?.nameServers
    else { return }
    configure(address: lease.address, prefixLength: lease.prefixLength, gateway: lease.gateway)
    announce()
    ipv6.generation += 1
  }
}
