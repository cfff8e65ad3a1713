/// A listening port. Handshakes under way and connections waiting to be accepted are both bounded.
public final class TCPListener {
  unowned(unsafe) let stack: NetworkStack
  public unowned(unsafe) var observer: (any SocketObserver)?
  public let local: Endpoint
  /// Given to the connections that come.
  public var options: TCPOptions
  let reservation: PortReservation
  private var backlog: Int
  private var accepted: [TCPConnection] = []
  private var acceptedHead = 0
  private var children: [TCPConnection] = []

  init(_ stack: NetworkStack, _ reservation: PortReservation, _ backlog: Int, _ options: TCPOptions) {
    self.stack = stack
    self.reservation = reservation
    self.backlog = backlog
    self.options = options
    local = reservation.endpoint
  }

  /// Connections waiting to be accepted.
  public var waitingConnections: Int { accepted.count - acceptedHead }
  public var isReadable: Bool { waitingConnections > 0 }
  var hasRoom: Bool { waitingConnections <= backlog }

  /// Changes the backlog of a listening port (a second listen(2)).
  public func setBacklog(_ count: Int) { backlog = Self.clamped(count) }

  static func clamped(_ backlog: Int) -> Int { min(max(backlog, 0), 4096) }

  /// Takes the oldest established connection. Throws `wouldBlock` when there is none.
  public func accept() throws(NetworkError) -> TCPConnection {
    guard acceptedHead < accepted.count else { throw .wouldBlock }
    let connection = accepted[acceptedHead]
    acceptedHead += 1
    if acceptedHead == accepted.count {
      accepted.removeAll(keepingCapacity: true)
      acceptedHead = 0
    } else if acceptedHead > 64, acceptedHead * 2 > accepted.count {
      accepted.removeSubrange(0..<acceptedHead)
      acceptedHead = 0
    }
    return connection
  }

  /// Stops listening: handshakes under way and connections not accepted are reset.
  public func close(now: UInt64) {
    observer = nil
    stack.stopListening(self)
    let waiting = accepted[acceptedHead...]
    accepted = []
    acceptedHead = 0
    let unfinished = children
    children = []
    for connection in unfinished {
      connection.listener = nil
      connection.abort(now: now)
    }
    for connection in waiting { connection.abort(now: now) }
    reservation.close()
    stack.drainLoopback(now)
  }

  /// A SYN for this port. With a full accept queue it is dropped, and the peer tries again. With too many open
  /// handshakes a random one gives way: a flood loses most of its own, and an honest peer, who answers within
  /// a round trip, is likely to be through by then.
  func receiveSyn(_ segment: TCPSegment, _ local: Endpoint, _ remote: Endpoint, _ now: UInt64) {
    guard hasRoom else { return }
    if children.count >= max(256, backlog) {
      let victim = children[stack.random.below(children.count)]
      // A deferred connection is established for its peer, who must hear of the end.
      if victim.state == .synReceived { victim.finish() } else { victim.abort(now: now) }
    }
    let connection = TCPConnection(stack, options)
    connection.local = local
    connection.remote = remote
    connection.listener = self
    connection.prepare(now)
    connection.adopt(segment, now)
    connection.state = .synReceived
    connection.childIndex = children.count
    children.append(connection)
    stack.insert(connection)
    connection.sendSyn(now)
  }

  func established(_ connection: TCPConnection, hasData: Bool) {
    if options.deferAccept, !hasData { return }
    ready(connection)
  }

  /// Data for a connection whose acceptance was deferred.
  func receivedData(_ connection: TCPConnection) {
    if connection.childIndex >= 0, connection.state != .synReceived { ready(connection) }
  }

  private func ready(_ connection: TCPConnection) {
    removeChild(connection)
    connection.listener = nil
    accepted.append(connection)
    observer?.socketDidChange()
  }

  /// A handshake that failed.
  func forget(_ connection: TCPConnection) { removeChild(connection) }

  private func removeChild(_ connection: TCPConnection) {
    let index = connection.childIndex
    guard index >= 0, index < children.count, children[index] === connection else { return }
    connection.childIndex = -1
    let last = children.removeLast()
    if last !== connection {
      children[index] = last
      last.childIndex = index
    }
  }
}
