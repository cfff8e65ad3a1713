// Arriving segments in a synchronised state: the checks of RFC 9293 section 3.10.7.4 in their order.

extension TCPConnection {
  func receive(_ arrived: TCPSegment, _ now: UInt64) {
    if state == .synSent {
      receiveInSynSent(arrived, now)
      return
    }
    var segment = arrived
    if state == .synReceived, segment.has(TCPFlags.syn), segment.sequence == initialReceiveSequence {
      guard segment.has(TCPFlags.ack) else {
        sendSyn(now)
        return
      }
      // The other half of a simultaneous open: the SYN is old, its ACK is new.
      segment.flags &= ~TCPFlags.syn
      segment.sequence &+= 1
    }
    guard passesChecks(segment, now) else { return }
    lastReceived = now
    keepAliveProbes = 0
    if keepAliveDeadline != .max, options.keepAlive { keepAliveDeadline = now &+ options.keepAliveIdle }
    if state == .synReceived, !completeHandshake(segment, now) { return }
    guard receiveAcknowledgement(segment, now) else { return }
    if !segment.payload.isEmpty || segment.has(TCPFlags.fin) { receivePayload(segment, now) }
    guard isInTable else { return }
    output(now)
    if isInTable { stack.scheduleAck(self, now) }
  }

  private func passesChecks(_ segment: TCPSegment, _ now: UInt64) -> Bool {
    let isReset = segment.has(TCPFlags.rst)
    if usesTimestamps, segment.hasTimestamps, !isReset, isBefore(segment.timestampValue, recentTimestamp),
      now &- recentTimestampTime < 24 * 86400 * Nanoseconds.second
    {
      answerUnacceptable(segment, now)  // PAWS (RFC 7323 section 5.3)
      return false
    }
    guard isAcceptable(segment) else {
      if !isReset { answerUnacceptable(segment, now) }
      return false
    }
    if isReset {
      receiveReset(segment, now)
      return false
    }
    if segment.has(TCPFlags.syn) {
      if stack.mayChallenge(now) { sendAck(now) }  // RFC 5961 section 4
      return false
    }
    if segment.hasTimestamps, isAtMost(segment.sequence, lastAckSent),
      !isBefore(segment.timestampValue, recentTimestamp)
    {
      recentTimestamp = segment.timestampValue
      recentTimestampTime = now
    }
    return segment.has(TCPFlags.ack)
  }

  /// The four cases of RFC 9293 table 6.
  private func isAcceptable(_ segment: TCPSegment) -> Bool {
    let window = advertisedEdge &- receiveNext
    let start = segment.sequence
    if segment.length == 0 {
      return window == 0 ? start == receiveNext : start &- receiveNext <= window
    }
    let last = start &+ segment.length &- 1
    // A full window still takes the ACK of a segment that begins at its edge.
    if window == 0 { return start == receiveNext }
    return start &- receiveNext < window || last &- receiveNext < window
  }

  private func answerUnacceptable(_ segment: TCPSegment, _ now: UInt64) {
    // Two confused peers must not answer each other for ever: bare ACKs are answered at a bounded rate.
    if segment.length > 0 || segment.sequence == receiveNext &- 1 || stack.mayChallenge(now) { sendAck(now) }
  }

  /// RFC 5961 section 3: only the exact sequence number resets.
  private func receiveReset(_ segment: TCPSegment, _ now: UInt64) {
    guard segment.sequence == receiveNext else {
      if stack.mayChallenge(now) { sendAck(now) }
      return
    }
    switch state {
    case .synReceived: finish(.connectionRefused)
    case .closeWait: finish(.brokenPipe)
    case .closing, .lastAck: finish()
    default: finish(.connectionReset)
    }
  }

  private func completeHandshake(_ segment: TCPSegment, _ now: UInt64) -> Bool {
    guard segment.acknowledgement == sendNext else {
      stack.sendReset(for: segment, local, remote, now)
      return false
    }
    // As in Linux, a full accept queue leaves the handshake open; the SYN-ACK is sent again later.
    if let listener, !listener.hasRoom { return false }
    handshakeAcknowledged(segment, now)
    sendWindow = UInt32(segment.window) << UInt32(sendWindowScale)
    largestSendWindow = sendWindow
    windowUpdateSequence = segment.sequence
    windowUpdateAcknowledgement = segment.acknowledgement
    establish(now)
    listener?.established(self, hasData: !segment.payload.isEmpty)
    return isInTable
  }

  /// False when the segment is to be dropped.
  private func receiveAcknowledgement(_ segment: TCPSegment, _ now: UInt64) -> Bool {
    let edge = segment.acknowledgement
    if isBefore(sendNext, edge) || isBefore(edge, unacknowledged &- max(largestSendWindow, 65535)) {
      if stack.mayChallenge(now) { sendAck(now) }  // RFC 5961 section 5
      return false
    }
    let newSack = noteSack(segment)
    let windowChanged = updateWindow(segment)
    if isBefore(unacknowledged, edge) {
      acknowledge(upTo: edge, segment, now)
      acknowledgedFin(now)
      notify()
    } else if edge == unacknowledged, inFlight > 0, segment.length == 0, newSack || !windowChanged {
      noteDuplicateAck(now, newSack: newSack)
    }
    if sendWindow == 0 { backoff = min(backoff, 6) }  // The peer answers: it is slow, not gone.
    return isInTable
  }

  private func updateWindow(_ segment: TCPSegment) -> Bool {
    let isNewer =
      isBefore(windowUpdateSequence, segment.sequence)
      || (windowUpdateSequence == segment.sequence
        && isAtMost(windowUpdateAcknowledgement, segment.acknowledgement))
    guard isNewer, isAtMost(unacknowledged, segment.acknowledgement) else { return false }
    let window = UInt32(segment.window) << UInt32(sendWindowScale)
    let changed = window != sendWindow
    sendWindow = window
    largestSendWindow = max(largestSendWindow, window)
    windowUpdateSequence = segment.sequence
    windowUpdateAcknowledgement = segment.acknowledgement
    return changed
  }

  private func acknowledgedFin(_ now: UInt64) {
    guard finIsSent, unacknowledged == sendNext else { return }
    switch state {
    case .finWait1:
      state = .finWait2
      if isOrphan { finWaitDeadline = now &+ TCPLimits.finWait2 }
    case .closing: stack.enterTimeWait(self, now)
    case .lastAck: finish()
    default: break
    }
  }

  // MARK: Data

  func receivePayload(_ segment: TCPSegment, _ now: UInt64) {
    switch state {
    case .established, .finWait1, .finWait2: break
    default:
      if segment.length > 0 { ackNow = true }
      return
    }
    var start = segment.sequence
    var bytes = segment.payload
    var hasFin = segment.has(TCPFlags.fin)
    if isBefore(start, receiveNext) {
      let old = min(Int(receiveNext &- start), bytes.count)
      bytes = bytes.part(old, bytes.count)
      start &+= UInt32(old)
      ackNow = true
    }
    let room = Int(Int32(bitPattern: advertisedEdge &- start))
    if bytes.count > room {
      bytes = bytes.part(0, max(0, room))
      hasFin = false
      ackNow = true
    }
    if isOrphan, !bytes.isEmpty {
      abort(now: now)  // Nobody will read this (RFC 9293 section 3.6.1).
      return
    }
    if hasFin, !finSeen {
      finSeen = true
      finSequence = start &+ UInt32(bytes.count)
    }
    if !bytes.isEmpty { store(bytes, at: start, now) }
    if finSeen, !finReceived, receiveNext == finSequence { receivedFin(now) }
  }

  private func store(_ bytes: UnsafeRawBufferPointer, at start: UInt32, _ now: UInt64) {
    let end = start &+ UInt32(bytes.count)
    if finSeen, isBefore(finSequence, end) { return }
    let ahead = Int(start &- receiveNext)
    let live =
      outOfOrder.ranges.last.map { receiveRing.count + Int($0.end &- receiveNext) } ?? receiveRing.count
    if ahead > 0 {
      guard outOfOrder.insert(SequenceRange(start: start, end: end)) else { return }
      receiveRing.write(bytes, at: receiveRing.count + ahead, live: live)
      latestOutOfOrder = SequenceRange(start: start, end: end)
      sendAck(now)  // At once, for the sender counts duplicates (RFC 5681 section 4.2).
      return
    }
    receiveRing.write(bytes, at: receiveRing.count, live: live)
    var edge = end
    if let first = outOfOrder.ranges.first {
      if isAtMost(first.start, edge) { edge = later(edge, first.end) }
      ackNow = true
    }
    while let first = outOfOrder.ranges.first, isAtMost(first.start, edge) {
      edge = later(edge, first.end)
      outOfOrder.removeBefore(edge)
    }
    receiveRing.extend(Int(edge &- receiveNext))
    ackBytes += bytes.count
    receiveNext = edge
    listener?.receivedData(self)
    notify()
  }

  private func receivedFin(_ now: UInt64) {
    receiveNext &+= 1
    advertisedEdge = later(advertisedEdge, receiveNext)
    finReceived = true
    ackNow = true
    listener?.receivedData(self)
    switch state {
    case .established: state = .closeWait
    case .finWait1: state = .closing
    case .finWait2: stack.enterTimeWait(self, now)
    default: break
    }
    notify()
  }
}
