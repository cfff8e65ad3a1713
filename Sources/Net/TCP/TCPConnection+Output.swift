// Sending: which bytes may go now (RFC 9293 section 3.8.6), and building their segments.

extension TCPConnection {
  var inFlight: Int { Int(sendNext &- unacknowledged) }
  var finIsSent: Bool { finQueued && sendNext == sendBase &+ UInt32(truncatingIfNeeded: sendRing.count) &+ 1 }
  /// Payload of the largest frame the link takes at once.
  private var burst: Int {
    guard stack.canSegment(remote.address) else { return segmentSize }
    return max(segmentSize, (65535 - 20 - 60) / segmentSize * segmentSize)
  }

  /// Sends retransmissions and new data as far as the windows allow, then sets the timers. `force` sends
  /// pieces that Nagle's rule, a cork or silly-window avoidance hold back.
  func output(_ now: UInt64, force: Bool = false) {
    switch state {
    case .closed, .synSent, .synReceived, .timeWait: return
    default: break
    }
    growSendLimit()
    if recovery != .none { sendLost(now) }
    while sendNewSegment(now, force) {}
    setSendTimers(now)
  }

  private func growSendLimit() {
    guard options.growsSendLimit, congestionWindow * 2 > sendRing.limit else { return }
    sendRing.limit = min(congestionWindow * 2, TCPLimits.largestSend)
  }

  private func setSendTimers(_ now: UInt64) {
    if inFlight > 0 {
      persistDeadline = .max
      if unansweredSince == 0 { unansweredSince = now }
      if retransmitDeadline == .max { retransmitDeadline = now &+ backedOffTimeout }
    } else {
      retransmitDeadline = .max
      if sendRing.count == 0 || corkDeadline != .max {
        persistDeadline = .max
      } else if persistDeadline == .max {
        persistDeadline = now &+ backedOffTimeout
      }
    }
    updateTimer()
  }

  /// Sends one frame of data never sent before; false when nothing may go.
  private func sendNewSegment(_ now: UInt64, _ force: Bool) -> Bool {
    let sent = Int(sendNext &- sendBase)
    let available = sendRing.count - sent
    if finIsSent || available < 0 { return false }
    if available == 0 { return sendBareFin(now) }
    let windowRoom = Int(Int32(bitPattern: unacknowledged &+ sendWindow &- sendNext))
    let room = min(windowRoom, congestionWindow - pipe)
    guard room > 0 else { return false }
    let length = allowedLength(min(available, room, burst), available, force, now)
    guard length > 0 else { return false }
    var flags = TCPFlags.ack
    if length == available {
      flags |= TCPFlags.psh
      if finQueued { flags |= TCPFlags.fin }
    }
    if length % segmentSize != 0 { smallSegmentEnd = sendNext &+ UInt32(length) }
    startTiming(sendNext &+ UInt32(length), now)
    emit(sequence: sendNext, flags, sent, length, now)
    sendNext = sendNext &+ UInt32(length) &+ (flags & TCPFlags.fin != 0 ? 1 : 0)
    return true
  }

  private func sendBareFin(_ now: UInt64) -> Bool {
    guard finQueued else { return false }
    emit(sequence: sendNext, TCPFlags.ack | TCPFlags.fin, 0, 0, now)
    sendNext &+= 1
    return true
  }

  /// Cuts a length to what the rules against small segments allow.
  private func allowedLength(_ wanted: Int, _ available: Int, _ force: Bool, _ now: UInt64) -> Int {
    if force { return wanted }
    let whole = wanted / segmentSize * segmentSize
    if whole == wanted { return wanted }
    guard wanted == available else {
      // Silly-window avoidance (RFC 9293 section 3.8.6.2.1).
      if whole > 0 { return whole }
      return wanted >= Int(largestSendWindow) / 2 ? wanted : 0
    }
    if finQueued { return wanted }
    if options.cork {
      if whole == 0, corkDeadline == .max { corkDeadline = now &+ TCPLimits.corkTimeout }
      return whole
    }
    let smallOutstanding = isBefore(unacknowledged, smallSegmentEnd) && inFlight > 0
    return options.noDelay || !smallOutstanding ? wanted : whole
  }

  private func startTiming(_ end: UInt32, _ now: UInt64) {
    guard !isTiming, recovery == .none else { return }
    isTiming = true
    timedSequence = end
    timedStart = now
  }

  // MARK: Segments

  /// Right edge of the receive window, never moved left nor by a silly amount (RFC 9293 section 3.8.6.2.2).
  var receiveEdge: UInt32 {
    let edge = receiveNext &+ UInt32(receiveRing.space)
    let growth = Int(Int32(bitPattern: edge &- advertisedEdge))
    return growth >= min(segmentSize, receiveRing.limit / 2) ? edge : advertisedEdge
  }

  func sendAck(_ now: UInt64) { emit(sequence: sendNext, TCPFlags.ack, 0, 0, now) }

  func sendReset(_ now: UInt64) { emit(sequence: sendNext, TCPFlags.rst | TCPFlags.ack, 0, 0, now) }

  /// Sends (again) the SYN or SYN-ACK that the state calls for.
  func sendSyn(_ now: UInt64) {
    let flags = state == .synSent ? TCPFlags.syn : TCPFlags.syn | TCPFlags.ack
    emit(sequence: unacknowledged, flags, 0, 0, now)
    if retransmitDeadline == .max { retransmitDeadline = now &+ backedOffTimeout }
    if unansweredSince == 0 { unansweredSince = now }
    updateTimer()
  }

  /// Builds and transmits one frame; `offset` counts from the head of the send buffer.
  func emit(sequence: UInt32, _ flags: UInt8, _ offset: Int, _ length: Int, _ now: UInt64) {
    let header = stack.frame + NetworkStack.transportOffset
    let optionsLength = writeOptions(header + HeaderLength.tcp, flags, length, now)
    let headerLength = HeaderLength.tcp + optionsLength
    header.put16(0, local.port)
    header.put16(2, remote.port)
    header.put32(4, sequence)
    header.put32(8, flags & TCPFlags.ack != 0 ? receiveNext : 0)
    header.put8(12, UInt8(headerLength / 4) << 4)
    header.put8(13, flags)
    header.put16(14, windowField(flags))
    header.put32(16, 0)
    sendRing.copy(from: offset, length, to: header + headerLength)
    if flags & TCPFlags.ack != 0 { acknowledgementSent() }
    var transmission = Transmission(local.address, remote.address, IPProtocol.tcp)
    transmission.length = headerLength + length
    transmission.headerLength = headerLength
    transmission.segmentSize = length > segmentSize ? segmentSize : 0
    transmission.checksumOffset = 16
    transmission.timeToLive = options.timeToLive
    stack.transmit(transmission, now)
  }

  private func acknowledgementSent() {
    lastAckSent = receiveNext
    ackNow = false
    ackBytes = 0
    delayedAckDeadline = .max
  }

  /// The window of a SYN is never scaled (RFC 7323 section 2.2).
  private func windowField(_ flags: UInt8) -> UInt16 {
    guard flags & TCPFlags.syn == 0 else {
      let window = min(receiveRing.space, 65535)
      advertisedEdge = receiveNext &+ UInt32(window)
      return UInt16(window)
    }
    let edge = receiveEdge
    let scaled = min((edge &- receiveNext) >> UInt32(receiveWindowScale), 65535)
    let promised = receiveNext &+ (scaled << UInt32(receiveWindowScale))
    advertisedEdge = later(advertisedEdge, promised)
    return UInt16(scaled)
  }

  private func writeOptions(_ base: UnsafeMutableRawPointer, _ flags: UInt8, _ payload: Int, _ now: UInt64)
    -> Int
  {
    var length = 0
    if flags & TCPFlags.syn != 0 {
      base.put32(0, 0x0204_0000 | UInt32(stack.segmentSize(toward: remote.address)))
      length = 4
      if usesWindowScale {
        base.put32(length, 0x0103_0300 | UInt32(TCPLimits.windowScale))
        length += 4
      }
      if usesSack {
        base.put32(length, 0x0101_0402)
        length += 4
      }
    }
    if usesTimestamps {
      base.put32(length, 0x0101_080A)
      base.put32(length + 4, timestamp(now))
      base.put32(length + 8, flags & TCPFlags.ack != 0 ? recentTimestamp : 0)
      length += 12
    }
    // SACK blocks must not push a full segment over the MTU.
    let fits = payload + 36 <= segmentSize
    if usesSack, fits, flags & TCPFlags.syn == 0, !outOfOrder.isEmpty { length += writeSack(base + length) }
    return length
  }

  /// The block with the newest data comes first (RFC 2018 section 4).
  private func writeSack(_ base: UnsafeMutableRawPointer) -> Int {
    let most = usesTimestamps ? 3 : 4
    var count = 0
    func write(_ range: SequenceRange) {
      base.put32(4 + count * 8, range.start)
      base.put32(8 + count * 8, range.end)
      count += 1
    }
    for range in outOfOrder.ranges where contains(range, latestOutOfOrder.start) { write(range) }
    for range in outOfOrder.ranges where count < most && !contains(range, latestOutOfOrder.start) {
      write(range)
    }
    base.put32(0, 0x0101_0500 | UInt32(2 + count * 8))
    return 4 + count * 8
  }

  private func contains(_ range: SequenceRange, _ point: UInt32) -> Bool {
    isAtMost(range.start, point) && isBefore(point, range.end)
  }

  /// Milliseconds from a random beginning (RFC 7323 section 5.4).
  func timestamp(_ now: UInt64) -> UInt32 {
    UInt32(truncatingIfNeeded: now / Nanoseconds.millisecond) &+ timestampOffset
  }
}
