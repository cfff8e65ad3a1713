/// What is known of one address on the link (RFC 826, RFC 1122 section 2.3.2; RFC 4861 section 5.1). Both
/// families share the table; ARP and neighbour discovery fill it.
final class Neighbour {
  let address: IPAddress
  var mac = MACAddress(rawValue: 0)
  var isResolved = false
  /// When resolved: ask again after this. When not: next request or failure.
  var deadline: UInt64
  var attempts = 1
  /// Frames waiting for the answer.
  private(set) var waiting: [(TransmitOffload, UnsafeMutableRawBufferPointer)] = []

  static let attemptLimit = 3
  static let retryInterval = Nanoseconds.second
  static let lifetime = 60 * Nanoseconds.second
  static let waitingLimit = 8
  static let limit = 1024

  init(_ address: IPAddress, _ deadline: UInt64) {
    self.address = address
    self.deadline = deadline
  }

  func hold(_ offload: TransmitOffload, _ frame: UnsafeRawBufferPointer) {
    guard waiting.count < Self.waitingLimit else { return }
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: frame.count, alignment: 16)
    copy.copyMemory(from: frame)
    waiting.append((offload, copy))
  }

  func drop() {
    for (_, frame) in waiting { frame.deallocate() }
    waiting.removeAll()
  }
}

extension NetworkStack {
  /// The Ethernet address for a next hop; nil when it must be asked for, and the frame waits.
  func linkAddress(_ hop: IPAddress, _ offload: TransmitOffload, _ length: Int, _ now: UInt64) -> MACAddress?
  {
    if isBroadcast(hop) { return .broadcast }
    if hop.isMulticast {
      // RFC 1112 section 6.4 and RFC 2464 section 7.
      let group = UInt64(hop.ipv4.rawValue)
      return MACAddress(
        rawValue: hop.isIPv4 ? 0x0100_5E00_0000 | group & 0x7F_FFFF : 0x3333_0000_0000 | group)
    }
    let bytes = UnsafeRawBufferPointer(start: frame + (hop.isIPv4 ? Self.ipv4Start : 0), count: length)
    guard let neighbour = neighbour(hop) else {
      let new = Neighbour(hop, now &+ Neighbour.retryInterval)
      if neighbours.count >= Neighbour.limit { neighbours.removeFirst().drop() }
      neighbours.append(new)
      new.hold(offload, bytes)
      ask(new, now)
      return nil
    }
    guard neighbour.isResolved else {
      neighbour.hold(offload, bytes)
      return nil
    }
    if neighbour.deadline <= now {
      // Stale: keep using it, but ask again; the frame in the buffer must survive the question.
      neighbour.deadline = now &+ Neighbour.lifetime
      neighbour.hold(offload, bytes)
      ask(neighbour, now)
      release(neighbour)
      return nil
    }
    return neighbour.mac
  }

  private func ask(_ neighbour: Neighbour, _ now: UInt64) {
    if neighbour.address.isIPv4 {
      sendARP(ARPPacket.request, neighbour.address.ipv4, .broadcast)
    } else {
      solicit(neighbour.address, now)
    }
  }

  func neighbour(_ address: IPAddress) -> Neighbour? {
    if lastNeighbour < neighbours.count, neighbours[lastNeighbour].address == address {
      return neighbours[lastNeighbour]
    }
    for index in neighbours.indices where neighbours[index].address == address {
      lastNeighbour = index
      return neighbours[index]
    }
    return nil
  }

  /// Notes what a neighbour said of itself. `isNew`: it may be unknown so far.
  func learn(_ address: IPAddress, _ mac: MACAddress, isNew: Bool, _ now: UInt64) {
    guard mac.rawValue >> 40 & 1 == 0 else { return }
    if let neighbour = neighbour(address) {
      neighbour.mac = mac
      neighbour.isResolved = true
      neighbour.attempts = 0
      neighbour.deadline = now &+ Neighbour.lifetime
      release(neighbour)
    } else if isNew, neighbours.count < Neighbour.limit {
      let new = Neighbour(address, now &+ Neighbour.lifetime)
      new.mac = mac
      new.isResolved = true
      neighbours.append(new)
    }
  }

  func receiveARP(_ bytes: UnsafeRawBufferPointer, _ now: UInt64) {
    guard let packet = ARPPacket(bytes), !packet.sender.isAny, !isOwn(IPAddress(packet.sender)) else {
      return
    }
    let isForUs = packet.target == address && !address.isAny
    let asksUs = isForUs && packet.operation == ARPPacket.request
    learn(IPAddress(packet.sender), packet.senderMAC, isNew: asksUs, now)
    if asksUs { sendARP(ARPPacket.reply, packet.sender, packet.senderMAC) }
  }

  private func release(_ neighbour: Neighbour) {
    let isIPv4 = neighbour.address.isIPv4
    let start = frame + (isIPv4 ? Self.ipv4Start : 0)
    for (offload, held) in neighbour.waiting {
      start.copyMemory(from: UnsafeRawPointer(held.baseAddress ?? start), byteCount: held.count)
      transmitFrame(offload, held.count, neighbour.mac, isIPv4 ? EtherType.ipv4 : EtherType.ipv6)
    }
    neighbour.drop()
  }

  /// Says who has the address now (RFC 5227, 2.3): who knew another one there would ask that one first for seconds.
  public func announce() {
    guard !address.isAny else { return }
    sendARP(ARPPacket.request, address, .broadcast)
  }

  private func sendARP(_ operation: UInt16, _ target: IPv4Address, _ destination: MACAddress) {
    let packet = frame + HeaderLength.ethernet
    packet.put16(0, 1)
    packet.put16(2, EtherType.ipv4)
    packet.put16(4, 0x0604)
    packet.put16(6, operation)
    packet.putMAC(8, macAddress)
    packet.put32(14, address.rawValue)
    packet.putMAC(18, operation == ARPPacket.reply ? destination : MACAddress(rawValue: 0))
    packet.put32(24, target.rawValue)
    transmitFrame(TransmitOffload(), HeaderLength.ethernet + HeaderLength.arp, destination, EtherType.arp)
  }

  /// Repeats unanswered questions and gives up after the last.
  func expireNeighbours(_ now: UInt64) {
    var index = 0
    while index < neighbours.count {
      let neighbour = neighbours[index]
      index += 1
      guard !neighbour.isResolved, neighbour.deadline <= now else { continue }
      if neighbour.attempts < Neighbour.attemptLimit {
        neighbour.attempts += 1
        neighbour.deadline = now &+ Neighbour.retryInterval
        ask(neighbour, now)
        continue
      }
      neighbour.drop()
      index -= 1
      neighbours.remove(at: index)
      unreachable(neighbour.address)
    }
  }

  /// Ends attempts to connect through a next hop that does not answer.
  private func unreachable(_ hop: IPAddress) {
    for connection in connections.values where connection.state == .synSent {
      if !isOwn(connection.remote.address), nextHop(connection.remote.address) == hop {
        connection.finish(.hostUnreachable)
      }
    }
  }
}
