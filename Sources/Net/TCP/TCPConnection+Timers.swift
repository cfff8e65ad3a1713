// The end of a connection, and its timers: retransmission, persist, keep-alive, and those of closing.

extension TCPConnection {
  /// Ends the connection at once, with an error for the program when there is one to tell.
  func finish(_ error: NetworkError? = nil) {
    if let error { pendingError = error }
    stack.remove(self)
    if let listener { listener.forget(self) }
    listener = nil
    state = .closed
    sendRing.deallocate()
    sacked.removeAll()
    outOfOrder.removeAll()
    stopTimers()
    releaseReservation()
    notify()
  }

  private func stopTimers() {
    retransmitDeadline = .max
    persistDeadline = .max
    delayedAckDeadline = .max
    keepAliveDeadline = .max
    finWaitDeadline = .max
    corkDeadline = .max
    backoff = 0
    unansweredSince = 0
  }

  func releaseReservation() {
    if ownsReservation, let reservation { reservation.close() }
    ownsReservation = false
    reservation = nil
  }

  func updateTimer() {
    guard isInTable else { return }
    let first = min(min(retransmitDeadline, persistDeadline), min(delayedAckDeadline, keepAliveDeadline))
    stack.timers.update(self, min(first, min(finWaitDeadline, corkDeadline)))
  }

  func optionsChanged() {
    sendRing.limit = min(max(options.sendLimit, 2048), TCPLimits.largestSend)
    receiveRing.limit = min(max(options.receiveLimit, 2048), TCPLimits.largestReceive)
    restartKeepAlive(lastReceived)
    if !options.cork { corkDeadline = .max }
    if isInTable, sendRing.count > 0 { stack.schedule(self) }
    updateTimer()
  }

  func restartKeepAlive(_ now: UInt64) {
    let runs = options.keepAlive && isConnected && state != .timeWait
    keepAliveDeadline = runs ? now &+ options.keepAliveIdle : .max
  }

  /// Runs what is due.
  func expire(_ now: UInt64) {
    if delayedAckDeadline <= now { sendAck(now) }
    if finWaitDeadline <= now {
      finish()
      return
    }
    if corkDeadline <= now {
      corkDeadline = .max
      output(now, force: true)
    }
    if retransmitDeadline <= now { retransmitTimerExpired(now) }
    if isInTable, persistDeadline <= now { persistTimerExpired(now) }
    if isInTable, keepAliveDeadline <= now { keepAliveExpired(now) }
    updateTimer()
  }

  private func hasOutlived(_ now: UInt64) -> Bool {
    options.userTimeout > 0 && unansweredSince > 0 && now &- unansweredSince >= options.userTimeout
  }

  private func retransmitTimerExpired(_ now: UInt64) {
    backoff += 1
    isTiming = false  // Karn: no sample from what is sent twice.
    let handshake = state == .synSent || state == .synReceived
    let most =
      state == .synSent ? TCPLimits.synRetries : handshake ? TCPLimits.synAckRetries : TCPLimits.retries
    if backoff > most || hasOutlived(now) || (isOrphan && backoff > 8) {
      finish(.timedOut)
      return
    }
    totalRetransmissions += 1
    retransmitDeadline = now &+ backedOffTimeout
    if handshake {
      sendSyn(now)
      return
    }
    enterTimeoutRecovery()
    output(now)
  }

  var backedOffTimeout: UInt64 {
    min(retransmitTimeout << UInt64(min(backoff, 10)), TCPLimits.largestTimeout)
  }

  private func persistTimerExpired(_ now: UInt64) {
    if hasOutlived(now) || (isOrphan && backoff > 8) {
      finish(.timedOut)
      return
    }
    if sendWindow > 0 {
      persistDeadline = .max
      output(now, force: true)
      if persistDeadline != .max || sendNext != unacknowledged { return }
    }
    if unansweredSince == 0 { unansweredSince = now }
    backoff += 1
    persistDeadline = now &+ backedOffTimeout
    emit(sequence: unacknowledged &- 1, TCPFlags.ack, 0, 0, now)
  }

  private func keepAliveExpired(_ now: UInt64) {
    if sendNext != unacknowledged || sendRing.count > 0 {
      keepAliveDeadline = now &+ options.keepAliveIdle
      return
    }
    let quiet = now &- lastReceived
    if quiet < options.keepAliveIdle {
      keepAliveDeadline = lastReceived &+ options.keepAliveIdle
      return
    }
    if keepAliveProbes >= options.keepAliveCount {
      sendReset(now)
      finish(.timedOut)
      return
    }
    keepAliveProbes += 1
    keepAliveDeadline = now &+ options.keepAliveInterval
    emit(sequence: unacknowledged &- 1, TCPFlags.ack, 0, 0, now)
  }
}
