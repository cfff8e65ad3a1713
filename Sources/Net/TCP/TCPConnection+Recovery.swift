// Loss recovery: SACK-based (RFC 6675) or NewReno (RFC 6582), congestion control (RFC 5681), RTT (RFC 6298).

extension TCPConnection {
  /// Bytes taken to be out of the network: selectively acknowledged, or hinted at by duplicate ACKs.
  private var arrivedBytes: Int {
    usesSack ? sacked.total : min(duplicateAcks * segmentSize, max(0, inFlight - segmentSize))
  }

  /// Everything before this point and not received is taken as lost.
  private var lostEdge: UInt32 {
    switch recovery {
    case .none: return unacknowledged
    case .timeout: return recoveryPoint
    case .fast:
      let firstSegment = earlier(unacknowledged &+ UInt32(segmentSize), recoveryPoint)
      guard usesSack, let edge = sacked.edge(withMoreAbove: 2 * segmentSize) else { return firstSegment }
      return later(edge, firstSegment)
    }
  }

  /// Estimate of the bytes in the network (RFC 6675 section 4, SetPipe).
  var pipe: Int {
    guard recovery != .none else { return inFlight - arrivedBytes }
    let edge = lostEdge
    let again = later(retransmitNext, unacknowledged)
    let resent =
      Int(earlier(again, edge) &- unacknowledged) - sacked.covered(unacknowledged, earlier(again, edge))
    let fresh = isBefore(edge, sendNext) ? Int(sendNext &- edge) - sacked.covered(edge, sendNext) : 0
    return max(0, resent + fresh - (usesSack || recovery == .timeout ? 0 : arrivedBytes))
  }

  /// Sends again what is lost, as far as the congestion window allows.
  func sendLost(_ now: UInt64) {
    retransmitNext = later(retransmitNext, unacknowledged)
    while let hole = sacked.gap(from: retransmitNext, upTo: lostEdge) {
      let isFirst = hole.start == unacknowledged
      guard isFirst || congestionWindow - pipe >= min(segmentSize, hole.count) else { return }
      let length = min(hole.count, segmentSize)
      resend(hole.start, length, now)
      retransmitNext = hole.start &+ UInt32(length)
    }
  }

  private func resend(_ start: UInt32, _ wanted: Int, _ now: UInt64) {
    let offset = Int(start &- sendBase)
    let length = min(wanted, max(0, sendRing.count - offset))
    // Sequence space beyond the buffer is that of the FIN.
    let flags = length < wanted ? TCPFlags.ack | TCPFlags.fin : TCPFlags.ack
    isTiming = false
    totalRetransmissions += 1
    emit(sequence: start, flags, offset, length, now)
  }

  // MARK: Acknowledgements

  /// Takes in new SACK blocks; true when they told something new.
  func noteSack(_ segment: TCPSegment) -> Bool {
    guard usesSack, segment.sackCount > 0 else { return false }
    let before = sacked.total
    for index in 0..<segment.sackCount {
      var block = segment.sackBlock(index)
      guard isBefore(block.start, block.end), isAtMost(block.end, sendNext),
        isBefore(unacknowledged, block.end)
      else { continue }
      block.start = later(block.start, unacknowledged)
      sacked.insert(block)
    }
    return sacked.total > before
  }

  /// An ACK that brings nothing new while data is outstanding (RFC 5681 section 2).
  func noteDuplicateAck(_ now: UInt64, newSack: Bool) {
    if !usesSack || newSack { duplicateAcks += 1 }
    guard recovery == .none else { return }
    let evidence = usesSack ? sacked.edge(withMoreAbove: 2 * segmentSize) != nil : duplicateAcks >= 3
    if evidence || duplicateAcks >= 3 { enterFastRecovery(now) }
  }

  private func enterFastRecovery(_ now: UInt64) {
    recovery = .fast
    recoveryPoint = sendNext
    retransmitNext = unacknowledged
    slowStartThreshold = max(inFlight * 7 / 10, 2 * segmentSize)
    congestionWindow = slowStartThreshold
    isTiming = false
    retransmitDeadline = now &+ backedOffTimeout
  }

  /// After a timeout everything counts as lost; the receiver may have dropped what it reported (RFC 2018
  /// section 8), so the scoreboard starts anew.
  func enterTimeoutRecovery() {
    if backoff == 1 || recovery != .timeout { slowStartThreshold = max(inFlight / 2, 2 * segmentSize) }
    congestionWindow = segmentSize
    acknowledgedInWindow = 0
    sacked.removeAll()
    duplicateAcks = 0
    recovery = .timeout
    recoveryPoint = sendNext
    retransmitNext = unacknowledged
  }

  /// Moves the left edge of the send window and settles all that depends on it.
  func acknowledge(upTo edge: UInt32, _ segment: TCPSegment, _ now: UInt64) {
    let advance = Int(edge &- unacknowledged)
    measureRoundTrip(edge, segment, now)
    let data = min(Int(edge &- sendBase), sendRing.count)
    sendRing.consume(data)
    sendBase &+= UInt32(data)
    unacknowledged = edge
    sacked.removeBefore(edge)
    backoff = 0
    unansweredSince = inFlight > 0 ? now : 0
    retransmitDeadline = inFlight > 0 ? now &+ retransmitTimeout : .max
    persistDeadline = .max
    settleRecovery(edge, advance)
  }

  private func settleRecovery(_ edge: UInt32, _ advance: Int) {
    duplicateAcks = 0
    switch recovery {
    case .none: growCongestionWindow(advance)
    case .fast:
      if isAtMost(recoveryPoint, edge) {
        recovery = .none
        congestionWindow = slowStartThreshold
      } else if !usesSack {
        retransmitNext = edge  // NewReno: a partial ACK shows the next hole.
      }
    case .timeout:
      growCongestionWindow(advance)
      if isAtMost(recoveryPoint, edge) { recovery = .none }
    }
  }

  /// Slow start with appropriate byte counting, then one segment per window (RFC 3465, RFC 5681).
  private func growCongestionWindow(_ advance: Int) {
    // A window that was not used says nothing about the network (RFC 7661 section 4.3).
    guard congestionWindow < TCPLimits.largestSend, congestionWindow < 2 * (inFlight + advance) else {
      return
    }
    if congestionWindow < slowStartThreshold {
      congestionWindow += recovery == .timeout ? min(advance, segmentSize) : advance
      return
    }
    acknowledgedInWindow += advance
    if acknowledgedInWindow >= congestionWindow {
      acknowledgedInWindow -= congestionWindow
      congestionWindow += segmentSize
    }
  }

  private func measureRoundTrip(_ edge: UInt32, _ segment: TCPSegment, _ now: UInt64) {
    if isTiming, isAtMost(timedSequence, edge) {
      isTiming = false
      noteRoundTrip(now &- timedStart)
    } else if !isTiming, usesTimestamps, segment.hasTimestamps, segment.timestampEcho != 0 {
      let elapsed = timestamp(now) &- segment.timestampEcho
      if elapsed < 1 << 20 { noteRoundTrip(max(UInt64(elapsed), 1) * Nanoseconds.millisecond) }
    }
  }

  func noteRoundTrip(_ sample: UInt64) {
    let time = min(max(sample, 1), TCPLimits.largestTimeout)
    if smoothedRoundTrip == 0 {
      smoothedRoundTrip = time
      roundTripVariation = time / 2
    } else {
      let error = time > smoothedRoundTrip ? time - smoothedRoundTrip : smoothedRoundTrip - time
      roundTripVariation = (3 * roundTripVariation + error) / 4
      smoothedRoundTrip = (7 * smoothedRoundTrip + time) / 8
    }
    let timeout = smoothedRoundTrip + max(4 * roundTripVariation, Nanoseconds.millisecond)
    retransmitTimeout = min(max(timeout, TCPLimits.smallestTimeout), TCPLimits.largestTimeout)
  }
}
