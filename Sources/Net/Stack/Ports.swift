/// A TCP port held by bind(2), before and while it listens or connects. `close` gives it back.
public final class PortReservation {
  unowned(unsafe) let stack: NetworkStack
  public let endpoint: Endpoint
  let reuseAddress: Bool
  let reusePort: Bool
  /// IPV6_V6ONLY (RFC 3493 section 5.3): `::` does not stand for IPv4 addresses.
  let onlyIPv6: Bool
  var isListening = false
  private var isClosed = false

  init(_ stack: NetworkStack, _ endpoint: Endpoint, reuseAddress: Bool, reusePort: Bool, onlyIPv6: Bool) {
    self.onlyIPv6 = onlyIPv6
    self.stack = stack
    self.endpoint = endpoint
    self.reuseAddress = reuseAddress
    self.reusePort = reusePort
  }

  /// Gives the port back; again is harmless. A listener does it when it closes.
  public func close() {
    guard !isClosed else { return }
    isClosed = true
    stack.release(self)
  }
}

final class PortGroup {
  var holders: [PortReservation] = []
}

/// Everything that listens on one port: a group for the hash of SO_REUSEPORT (socket(7)).
final class ListenerGroup {
  var listeners: [TCPListener] = []
}

/// Two bound addresses meet when one hears what is sent to the other.
func overlaps(_ a: PortReservation, _ b: PortReservation) -> Bool {
  a.endpoint.address.hears(b.endpoint.address, onlyIPv6: a.onlyIPv6)
    || b.endpoint.address.hears(a.endpoint.address, onlyIPv6: b.onlyIPv6)
}

extension NetworkStack {
  static let firstEphemeral = 32768
  static let ephemeralCount = 28232

  /// Checks that `address` can be bound: any, loopback, or the own one.
  func checkLocal(_ address: IPAddress) throws(NetworkError) {
    guard address.isAny || isOwn(address) else { throw .addressNotAvailable }
  }

  /// Holds a TCP port (bind(2)). Port 0 takes a random free one. Rules of reuse as in Linux (socket(7)): two
  /// holders share when both have `reusePort`, or both have `reuseAddress` and neither listens.
  public func reserveTCP(
    _ endpoint: Endpoint, reuseAddress: Bool = false, reusePort: Bool = false, onlyIPv6: Bool = false
  ) throws(NetworkError) -> PortReservation {
    try checkLocal(endpoint.address)
    let port = endpoint.port == 0 ? try freeTCPPort(endpoint.address, nil) : endpoint.port
    let new = PortReservation(
      self, Endpoint(endpoint.address, port), reuseAddress: reuseAddress, reusePort: reusePort,
      onlyIPv6: onlyIPv6)
    let key = TableKey(port: port)
    let group = tcpPorts[key] ?? PortGroup()
    for holder in group.holders where conflicts(holder, new) { throw .addressInUse }
    if group.holders.isEmpty { tcpPorts.insert(group, key) }
    group.holders.append(new)
    return new
  }

  private func conflicts(_ a: PortReservation, _ b: PortReservation) -> Bool {
    guard overlaps(a, b) else { return false }
    if a.reusePort, b.reusePort { return false }
    return !(a.reuseAddress && b.reuseAddress && !a.isListening && !b.isListening)
  }

  func release(_ reservation: PortReservation) {
    let key = TableKey(port: reservation.endpoint.port)
    guard let group = tcpPorts[key] else { return }
    group.holders.removeAll { $0 === reservation }
    if group.holders.isEmpty { tcpPorts.remove(key) }
  }

  /// A random port that nobody holds (RFC 6056 section 3.3.1) and, toward `remote`, whose conversation is free.
  func freeTCPPort(_ address: IPAddress, _ remote: Endpoint?) throws(NetworkError) -> UInt16 {
    let start = random.below(Self.ephemeralCount)
    for step in 0..<Self.ephemeralCount {
      let port = UInt16(Self.firstEphemeral + (start + step) % Self.ephemeralCount)
      if tcpPorts[TableKey(port: port)] != nil { continue }
      guard let remote else { return port }
      let key = TableKey(local: Endpoint(address, port), remote: remote)
      // Over loopback the other end, too, may be what waits in TIME-WAIT.
      let reverse = TableKey(local: remote, remote: Endpoint(address, port))
      if connections[key] == nil, timeWaits[key] == nil, timeWaits[reverse] == nil { return port }
    }
    throw remote == nil ? .addressInUse : .addressNotAvailable
  }

  // MARK: Listeners

  /// Listens on a held port (listen(2)). The listener gives the port back when it closes.
  public func listen(
    _ reservation: PortReservation, backlog: Int, options: TCPOptions = TCPOptions()
  ) throws(NetworkError) -> TCPListener {
    let key = TableKey(port: reservation.endpoint.port)
    if let group = tcpPorts[key] {
      for holder in group.holders where holder !== reservation && holder.isListening {
        if overlaps(holder, reservation), !(holder.reusePort && reservation.reusePort) { throw .addressInUse }
      }
    }
    guard !reservation.isListening else { throw .invalid }
    reservation.isListening = true
    let listener = TCPListener(self, reservation, TCPListener.clamped(backlog), options)
    let group = listeners[key] ?? ListenerGroup()
    if group.listeners.isEmpty { listeners.insert(group, key) }
    group.listeners.append(listener)
    return listener
  }

  func stopListening(_ listener: TCPListener) {
    let key = TableKey(port: listener.local.port)
    guard let group = listeners[key] else { return }
    group.listeners.removeAll { $0 === listener }
    if group.listeners.isEmpty { listeners.remove(key) }
    listener.reservation.isListening = false
  }

  /// The listener for a new conversation: an exact address wins over any of its family, which wins over any of
  /// both; among equals the hash decides.
  func listener(_ local: Endpoint, _ remote: Endpoint) -> TCPListener? {
    guard let group = listeners[TableKey(port: local.port)] else { return nil }
    if group.listeners.count == 1 {
      return group.listeners[0].rank(local.address) > 0 ? group.listeners[0] : nil
    }
    var best = 1
    var equals = 0
    for listener in group.listeners {
      let rank = listener.rank(local.address)
      if rank > best { equals = 0 }
      best = max(best, rank)
      if rank == best { equals += 1 }
    }
    guard equals > 0 else { return nil }
    var choice = conversationHash(local, remote) % equals
    for listener in group.listeners where listener.rank(local.address) == best {
      if choice == 0 { return listener }
      choice -= 1
    }
    return nil
  }

  func conversationHash(_ local: Endpoint, _ remote: Endpoint) -> Int {
    Int(truncatingIfNeeded: TableKey(local: local, remote: remote).hash(0) >> 33)
  }
}

extension TCPListener {
  /// How well an address fits, 0 for not at all.
  fileprivate func rank(_ target: IPAddress) -> Int {
    guard local.address.hears(target, onlyIPv6: reservation.onlyIPv6) else { return 0 }
    if local.address == target { return 3 }
    return local.address.isIPv4 == target.isIPv4 ? 2 : 1
  }
}
