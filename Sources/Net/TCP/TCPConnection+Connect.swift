// Opening: active, passive and simultaneous (RFC 9293 section 3.5).

extension TCPConnection {
  /// Begins to connect; the observer hears when it is done. A return means begun or, over loopback, already
  /// done: see `state` and `takeError`. After a failure it may be tried again; a connection that once was
  /// established is used up.
  public func connect(to target: Endpoint, from bound: PortReservation?, now: UInt64) throws(NetworkError) {
    if isConnecting { throw .already }
    if state != .closed || wasConnected { throw .isConnected }
    let destination = target.loopbackIfAny
    guard target.port != 0, !destination.address.isMulticast, !stack.isBroadcast(destination.address)
    else { throw .invalid }
    var source = bound?.endpoint ?? .any
    if source.address.isAny { source.address = try stack.sourceAddress(toward: destination.address) }
    guard source.address.isIPv4 == destination.address.isIPv4 else { throw .networkUnreachable }
    if source.port == 0 { source.port = try stack.freeTCPPort(source.address, destination) }
    guard stack.connections[TableKey(local: source, remote: destination)] == nil
    else { throw .addressNotAvailable }
    local = source
    remote = destination
    reservation = bound
    pendingError = nil
    prepare(now)
    state = .synSent
    stack.insert(self)
    sendSyn(now)
    stack.drainLoopback(now)
  }

  /// Chooses the first sequence number (RFC 6528: unpredictable, and rising with time per conversation).
  func prepare(_ now: UInt64) {
    let start = stack.initialSequence(local, remote, now)
    unacknowledged = start
    sendNext = start &+ 1
    sendBase = start &+ 1
    smallSegmentEnd = start
    recoveryPoint = start
    timestampOffset = stack.timestampOffset(local.address, remote.address)
    segmentSize = stack.segmentSize(toward: remote.address)
    congestionWindow = 10 * segmentSize
    timedSequence = sendNext
    timedStart = now
    isTiming = true
    smoothedRoundTrip = 0
    retransmitTimeout = TCPLimits.initialTimeout
    lastReceived = now
    usesSack = stack.offersSack
    usesTimestamps = stack.offersTimestamps
    usesWindowScale = stack.offersWindowScale
  }

  /// Takes the options of the peer's SYN: what both sides offer is used.
  func adopt(_ syn: TCPSegment, _ now: UInt64) {
    initialReceiveSequence = syn.sequence
    receiveNext = syn.sequence &+ 1
    lastAckSent = receiveNext
    advertisedEdge = receiveNext
    usesTimestamps = usesTimestamps && syn.hasTimestamps
    usesSack = usesSack && syn.sackPermitted
    usesWindowScale = usesWindowScale && syn.hasWindowScale
    sendWindowScale = usesWindowScale ? syn.windowScale : 0
    receiveWindowScale = usesWindowScale ? TCPLimits.windowScale : 0
    if !usesWindowScale { receiveRing.limit = min(receiveRing.limit, 65535) }
    recentTimestamp = syn.timestampValue
    recentTimestampTime = now
    // RFC 9293 section 3.7.1: 536 when the peer does not say; a floor against absurd offers.
    let offered = syn.maximumSegmentSize == 0 ? 536 : max(Int(syn.maximumSegmentSize), 88)
    segmentSize = min(offered, stack.segmentSize(toward: remote.address)) - (usesTimestamps ? 12 : 0)
    congestionWindow = 10 * segmentSize
    sendWindow = UInt32(syn.window)
    largestSendWindow = sendWindow
    windowUpdateSequence = syn.sequence
    windowUpdateAcknowledgement = syn.acknowledgement
  }

  func receiveInSynSent(_ segment: TCPSegment, _ now: UInt64) {
    let acknowledges = segment.has(TCPFlags.ack)
    if acknowledges, segment.acknowledgement != sendNext {
      if !segment.has(TCPFlags.rst) { stack.sendReset(for: segment, local, remote, now) }
      return
    }
    if segment.has(TCPFlags.rst) {
      if acknowledges { finish(.connectionRefused) }
      return
    }
    guard segment.has(TCPFlags.syn) else { return }
    adopt(segment, now)
    retransmitDeadline = .max
    if acknowledges {
      handshakeAcknowledged(segment, now)
      establish(now)
      ackNow = true
      receivePayload(segment, now)
      sendAck(now)
    } else {
      // Simultaneous open (RFC 9293 section 3.5, figure 8).
      state = .synReceived
      backoff = 0
      sendSyn(now)
    }
  }

  func handshakeAcknowledged(_ segment: TCPSegment, _ now: UInt64) {
    if isTiming { noteRoundTrip(now &- timedStart) }
    isTiming = false
    // RFC 6298 section 5.7: a lost SYN starts data with a timeout of three seconds.
    if smoothedRoundTrip == 0 { retransmitTimeout = 3 * Nanoseconds.second }
    unacknowledged = sendNext
    backoff = 0
    unansweredSince = 0
    retransmitDeadline = .max
  }

  func establish(_ now: UInt64) {
    state = .established
    wasConnected = true
    restartKeepAlive(now)
    if finQueued { state = .finWait1 }
    updateTimer()
    notify()
  }
}
