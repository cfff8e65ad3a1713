/// A received datagram, waiting.
public struct Datagram {
  public let source: Endpoint
  public let destination: Endpoint
  /// The time to live (hop limit) and the type of service (traffic class) it came with.
  public let timeToLive: UInt8
  public let trafficClass: UInt8
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
  /// IP_TTL and IPV6_UNICAST_HOPS.
  public var timeToLive: UInt8 = 64
  public var hopLimit: UInt8 = 64
  /// IP_MULTICAST_TTL and IPV6_MULTICAST_HOPS.
  public var multicastTimeToLive: UInt8 = 1
  public var multicastHopLimit: UInt8 = 1
  /// IP_MULTICAST_LOOP and IPV6_MULTICAST_LOOP.
  public var loopsMulticast = true
  /// IP_TOS and IPV6_TCLASS.
  public var typeOfService: UInt8 = 0
  public var trafficClass: UInt8 = 0
  /// IPV6_V6ONLY; read when the socket is bound.
  public var onlyIPv6 = false

  public init() {}
}

/// What one datagram is sent with beside the options of its socket (IP_PKTINFO, IPV6_PKTINFO, IPV6_HOPLIMIT…).
public struct DatagramOptions {
  public var source: IPAddress?
  public var timeToLive: UInt8?
  public var trafficClass: UInt8?

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
  /// That address: of one family, or both.
  private var boundAny = IPAddress.any

  /// What each kept datagram costs beyond its bytes.
  private static let overhead = 256
  /// The largest payload of one datagram.
  public static let largestPayload = 65507

  /// What an unbound socket is bound to: `anyIPv4` for a socket of AF_INET.
  private let unbound: IPAddress

  public init(_ stack: NetworkStack, unbound: IPAddress = .any) {
    self.stack = stack
    self.unbound = unbound
    local = Endpoint(unbound, 0)
  }

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
    if boundToAny { boundAny = endpoint.address }
    isBound = true
  }

  /// Fixes the peer: only its datagrams are received. Nil undoes it (connect(2) with AF_UNSPEC).
  public func connect(_ target: Endpoint?) throws(NetworkError) {
    guard let target else {
      remote = .any
      if boundToAny { local.address = boundAny }
      return
    }
    let peer = target.loopbackIfAny
    if stack.isBroadcast(peer.address), !options.broadcast { throw .accessDenied }
    let source = try stack.sourceAddress(toward: peer.address)
    if !isBound { try bind(Endpoint(unbound, 0)) }
    if !boundToAny, local.address.isIPv4 != peer.address.isIPv4 { throw .networkUnreachable }
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
    return local.address.hears(to.address, onlyIPv6: options.onlyIPv6)
  }

  func deliver(_ bytes: UnsafeRawBufferPointer, _ from: Endpoint, _ to: Endpoint, _ packet: IPPacket) {
    guard !readShutdown, queuedBytes + bytes.count + Self.overhead <= options.receiveLimit else { return }
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: max(bytes.count, 1), alignment: 16)
    if let source = bytes.baseAddress, let target = copy.baseAddress {
      target.copyMemory(from: source, byteCount: bytes.count)
    }
    let payload = UnsafeRawBufferPointer(start: copy.baseAddress, count: bytes.count)
    queue.append(
      Datagram(
        source: from, destination: to, timeToLive: packet.timeToLive, trafficClass: packet.trafficClass,
        payload: payload))
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
  public func commitSend(
    _ length: Int, to target: Endpoint?, with special: DatagramOptions = DatagramOptions(), now: UInt64
  ) throws(NetworkError) {
    guard length >= 0, length <= Self.largestPayload else { throw .messageTooLong }
    let peer = (target ?? remote).loopbackIfAny
    guard peer.port != 0 else { throw target == nil ? .destinationRequired : .invalid }
    if stack.isBroadcast(peer.address), !options.broadcast { throw .accessDenied }
    let source = try source(toward: peer.address, special)
    if !isBound { try bind(Endpoint(unbound, 0)) }
    let header = stack.frame + NetworkStack.transportOffset
    header.put16(0, local.port)
    header.put16(2, peer.port)
    header.put16(4, UInt16(HeaderLength.udp + length))
    header.put16(6, 0)
    var packet = Transmission(source, peer.address, IPProtocol.udp)
    packet.length = HeaderLength.udp + length
    packet.headerLength = HeaderLength.udp
    packet.checksumOffset = 6
    let isMulticast = peer.address.isMulticast
    if peer.address.isIPv4 {
      packet.timeToLive = isMulticast ? options.multicastTimeToLive : options.timeToLive
      packet.trafficClass = options.typeOfService
    } else {
      packet.timeToLive = isMulticast ? options.multicastHopLimit : options.hopLimit
      packet.trafficClass = options.trafficClass
    }
    if let wanted = special.timeToLive { packet.timeToLive = wanted }
    if let wanted = special.trafficClass { packet.trafficClass = wanted }
    packet.loopsMulticast = options.loopsMulticast
    stack.transmit(packet, now)
    stack.drainLoopback(now)
  }

  private func source(toward peer: IPAddress, _ special: DatagramOptions) throws(NetworkError) -> IPAddress {
    if let wanted = special.source, !wanted.isAny {
      guard stack.isOwn(wanted), wanted.isIPv4 == peer.isIPv4 else { throw .invalid }
      return wanted
    }
    let chosen = try stack.sourceAddress(toward: peer)
    guard stack.isOwn(local.address) else { return chosen }
    guard local.address.isIPv4 == peer.isIPv4 else { throw .networkUnreachable }
    return local.address
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
