/// The states of RFC 9293 section 3.3.2; listening is a `TCPListener`.
public enum TCPState: UInt8 {
  case closed, synSent, synReceived, established, finWait1, finWait2, closeWait, closing, lastAck, timeWait
}

/// What a program may set on a connection, and on a listener for the connections it makes.
public struct TCPOptions {
  /// TCP_NODELAY: send small segments at once.
  public var noDelay = false
  /// TCP_CORK: send whole segments only.
  public var cork = false
  /// SO_KEEPALIVE and its times in nanoseconds (TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT).
  public var keepAlive = false
  public var keepAliveIdle: UInt64 = 7200 * Nanoseconds.second
  public var keepAliveInterval: UInt64 = 75 * Nanoseconds.second
  public var keepAliveCount = 9
  /// TCP_USER_TIMEOUT in nanoseconds; zero is the default of RFC 1122.
  public var userTimeout: UInt64 = 0
  /// TCP_DEFER_ACCEPT: accept only when data has come.
  public var deferAccept = false
  /// SO_RCVBUF and SO_SNDBUF in bytes.
  public var receiveLimit = 1 << 20
  public var sendLimit = 256 << 10
  /// Grow the send limit with the congestion window up to 4 MB.
  public var growsSendLimit = true
  /// IP_TTL.
  public var timeToLive: UInt8 = 64

  public init() {}
}

enum Nanoseconds {
  static let millisecond: UInt64 = 1_000_000
  static let second: UInt64 = 1_000_000_000
}

enum TCPLimits {
  static let initialTimeout = Nanoseconds.second
  static let smallestTimeout = 200 * Nanoseconds.millisecond
  static let largestTimeout = 120 * Nanoseconds.second
  static let delayedAck = 40 * Nanoseconds.millisecond
  static let timeWait = 60 * Nanoseconds.second
  static let finWait2 = 60 * Nanoseconds.second
  static let corkTimeout = 200 * Nanoseconds.millisecond
  static let windowScale: UInt8 = 7
  static let largestReceive = 65535 << 7
  static let largestSend = 4 << 20
  static let synRetries = 6
  static let synAckRetries = 5
  static let retries = 15
}

/// One TCP connection (RFC 9293). Calls are serialised by the owner of the stack.
public final class TCPConnection {
  unowned(unsafe) let stack: NetworkStack
  public unowned(unsafe) var observer: (any SocketObserver)?
  public var options: TCPOptions { didSet { optionsChanged() } }
  public internal(set) var state = TCPState.closed
  public internal(set) var local = Endpoint.any
  public internal(set) var remote = Endpoint.any
  var reservation: PortReservation?
  var ownsReservation = false
  unowned(unsafe) var listener: TCPListener?
  var pendingError: NetworkError?
  var readShutdown = false
  /// The program has closed; nobody reads any more.
  var isOrphan = false
  var isInTable = false
  var wasConnected = false

  // Send sequence space (RFC 9293 section 3.3.1). `sendBase` is the first byte of `sendRing`.
  var sendRing: RingBuffer
  var sendBase: UInt32 = 0
  var unacknowledged: UInt32 = 0
  var sendNext: UInt32 = 0
  var sendWindow: UInt32 = 0
  var windowUpdateSequence: UInt32 = 0
  var windowUpdateAcknowledgement: UInt32 = 0
  var largestSendWindow: UInt32 = 0
  var sendWindowScale: UInt8 = 0
  var finQueued = false
  /// End of the last segment shorter than the segment size (Minshall's form of Nagle's rule).
  var smallSegmentEnd: UInt32 = 0
  var segmentSize = 536

  // Receive sequence space. `receiveNext` is the byte after the last of `receiveRing`.
  var receiveRing: RingBuffer
  var receiveNext: UInt32 = 0
  var initialReceiveSequence: UInt32 = 0
  var advertisedEdge: UInt32 = 0
  var lastAckSent: UInt32 = 0
  var receiveWindowScale: UInt8 = 0
  var outOfOrder = RangeList(limit: 32)
  var latestOutOfOrder = SequenceRange(start: 0, end: 0)
  var finSequence: UInt32 = 0
  var finSeen = false
  var finReceived = false

  // Options agreed.
  var usesTimestamps = true
  var usesSack = true
  var usesWindowScale = true
  var recentTimestamp: UInt32 = 0
  var recentTimestampTime: UInt64 = 0
  var timestampOffset: UInt32 = 0

  // Round-trip time in nanoseconds (RFC 6298).
  var smoothedRoundTrip: UInt64 = 0
  var roundTripVariation: UInt64 = 0
  var retransmitTimeout = TCPLimits.initialTimeout
  var backoff = 0
  var timedSequence: UInt32 = 0
  var timedStart: UInt64 = 0
  var isTiming = false
  /// When the oldest unanswered transmission began, for the user timeout; 0 when all is answered.
  var unansweredSince: UInt64 = 0
  var totalRetransmissions = 0

  // Congestion and loss.
  var congestionWindow = 0
  var slowStartThreshold = Int.max
  var acknowledgedInWindow = 0
  var duplicateAcks = 0
  var recovery = Recovery.none
  var recoveryPoint: UInt32 = 0
  var retransmitNext: UInt32 = 0
  var sacked = RangeList(limit: 128)

  // Deadlines, `UInt64.max` when off.
  var retransmitDeadline = UInt64.max
  var persistDeadline = UInt64.max
  var delayedAckDeadline = UInt64.max
  var keepAliveDeadline = UInt64.max
  var finWaitDeadline = UInt64.max
  var corkDeadline = UInt64.max
  var deadline = UInt64.max
  var heapIndex = -1
  /// Place among the unfinished handshakes of `listener`.
  var childIndex = -1
  var lastReceived: UInt64 = 0
  var keepAliveProbes = 0
  var isPending = false
  var ackNow = false
  var ackBytes = 0

  enum Recovery { case none, fast, timeout }

  /// Makes an unconnected connection; `connect` or a listener gives it life.
  public init(_ stack: NetworkStack, _ options: TCPOptions = TCPOptions()) {
    self.stack = stack
    self.options = options
    sendRing = RingBuffer(limit: min(max(options.sendLimit, 2048), TCPLimits.largestSend))
    receiveRing = RingBuffer(limit: min(max(options.receiveLimit, 2048), TCPLimits.largestReceive))
  }

  deinit {
    sendRing.deallocate()
    receiveRing.deallocate()
  }

  func notify() { observer?.socketDidChange() }
}

// MARK: What a program asks

extension TCPConnection {
  /// Bytes ready to read.
  public var readableBytes: Int { receiveRing.count }
  /// Bytes that fit without waiting.
  public var writableBytes: Int { canSendData ? sendRing.space : 0 }
  /// A read would not wait: data, end of stream or error.
  public var isReadable: Bool { receiveRing.count > 0 || isAtEnd || pendingError != nil }
  /// A write would not wait. As in Linux, room counts when a third of the buffer is free.
  public var isWritable: Bool {
    if pendingError != nil || state == .closed { return true }
    if state == .synSent || state == .synReceived { return false }
    return finQueued || sendRing.space * 3 >= sendRing.limit
  }
  /// Both directions are finished (POLLHUP).
  public var hasHangup: Bool {
    switch state {
    case .closed: true
    case .closing, .lastAck, .timeWait: true
    default: finQueued && (finReceived || readShutdown)
    }
  }
  /// The peer sends no more (POLLRDHUP).
  public var hasPeerHangup: Bool { isAtEnd }
  public var hasError: Bool { pendingError != nil }
  public var isConnecting: Bool { state == .synSent || (state == .synReceived && listener == nil) }
  /// True from the end of the handshake until both sides are closed.
  public var isConnected: Bool { state != .closed && state != .synSent && state != .synReceived }
  /// Bytes sent or queued and not yet acknowledged (SIOCOUTQ).
  public var unacknowledgedBytes: Int { sendRing.count }
  /// Everything, the FIN too, has been acknowledged or given up: for SO_LINGER.
  public var isFullySent: Bool {
    switch state {
    case .closed, .timeWait, .finWait2: true
    default: false
    }
  }
  /// TCP_INFO: nanoseconds, bytes, and counts.
  public var roundTripTime: UInt64 { smoothedRoundTrip }
  public var roundTripVariance: UInt64 { roundTripVariation }
  public var retransmissionTimeout: UInt64 { retransmitTimeout }
  public var congestionWindowBytes: Int { congestionWindow }
  public var slowStartThresholdBytes: Int { slowStartThreshold }
  public var maximumSegmentSize: Int { segmentSize }
  public var retransmissions: Int { totalRetransmissions }

  /// The next sequence numbers to send and to receive (SND.NXT and RCV.NXT), for diagnosis.
  public var sequenceNumbers: (send: UInt32, receive: UInt32) { (sendNext, receiveNext) }

  var isAtEnd: Bool { finReceived || readShutdown || (state == .closed && wasConnected) }
  var canSendData: Bool { !finQueued && (state == .established || state == .closeWait) }

  /// The pending error, once (SO_ERROR).
  public func takeError() -> NetworkError? {
    let error = pendingError
    pendingError = nil
    return error
  }

  /// Unread bytes from `offset` on, in one piece, until the next call on the connection. Empty when there are
  /// none; `isReadable` then tells end of stream from waiting.
  public func readableRegion(offset: Int = 0) -> UnsafeRawBufferPointer { receiveRing.readableRegion(offset) }

  /// Drops read bytes, and tells the peer of the room when it matters.
  public func consume(_ count: Int, now: UInt64) {
    receiveRing.consume(count)
    guard isInTable, state != .synSent, state != .synReceived, !finReceived else { return }
    let growth = Int(receiveEdge &- advertisedEdge)
    if growth >= min(receiveRing.limit / 2, 64 << 10) || (advertisedEdge == receiveNext && growth > 0) {
      sendAck(now)
      stack.drainLoopback(now)
    }
  }

  /// Room for bytes to send in one piece; empty when the buffer is full.
  public func writableRegion() throws(NetworkError) -> UnsafeMutableRawBufferPointer {
    if let error = takeError() { throw error }
    if finQueued || (state == .closed && wasConnected) { throw .brokenPipe }
    if state == .closed { throw .notConnected }
    guard canSendData else { return UnsafeMutableRawBufferPointer(start: nil, count: 0) }
    return sendRing.writableRegion()
  }

  /// Queues bytes put into `writableRegion` and sends what may go.
  public func commitWrite(_ count: Int, now: UInt64) {
    guard canSendData, count > 0 else { return }
    sendRing.extend(count)
    output(now)
    stack.drainLoopback(now)
  }

  /// Ends one or both directions (shutdown(2)).
  public func shutdown(read: Bool, write: Bool, now: UInt64) throws(NetworkError) {
    guard isConnected || state == .synReceived else { throw .notConnected }
    if read { readShutdown = true }
    if write { sendFin(now) }
    notify()
    stack.drainLoopback(now)
  }

  /// Gives the connection up to the stack, which delivers what is queued and says goodbye. Unread data makes
  /// it a reset (RFC 2525 section 2.17). The observer hears no more.
  public func close(now: UInt64) {
    observer = nil
    guard !isOrphan else { return }
    isOrphan = true
    if isInTable { stack.orphanCount += 1 }
    releaseReservation()
    switch state {
    case .closed, .timeWait: break
    case .synSent: finish()
    default:
      if receiveRing.count > 0 || stack.orphanCount > NetworkStack.orphanLimit {
        abort(now: now)
      } else {
        sendFin(now)
        if state == .finWait2 { finWaitDeadline = now &+ TCPLimits.finWait2 }
        updateTimer()
      }
    }
    stack.drainLoopback(now)
  }

  /// Drops the connection with a reset.
  public func abort(now: UInt64) {
    switch state {
    case .closed, .timeWait, .synSent: break
    default: sendReset(now)
    }
    finish()
    stack.drainLoopback(now)
  }

  private func sendFin(_ now: UInt64) {
    guard !finQueued else { return }
    switch state {
    case .established, .synReceived:
      finQueued = true
      if state == .established { state = .finWait1 }
    case .closeWait:
      finQueued = true
      state = .lastAck
    default: return
    }
    output(now)
  }
}
