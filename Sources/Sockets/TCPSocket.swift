public import ABI
import Net
public import Tasks
public import VFS

/// A tcp(7) socket. Its states: unbound, bound (`reservation`), listening (`listener`), connecting or connected
/// (`connection`).
public final class TCPSocket: InternetSocket {
  var reservation: PortReservation?
  var listener: TCPListener?
  var connection: TCPConnection?
  var tcpOptions = TCPOptions()
  /// A non-blocking connect(2) has begun and no later one has told its end.
  private var isConnectPending = false
  private var hasStoppedListening = false
  /// MSG_MORE holds the last segment back until a send without it.
  var isCorkedByMore = false
  private var isReleased = false

  public init(domain: Int32 = InternetSocket.family, flags: UInt32) {
    super.init(domain: domain, type: 1, protocolNumber: 6, flags: flags)
  }

  private init(_ connection: TCPConnection, domain: Int32, flags: UInt32) {
    self.connection = connection
    tcpOptions = connection.options
    super.init(domain: domain, type: 1, protocolNumber: 6, flags: flags)
    connection.observer = self
  }

  public override func socketDidChange() {
    guard !queue.isEmpty else { return }
    if listener != nil { queue.wake(Readiness.readable.rawValue, exclusive: 1) } else { queue.wake() }
  }

  override var isListening: Bool { listener != nil }
  override var isBound: Bool { reservation != nil || connection != nil }

  // MARK: Binding and listening

  public override func bind(_ address: [UInt8]) throws(Errno) {
    let endpoint = try boundEndpoint(address)
    guard reservation == nil, listener == nil, connection == nil else { throw .invalid }
    try reserve(endpoint)
  }

  private func reserve(_ endpoint: Endpoint) throws(Errno) {
    do throws(NetworkError) {
      reservation = try Network.stack.reserveTCP(
        endpoint, reuseAddress: options.reuseAddress, reusePort: options.reusePort,
        onlyIPv6: options.onlyIPv6)
    } catch { throw error.number }
  }

  public override func listen(backlog: Int) throws(Errno) {
    if let listener { return listener.setBacklog(backlog) }
    guard connection == nil else { throw .invalid }
    if reservation == nil { try reserve(Endpoint(unboundAddress, 0)) }
    guard let reservation else { throw .invalid }
    do throws(NetworkError) {
      let listener = try Network.stack.listen(reservation, backlog: backlog, options: tcpOptions)
      listener.observer = self
      self.listener = listener
      hasStoppedListening = false
    } catch { throw error.number }
  }

  public override func accept(flags: UInt32) throws(Errno) -> Socket {
    let deadline = deadline(receiveTimeout)
    while true {
      guard let listener else { throw .invalid }
      var accepted: TCPConnection?
      do throws(NetworkError) { accepted = try listener.accept() } catch {
        if error != .wouldBlock { throw error.number }
      }
      if let accepted {
        let socket = TCPSocket(accepted, domain: domain, flags: flags)
        socket.options = options
        Network.settle()
        return socket
      }
      if isNonblocking { throw .again }
      try sleep(deadline, exclusive: true)
    }
  }

  // MARK: Connecting

  public override func connect(_ address: [UInt8]) throws(Errno) {
    guard let target = try peerEndpoint(address) else { return disconnect() }
    guard listener == nil else { throw .isConnected }
    if let connection {
      guard isConnectPending else { throw .isConnected }
      if connection.isConnecting, isNonblocking { throw .already }
      return try finishConnecting(connection)
    }
    let connection = TCPConnection(Network.stack, tcpOptions)
    connection.observer = self
    do throws(NetworkError) {
      try connection.connect(to: target, from: reservation, now: now)
    } catch {
      connection.close(now: now)
      throw error.number
    }
    self.connection = connection
    isConnectPending = true
    Network.settle()
    // As in Linux, even where the answer has come already (over loopback).
    if isNonblocking { throw .inProgress }
    try finishConnecting(connection)
  }

  /// connect(2) with AF_UNSPEC.
  private func disconnect() {
    guard let connection else { return }
    connection.abort(now: now)
    dropConnection()
    Network.settle()
  }

  private func dropConnection() {
    connection?.close(now: now)
    connection = nil
    isConnectPending = false
  }

  private func finishConnecting(_ connection: TCPConnection) throws(Errno) {
    let deadline = deadline(sendTimeout)
    while connection.isConnecting {
      do throws(Errno) { try sleep(deadline) } catch { throw error == .again ? .inProgress : error }
      guard self.connection === connection else { throw .connectionAborted }
    }
    if connection.state == .closed {
      let error = connection.takeError()
      dropConnection()
      throw error?.number ?? .connectionAborted
    }
    isConnectPending = false
  }

  // MARK: Names

  public override func name() throws(Errno) -> [UInt8] {
    bytes(connection?.local ?? listener?.local ?? reservation?.endpoint ?? Endpoint(unboundAddress, 0))
  }

  public override func peerName() throws(Errno) -> [UInt8] {
    guard let connection, connection.isConnected else { throw .notConnected }
    return bytes(connection.remote)
  }

  /// A peer that has reset the connection since is told all the same, as on Linux.
  public override func acceptedName() throws(Errno) -> [UInt8] {
    guard let connection else { throw .notConnected }
    return bytes(connection.remote)
  }

  // MARK: The end

  public override func shutdown(_ how: Int32) throws(Errno) {
    guard (0...2).contains(how) else { throw .invalid }
    if let listener {
      guard how != 1 else { return }
      // Accepting ends (EINVAL), and so does the hold on the port.
      listener.close(now: now)
      self.listener = nil
      reservation = nil
      hasStoppedListening = true
      if !queue.isEmpty { queue.wake() }
      return Network.settle()
    }
    guard let connection else { throw .notConnected }
    do throws(NetworkError) {
      try connection.shutdown(read: how != 1, write: how != 0, now: now)
    } catch { throw error.number }
    Network.settle()
  }

  public override func released() {
    guard !isReleased else { return }
    isReleased = true
    if let connection {
      if options.lingers, options.lingerSeconds == 0 { connection.abort(now: now) }
      linger(connection)
    }
    dropConnection()
    listener?.close(now: now)
    listener = nil
    reservation?.close()
    reservation = nil
    Network.settle()
  }

  /// SO_LINGER (socket(7)): close(2) waits until everything has arrived, or the time is over.
  private func linger(_ connection: TCPConnection) {
    guard options.lingers, options.lingerSeconds > 0, !isNonblocking, connection.readableBytes == 0 else {
      return
    }
    let deadline = deadline(UInt64(options.lingerSeconds) * 1_000_000_000)
    do throws(NetworkError) {
      try connection.shutdown(read: false, write: true, now: now)
    } catch { return }
    Network.settle()
    do throws(Errno) {
      while !connection.isFullySent { try sleep(deadline) }
    } catch {}
  }

  // MARK: State

  public override func readiness() -> Readiness {
    var result: Readiness = []
    if let listener {
      if listener.isReadable { result.insert(.readable) }
      return result
    }
    guard let connection else {
      // A fresh socket, and one that no longer listens, is hung up and takes writes (which fail).
      return hasStoppedListening ? [.readable, .readHangup, .writable, .hangup] : [.writable, .hangup]
    }
    if connection.isReadable { result.insert(.readable) }
    if connection.isWritable { result.insert(.writable) }
    if connection.hasPeerHangup { result.insert(.readHangup) }
    if connection.hasHangup { result.formUnion([.hangup, .readHangup, .readable]) }
    if connection.hasError { result.insert(.error) }
    return result
  }

  override func takeError() -> Errno? { connection?.takeError()?.number }
  override var readableBytes: Int { connection?.readableBytes ?? 0 }
  override var unsentBytes: Int { connection?.unacknowledgedBytes ?? 0 }

  override func optionsChanged() {
    var current = tcpOptions
    current.cork = current.cork || isCorkedByMore
    connection?.options = current
    listener?.options = tcpOptions
    Network.settle()
  }

  public override func send(
    _ slices: [UserSlice], flags: MessageFlags, destination: [UInt8]?, control: SocketControl
  ) throws(Errno) -> Int {
    try transmit(slices, flags)
  }

  public override func receive(_ slices: [UserSlice], flags: MessageFlags) throws(Errno) -> SocketMessage {
    var message = SocketMessage()
    message.count = try collect(slices, flags)
    return message
  }
}
