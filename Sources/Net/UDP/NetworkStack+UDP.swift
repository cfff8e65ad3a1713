/// The sockets bound to one UDP port.
final class UDPPort {
  var sockets: [UDPSocket] = []
}

extension NetworkStack {
  /// Puts a socket on its port; port 0 becomes a random free one. Linux rules: overlapping sockets share when
  /// all have SO_REUSEADDR or all have SO_REUSEPORT.
  func insert(_ socket: UDPSocket, _ endpoint: Endpoint) throws(NetworkError) -> Endpoint {
    let port = endpoint.port == 0 ? try freeUDPPort() : endpoint.port
    let key = TableKey(port: port)
    let group = udpPorts[key] ?? UDPPort()
    for other in group.sockets {
      let meets =
        other.local.address.hears(endpoint.address, onlyIPv6: other.options.onlyIPv6)
        || endpoint.address.hears(other.local.address, onlyIPv6: socket.options.onlyIPv6)
      guard meets else { continue }
      let shares =
        (other.options.reuseAddress && socket.options.reuseAddress)
        || (other.options.reusePort && socket.options.reusePort)
      if !shares { throw .addressInUse }
    }
    if group.sockets.isEmpty { udpPorts.insert(group, key) }
    group.sockets.append(socket)
    return Endpoint(endpoint.address, port)
  }

  private func freeUDPPort() throws(NetworkError) -> UInt16 {
    let start = random.below(Self.ephemeralCount)
    for step in 0..<Self.ephemeralCount {
      let port = UInt16(Self.firstEphemeral + (start + step) % Self.ephemeralCount)
      if udpPorts[TableKey(port: port)] == nil { return port }
    }
    throw .addressInUse
  }

  func remove(_ socket: UDPSocket) {
    let key = TableKey(port: socket.local.port)
    guard let group = udpPorts[key] else { return }
    group.sockets.removeAll { $0 === socket }
    if group.sockets.isEmpty { udpPorts.remove(key) }
  }

  func receiveUDP(_ packet: IPPacket, _ validated: Bool, _ isLoopback: Bool, _ now: UInt64) {
    guard let datagram = UDPDatagram(packet.payload) else { return }
    // Only IPv4 may leave the checksum out (RFC 8200 section 8.1).
    if !validated, !isLoopback, datagram.checksum != 0 || packet.isIPv6, !checksumIsRight(packet) { return }
    let from = Endpoint(packet.source, datagram.sourcePort)
    let to = Endpoint(packet.destination, datagram.destinationPort)
    let group = udpPorts[TableKey(port: to.port)]
    if !isOwn(packet.destination) {
      // Broadcast and multicast: a copy for each.
      for socket in group?.sockets ?? [] where socket.accepts(from, to) {
        socket.deliver(datagram.payload, from, to, packet)
      }
      return
    }
    if let group, let socket = choose(group, from, to) {
      socket.deliver(datagram.payload, from, to, packet)
    } else {
      sendPortUnreachable(packet, now)
    }
  }

  /// The most specific socket: connected before bound to an address before any. Equals of SO_REUSEPORT share by
  /// hash; otherwise the last bound wins, as in Linux.
  private func choose(_ group: UDPPort, _ from: Endpoint, _ to: Endpoint) -> UDPSocket? {
    if group.sockets.count == 1 { return group.sockets[0].accepts(from, to) ? group.sockets[0] : nil }
    var best = -1
    var equals = 0
    var chosen: UDPSocket?
    let hash = conversationHash(to, from)
    for socket in group.sockets where socket.accepts(from, to) {
      let bound = socket.local.address
      let rank =
        (socket.isConnected ? 4 : 0) + (bound.isAny ? 0 : 2) + (bound.isIPv4 == to.address.isIPv4 ? 1 : 0)
      if rank > best {
        best = rank
        equals = 1
        chosen = socket
      } else if rank == best {
        equals += 1
        // Keeps each of n equals with probability 1/n, decided by the conversation only.
        let pick = Int(mixed(UInt64(hash &+ equals)) >> 33) % equals == 0
        if !socket.options.reusePort || pick { chosen = socket }
      }
    }
    return chosen
  }

  func reportUDP(_ local: Endpoint, _ remote: Endpoint, _ error: NetworkError) {
    guard let group = udpPorts[TableKey(port: local.port)] else { return }
    for socket in group.sockets where socket.remote == remote && socket.accepts(remote, local) {
      socket.report(error)
    }
  }
}
