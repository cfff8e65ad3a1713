public import ABI
public import Tasks
public import VFS

/// A message, or what goes with a run of bytes of a stream, on its way.
struct UnixRecord {
  /// Empty for streams, whose bytes are in the ring.
  var bytes: [UInt8] = []
  /// Streams: how many bytes of the ring are left of it.
  var count = 0
  var sender: [UInt8] = []
  var credentials = SocketCredentials()
  var files: [OpenFile] = []
}

/// A unix(7) socket: SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET. Each holds what it has not received yet.
public final class UnixSocket: Socket {
  static let stream: Int32 = 1
  static let datagram: Int32 = 2
  static let sequenced: Int32 = 5
  static let capacity = 212_992
  /// /proc/sys/net/unix/max_dgram_qlen
  static let maximalMessages = 256
  /// SCM_MAX_FD
  static let maximalFiles = 253

  let queue = WaitQueue()
  // What arrived.
  var ring = PipeBuffer(capacity: 262_144)
  var records: [UnixRecord] = []
  /// Records before this one are used up: a cheap queue.
  var firstRecord = 0
  var queuedBytes = 0
  // Who is at the other end; the pair holds each other until one is released.
  var peer: UnixSocket?
  var peerAddress: [UInt8] = []
  var peerCredentials = SocketCredentials(process: 0, user: .max, group: .max)
  var hasBeenConnected = false
  var address: [UInt8] = []
  var readShut = false
  var writeShut = false
  var isReleased = false
  var pendingError: Errno?
  // Listening.
  var isListening = false
  var backlog = 0
  var waiting: [UnixSocket] = []
  // Options.
  var passesCredentials = false
  var receiveTimeout: UInt64 = 0
  var sendTimeout: UInt64 = 0
  var sendBuffer: Int32 = 212_992
  var receiveBuffer: Int32 = 212_992
  var reuseAddress: Int32 = 0
  var keepAlive: Int32 = 0

  /// socket(2). `flags`: O_NONBLOCK. ESOCKTNOSUPPORT, EPROTONOSUPPORT.
  public init(type: Int32, protocolNumber: Int32 = 0, flags: UInt32 = 0) throws(Errno) {
    guard protocolNumber == 0 || protocolNumber == 1 else { throw .protocolNotSupported }
    // SOCK_RAW is taken for SOCK_DGRAM, as Linux does.
    let type = type == 3 ? UnixSocket.datagram : type
    guard type == 1 || type == 2 || type == 5 else { throw .socketTypeNotSupported }
    super.init(domain: 1, type: type, protocolNumber: 0, flags: flags)
  }

  /// socketpair(2).
  public static func pair(type: Int32, protocolNumber: Int32 = 0, flags: UInt32 = 0) throws(Errno) -> (
    UnixSocket, UnixSocket
  ) {
    let first = try UnixSocket(type: type, protocolNumber: protocolNumber, flags: flags)
    let second = try UnixSocket(type: type, protocolNumber: protocolNumber, flags: flags)
    first.join(second)
    first.peerCredentials = UnixNames.credentials
    second.peerCredentials = first.peerCredentials
    return (first, second)
  }

  var isDatagram: Bool { type == UnixSocket.datagram }
  var isStream: Bool { type == UnixSocket.stream }
  var hasRecords: Bool { firstRecord < records.count }

  func join(_ other: UnixSocket) {
    peer = other
    other.peer = self
    hasBeenConnected = true
    other.hasBeenConnected = true
    peerAddress = other.address
    other.peerAddress = address
  }

  func wake(_ events: Readiness) {
    if !queue.isEmpty { queue.wake(events.rawValue) }
  }

  // MARK: Names and connections

  public override func bind(_ address: [UInt8]) throws(Errno) {
    guard self.address.isEmpty else { throw .invalid }
    self.address = try UnixNames.bind(address, self)
  }

  public override func listen(backlog: Int) throws(Errno) {
    guard !isDatagram else { throw .notSupported }
    guard !address.isEmpty, peer == nil else { throw .invalid }
    isListening = true
    self.backlog = max(0, min(backlog, 4096))
    peerCredentials = UnixNames.credentials
    wake(.writable)
  }

  public override func connect(_ address: [UInt8]) throws(Errno) {
    if isDatagram { return try connectDatagram(address) }
    guard !isListening else { throw .invalid }
    guard !hasBeenConnected else { throw .isConnected }
    let listener = try UnixNames.find(address)
    guard listener.type == type else { throw .wrongProtocolType }
    let deadline = sendTimeout == 0 ? UInt64.max : host.monotonicNanoseconds &+ sendTimeout
    while listener.isListening, !listener.readShut, listener.waiting.count > listener.backlog {
      if isNonblocking { throw .again }
      try sleep(listener.queue, deadline)
    }
    guard listener.isListening, !listener.readShut else { throw .connectionRefused }
    guard !hasBeenConnected else { throw .isConnected }
    let accepted = try UnixSocket(type: type)
    accepted.address = listener.address
    accepted.passesCredentials = listener.passesCredentials
    join(accepted)
    peerCredentials = listener.peerCredentials
    accepted.peerCredentials = UnixNames.credentials
    listener.waiting.append(accepted)
    if !listener.queue.isEmpty { listener.queue.wake(Readiness.readable.rawValue, exclusive: 1) }
    wake(.writable)
  }

  private func connectDatagram(_ address: [UInt8]) throws(Errno) {
    guard address.count >= 2 else { throw .invalid }
    if address[0] == 0, address[1] == 0 {
      peer = nil
      peerAddress = []
      return
    }
    let other = try UnixNames.find(address)
    guard other.isDatagram else { throw .wrongProtocolType }
    guard other.peer == nil || other.peer === self else { throw .notPermitted }
    peer = other
    peerAddress = other.address
    hasBeenConnected = true
  }

  public override func accept(flags: UInt32) throws(Errno) -> Socket {
    guard !isDatagram else { throw .notSupported }
    guard isListening else { throw .invalid }
    let deadline = receiveTimeout == 0 ? UInt64.max : host.monotonicNanoseconds &+ receiveTimeout
    while waiting.isEmpty {
      if readShut { throw .invalid }
      if isNonblocking { throw .again }
      do throws(Errno) {
        try queue.sleep(deadline: deadline, exclusive: true)
      } catch {
        throw error == .timedOut ? .again : error
      }
    }
    let socket = waiting.removeFirst()
    socket.flags = flags & 0o4000 | 2
    wake(.writable)
    return socket
  }

  /// Sleeps; a timeout of SO_RCVTIMEO or SO_SNDTIMEO is told as EAGAIN (socket(7)).
  func sleep(_ queue: WaitQueue, _ deadline: UInt64) throws(Errno) {
    do throws(Errno) {
      try queue.sleep(deadline: deadline)
    } catch {
      throw error == .timedOut ? .again : error
    }
  }

  public override func shutdown(_ how: Int32) throws(Errno) {
    guard (0...2).contains(how) else { throw .invalid }
    guard peer != nil || isListening || hasBeenConnected else { throw .notConnected }
    if how != 1 { readShut = true }
    if how != 0 { writeShut = true }
    // What one side gives up, the other sees.
    if let peer, !isDatagram {
      if how != 1 { peer.writeShut = true }
      if how != 0 { peer.readShut = true }
      peer.wake([])
    }
    wake([])
  }

  public override func name() throws(Errno) -> [UInt8] { address.isEmpty ? [1, 0] : address }

  public override func peerName() throws(Errno) -> [UInt8] {
    guard hasBeenConnected, peer != nil || !isDatagram, !isListening else { throw .notConnected }
    return peerAddress.isEmpty ? [1, 0] : peerAddress
  }

  public override func send(
    _ slices: [UserSlice], flags: MessageFlags, destination: [UInt8]?, control: SocketControl
  ) throws(Errno) -> Int {
    try transmit(slices, flags: flags, destination: destination, control: control)
  }

  public override func receive(_ slices: [UserSlice], flags: MessageFlags) throws(Errno) -> SocketMessage {
    try collect(slices, flags: flags)
  }

  public override func getOption(level: Int32, option: Int32) throws(Errno) -> [UInt8] {
    try self.option(level: level, option)
  }

  public override func setOption(level: Int32, option: Int32, _ value: UserSlice) throws(Errno) {
    try set(level: level, option: option, value)
  }

  public override var waitQueue: WaitQueue? { queue }

  public override func readiness() -> Readiness {
    var result: Readiness = []
    if pendingError != nil { result.insert(.error) }
    if isListening {
      if !waiting.isEmpty { result.insert(.readable) }
      return result
    }
    if ring.count > 0 || hasRecords || readShut { result.insert(.readable) }
    if readShut { result.insert(.readHangup) }
    if readShut, writeShut { result.insert(.hangup) }
    if !isDatagram, !hasBeenConnected { result.formUnion([.writable, .hangup]) }
    if isDatagram {
      if peer?.isFull != true { result.insert(.writable) }
    } else if hasBeenConnected, writeShut || peer?.isFull != true {
      result.insert(.writable)
    }
    return result
  }

  /// Whether senders have to wait.
  var isFull: Bool {
    if isStream { return ring.space < 4096 }
    return queuedBytes >= UnixSocket.capacity || records.count - firstRecord >= UnixSocket.maximalMessages
  }

  public override func control(_ request: UInt32, argument: UInt) throws(Errno) -> Int {
    guard request == 0x541b else {
      // if_nametoindex(3) asks through a unix(7) socket.
      try InterfaceRequest.answer(request, argument)
      return 0
    }
    let count = isStream ? ring.count : hasRecords ? records[firstRecord].bytes.count : 0
    try UserSlice.store(Int32(count), at: argument)
    return 0
  }

  public override func released() {
    guard !isReleased else { return }
    isReleased = true
    if !address.isEmpty { UnixNames.unbind(self) }
    isListening = false
    for socket in waiting { socket.released() }
    waiting.removeAll()
    let unread = ring.count > 0 || hasRecords
    if let peer, !isDatagram {
      peer.readShut = true
      peer.writeShut = true
      // Like a reset: the other side's data was not read (Linux, unix_release_sock).
      if unread { peer.pendingError = .connectionReset }
      peer.peer = nil
      peer.wake([])
    }
    peer = nil
    discardContents()
    wake([])
  }

  private func discardContents() {
    let left = records
    let first = firstRecord
    records = []
    firstRecord = 0
    queuedBytes = 0
    ring.discard()
    // Files in flight may be sockets that are released in turn, this one not again.
    for record in left[first...] {
      var control = SocketControl()
      control.files = record.files
      control.discard()
    }
  }
}
