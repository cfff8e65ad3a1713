/// A received datagram, waiting.
public struct Datagram {
  public let source: Endpoint
  public let destination: Endpoint
  /// The bytes, valid until the datagram is removed.
  public let payload: UnsafeRawBufferPointer
}

/// What a program may set on a UDP socket.
public struct UDPOptions {
  /// SO_REUSEADDR and SO_REUSEPORT; read when the socket is bound.
  public var reuseAddress = false
  public var reusePort = false
  /// SO_BROADCAST.
  public var broadcast = false
  /// SO_RCVBUF: bytes of datagrams kept, their bookkeeping included.
  public var receiveLimit = 256 << 10
  /// IP_TTL.
  public var timeToLive: UInt8 = 64

  public init() {}
}

/// One UDP socket (RFC 768). Calls are serialised by the owner of the stack.
public final class UDPSocket {
  unowned(unsafe) let stack: NetworkStack
  public unowned(unsafe) var observer: (any SocketObserver)?
  public var options = UDPOptions()
  public internal(set) var local = Endpoint.any
  /// The connected peer, or port 0.
  public internal(set) var remote = Endpoint.any
  private var queue = Queue<Datagram>()
  private var queuedBytes = 0
  private var pendingError: NetworkError?
  private var readShutdown = false
  private var writeShutdown = false
  var isBound = false
  /// The bound address was any before `connect` chose one.
  private var boundToAny = true

  /// What each kept datagram costs beyond its bytes.
  private static let overhead = 256
  /// The largest payload of one datagram.
  public static let largestPayload = 65507

  public init(_ stack: NetworkStack) { self.stack = stack }

  deinit { dropAll() }

  public var isReadable: Bool { !queue.isEmpty || pendingError != nil || readShutdown }
  public var isWritable: Bool { true }
  public var hasHangup: Bool { readShutdown && writeShutdown }
  public var hasPeerHangup: Bool { readShutdown }
  public var hasError: Bool { pendingError != nil }
  public var isConnected: Bool { remote.port != 0 }
  /// Payload bytes of the first datagram (FIONREAD).
  public var readableBytes: Int { queue.first?.payload.count ?? 0 }
  public var writableBytes: Int { writeShutdown ? 0 : Self.largestPayload }

  public func takeError() -> NetworkError? {
    let error = pendingError
    pendingError = nil
    return error
  }

  /// Binds; port 0 takes a random free one.
  public func bind(_ endpoint: Endpoint) throws(NetworkError) {
    guard !isBound else { throw .invalid }
    guard
      endpoint.address.isAny || stack.isOwn(endpoint.address) || stack.isBroadcast(endpoint.address)
        || endpoint.address.isMulticast
    else { throw .addressNotAvailable }
    local = try stack.insert(self, endpoint)
    boundToAny = endpoint.address.isAny
    isBound = true
  }

  /// Fixes the peer: only its datagrams are received. Nil undoes it (connect(2) with AF_UNSPEC).
  public func connect(_ target: Endpoint?) throws(NetworkError) {
    guard let target else {
      remote = .any
      if boundToAny { local.address = .any }
      return
    }
    let peer = target.address.isAny ? Endpoint(.loopback, target.port) : target
    if stack.isBroadcast(peer.address), !options.broadcast { throw .accessDenied }
    let source = try stack.sourceAddress(toward: peer.address)
    if !isBound { try bind(.any) }
    if boundToAny { local.address = source }
    remote = peer
    pendingError = nil
  }

  public func shutdown(read: Bool, write: Bool) throws(NetworkError) {
    guard isConnected else { throw .notConnected }
    readShutdown = readShutdown || read
    writeShutdown = writeShutdown || write
    observer?.socketDidChange()
  }

  /// Leaves the port and drops what is queued.
  public func close() {
    observer = nil
    if isBound { stack.remove(self) }
    isBound = false
    dropAll()
  }

  private func dropAll() {
    while let datagram = queue.removeFirst() { datagram.payload.deallocate() }
    queuedBytes = 0
  }

  // MARK: Receiving

  /// The oldest datagram. Throws `wouldBlock` or the pending error; nil after shutdown.
  public func firstDatagram() throws(NetworkError) -> Datagram? {
    if let error = takeError() { throw error }
    if let first = queue.first { return first }
    if readShutdown { return nil }
    throw .wouldBlock
  }

  public func removeFirstDatagram() {
    guard let datagram = queue.removeFirst() else { return }
    queuedBytes -= datagram.payload.count + Self.overhead
    datagram.payload.deallocate()
  }

  func accepts(_ from: Endpoint, _ to: Endpoint) -> Bool {
    if isConnected, remote != from { return false }
    return local.address.isAny || local.address == to.address
  }

  func deliver(_ bytes: UnsafeRawBufferPointer, _ from: Endpoint, _ to: Endpoint) {
    guard !readShutdown, queuedBytes + bytes.count + Self.overhead <= options.receiveLimit else { return }
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: max(bytes.count, 1), alignment: 16)
    if let source = bytes.baseAddress, let target = copy.baseAddress {
      target.copyMemory(from: source, byteCount: bytes.count)
    }
    let payload = UnsafeRawBufferPointer(start: copy.baseAddress, count: bytes.count)
    queue.append(Datagram(source: from, destination: to, payload: payload))
    queuedBytes += bytes.count + Self.overhead
    observer?.socketDidChange()
  }

  func report(_ error: NetworkError) {
    pendingError = error
    observer?.socketDidChange()
  }

  // MARK: Sending

  /// Where the payload of the next datagram is put, followed at once by `commitSend`. Throws `messageTooLong`.
  public func sendRegion(_ length: Int) throws(NetworkError) -> UnsafeMutableRawBufferPointer {
    if let error = takeError() { throw error }
    if writeShutdown { throw .brokenPipe }
    guard length >= 0, length <= Self.largestPayload else { throw .messageTooLong }
    let start = stack.frame + NetworkStack.transportOffset + HeaderLength.udp
    return UnsafeMutableRawBufferPointer(start: start, count: length)
  }

  /// Sends the bytes put into `sendRegion`, to the connected peer when `target` is nil.
  public func commitSend(_ length: Int, to target: Endpoint?, now: UInt64) throws(NetworkError) {
    guard length >= 0, length <= Self.largestPayload else { throw .messageTooLong }
    var peer = target ?? remote
    guard peer.port != 0 else { throw target == nil ? .destinationRequired : .invalid }
    if peer.address.isAny { peer.address = .loopback }
    if stack.isBroadcast(peer.address), !options.broadcast { throw .accessDenied }
    let chosen = try stack.sourceAddress(toward: peer.address)
    if !isBound { try bind(.any) }
    let usesBound = stack.isOwn(local.address)
    let header = stack.frame + NetworkStack.transportOffset
    header.put16(0, local.port)
    header.put16(2, peer.port)
    header.put16(4, UInt16(HeaderLength.udp + length))
    header.put16(6, 0)
    var packet = Transmission(usesBound ? local.address : chosen, peer.address, IPProtocol.udp)
    packet.length = HeaderLength.udp + length
    packet.headerLength = HeaderLength.udp
    packet.checksumOffset = 6
    packet.timeToLive = options.timeToLive
    stack.transmit(packet, now)
    stack.drainLoopback(now)
  }

  /// Sends one datagram.
  public func send(
    _ bytes: UnsafeRawBufferPointer, to target: Endpoint? = nil, now: UInt64
  ) throws(NetworkError) {
    let region = try sendRegion(bytes.count)
    if let source = bytes.baseAddress { region.baseAddress?.copyMemory(from: source, byteCount: bytes.count) }
    try commitSend(bytes.count, to: target, now: now)
  }
}
