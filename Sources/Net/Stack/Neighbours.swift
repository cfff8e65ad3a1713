/// What is known of one address on the link (RFC 826, RFC 1122 section 2.3.2).
final class Neighbour {
  let address: IPv4Address
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

  init(_ address: IPv4Address, _ deadline: UInt64) {
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
  func linkAddress(_ hop: IPv4Address, _ offload: TransmitOffload, _ length: Int, _ now: UInt64)
    -> MACAddress?
  {
    if isBroadcast(hop) { return .broadcast }
    if hop.isMulticast { return MACAddress(rawValue: 0x0100_5E00_0000 | UInt64(hop.rawValue & 0x7F_FFFF)) }
    let bytes = UnsafeRawBufferPointer(start: frame, count: length)
    guard let neighbour = neighbour(hop) else {
      let new = Neighbour(hop, now &+ Neighbour.retryInterval)
      if neighbours.count >= Neighbour.limit { neighbours.removeFirst().drop() }
      neighbours.append(new)
      new.hold(offload, bytes)
      sendARP(ARPPacket.request, hop, .broadcast)
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
      sendARP(ARPPacket.request, hop, .broadcast)
      release(neighbour)
      return nil
    }
    return neighbour.mac
  }

  func neighbour(_ address: IPv4Address) -> Neighbour? {
    if lastNeighbour < neighbours.count, neighbours[lastNeighbour].address == address {
      return neighbours[lastNeighbour]
    }
    for index in neighbours.indices where neighbours[index].address == address {
      lastNeighbour = index
      return neighbours[index]
    }
    return nil
  }

  func receiveARP(_ bytes: UnsafeRawBufferPointer, _ now: UInt64) {
    guard let packet = ARPPacket(bytes), !packet.sender.isAny, !isOwn(packet.sender),
      packet.senderMAC.rawValue >> 40 & 1 == 0
    else { return }
    let isForUs = packet.target == address && !address.isAny
    if let neighbour = neighbour(packet.sender) {
      neighbour.mac = packet.senderMAC
      neighbour.isResolved = true
      neighbour.attempts = 0
      neighbour.deadline = now &+ Neighbour.lifetime
      release(neighbour)
    } else if isForUs, packet.operation == ARPPacket.request, neighbours.count < Neighbour.limit {
      let new = Neighbour(packet.sender, now &+ Neighbour.lifetime)
      new.mac = packet.senderMAC
      new.isResolved = true
      neighbours.append(new)
    }
    if isForUs, packet.operation == ARPPacket.request {
      sendARP(ARPPacket.reply, packet.sender, packet.senderMAC)
    }
  }

  private func release(_ neighbour: Neighbour) {
    for (offload, held) in neighbour.waiting {
      frame.copyMemory(from: UnsafeRawPointer(held.baseAddress ?? frame), byteCount: held.count)
      transmitFrame(offload, held.count, neighbour.mac, EtherType.ipv4)
    }
    neighbour.drop()
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
        sendARP(ARPPacket.request, neighbour.address, .broadcast)
        continue
      }
      neighbour.drop()
      index -= 1
      neighbours.remove(at: index)
      unreachable(neighbour.address)
    }
  }

  /// Ends attempts to connect through a next hop that does not answer.
  private func unreachable(_ hop: IPv4Address) {
    for connection in connections.values where connection.state == .synSent {
      if !isOwn(connection.remote.address), nextHop(connection.remote.address) == hop {
        connection.finish(.hostUnreachable)
      }
    }
  }
}
