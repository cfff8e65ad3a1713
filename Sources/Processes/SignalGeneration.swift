public import ABI
import CMachine
import Tasks
import VFS

// Sending of signals: what Linux does between kill(2) and the moment a thread takes the signal.

extension LinuxThread {
  /// Looks again at whether something waits for this thread; call after the mask or a queue has changed.
  public func recalculatePending() {
    if isInterrupted { interrupt() } else { hasPendingInterrupt = false }
  }

  var isInterrupted: Bool {
    if hasExited { return false }
    if process.ends(self) || process.isStopping && tracing?.hasJoinedStop != true { return true }
    if let tracing, tracing.wantsStop { return true }
    return !pending.set.union(process.pending.set).subtracting(mask).isEmpty
  }

  /// Changes the mask (never SIGKILL nor SIGSTOP). Process signals that become blocked here go to another thread.
  public func setMask(_ newMask: SignalSet) {
    let old = mask
    mask = newMask.subtracting(.unblockable)
    if !process.pending.set.intersection(mask.subtracting(old)).isEmpty { process.retarget(except: self) }
    recalculatePending()
  }

  /// Installs a mask for the length of one call; `deliverSignals` brings the old one back.
  public func setTemporaryMask(_ newMask: SignalSet) {
    savedMask = mask
    setMask(newMask)
  }

  /// Ends a temporary mask when the call ended without a signal.
  public func restoreMask() {
    guard let saved = savedMask else { return }
    savedMask = nil
    setMask(saved)
  }

  /// Sends a signal to this thread alone. EAGAIN when a real-time signal has no room.
  public func send(_ information: SignalInformation, fromOutside: Bool = false) throws(Errno) {
    guard !hasExited, process.prepare(information.signal, thread: self, fromOutside: fromOutside) else {
      return
    }
    guard pending.add(information, limit: process.limits[ResourceLimit.pendingSignals].soft) else {
      throw .again
    }
    process.signalQueue.wake(Readiness.readable.rawValue)
    process.complete(information.signal, thread: self, candidates: [self])
  }
}

extension Process {
  /// Sends a signal to the process: a thread that does not block it takes it. `fromOutside` is for the host and the
  /// terminal, whose signals reach pid 1 even if it has no handler. EAGAIN when a real-time signal has no room.
  public func send(_ information: SignalInformation, fromOutside: Bool = false) throws(Errno) {
    guard let first = threads.first, prepare(information.signal, thread: first, fromOutside: fromOutside)
    else {
      return
    }
    guard pending.add(information, limit: limits[ResourceLimit.pendingSignals].soft) else { throw .again }
    signalQueue.wake(Readiness.readable.rawValue)
    complete(information.signal, thread: first, candidates: threads)
  }

  /// Sends a signal whose loss nobody would report: from timers, children, terminals.
  public func notify(_ information: SignalInformation, fromOutside: Bool = false) {
    do throws(Errno) { try send(information, fromOutside: fromOutside) } catch {}
  }

  /// Effects that a signal has when it is sent, blocked or not (kernel: prepare_signal). False: nobody cares.
  fileprivate func prepare(_ signal: Int32, thread: LinuxThread, fromOutside: Bool) -> Bool {
    if isZombie { return false }
    if isExiting { return signal == Signal.kill }
    if SignalSet.stopping.has(signal) {
      discard(SignalSet(Signal.continue))
    } else if signal == Signal.continue {
      discard(.stopping)
      resume()
    }
    return !ignores(signal, thread: thread, fromOutside: fromOutside)
  }

  private func ignores(_ signal: Int32, thread: LinuxThread, fromOutside: Bool) -> Bool {
    let isBlocked = thread.mask.union(thread.realMask).has(signal)
    if isBlocked || thread.tracing != nil && signal != Signal.kill { return false }
    let handler = actions[signal].handler
    if isProtected, !fromOutside, handler == SignalAction.defaultHandler { return true }
    if SignalSet.unblockable.has(signal) {
      if fromOutside, signal == Signal.kill { isProtected = false }
      return false
    }
    if handler == SignalAction.ignoreHandler { return true }
    guard handler == SignalAction.defaultHandler else { return false }
    switch Signal.defaultAction(signal) {
    // SIGCONT without a handler has done all it does when it was sent.
    case .ignore, .resume: return true
    case .stop: return false
    case .core, .terminate:
      if fromOutside { isProtected = false }
      return false
    }
  }

  func discard(_ signals: SignalSet) {
    pending.discard(signals)
    for thread in threads { thread.pending.discard(signals) }
  }

  /// Finds who takes the signal and wakes it; a deadly signal ends the process at once.
  fileprivate func complete(_ signal: Int32, thread: LinuxThread, candidates: [LinuxThread]) {
    if signal == Signal.kill {
      for thread in threads { thread.tracing?.release() }
      beginGroupExit(status: signal)
      return
    }
    guard let taker = candidates.first(where: { !$0.hasExited && !$0.mask.has(signal) }) else { return }
    if isDeadly(signal), !isStopping, !taker.realMask.has(signal), taker.tracing == nil {
      beginGroupExit(status: signal)
    } else {
      taker.interrupt()
    }
  }

  private func isDeadly(_ signal: Int32) -> Bool {
    actions[signal].handler == SignalAction.defaultHandler && Signal.defaultAction(signal) == .terminate
  }

  /// Lets the threads look whether a process signal is for them.
  func retarget(except thread: LinuxThread) {
    for other in threads where other !== thread && !other.hasExited && other.isInterrupted {
      other.interrupt()
    }
  }

  /// Stops every thread at its next safe point.
  func beginStop(_ signal: Int32) {
    if isStopping || isExiting { return }
    isStopping = true
    stopSignal = signal
    stoppedThreads = 0
    hasContinuationToReport = false
    for thread in threads { thread.interrupt() }
  }

  /// SIGCONT, or the end: stopped threads go on.
  func resume() {
    guard isStopping else { return }
    isStopping = false
    let wasStopped = isStopped
    isStopped = false
    hasStopToReport = false
    stopQueue.wake()
    for thread in threads {
      thread.tracing?.endGroupStop()
      thread.recalculatePending()
    }
    guard wasStopped, !isExiting else { return }
    hasContinuationToReport = true
    notifyParent(code: SignalInformation.childContinued, status: Signal.continue)
  }

  /// Called by a thread at its safe point while the process stops; returns when it goes on or ends.
  func waitWhileStopped(_ thread: LinuxThread) {
    while isStopping, !isExiting, survivor == nil, thread.tracing == nil {
      countStopped()
      do throws(Errno) { try stopQueue.sleep(interruptible: false) } catch {}
      stoppedThreads -= stoppedThreads > 0 ? 1 : 0
    }
  }

  /// One more thread has stopped.
  func countStopped() {
    stoppedThreads += 1
    if stoppedThreads >= threads.count { reportStop() }
  }

  /// Every thread has stopped: the parent may hear of it.
  func reportStop() {
    guard isStopping, !isStopped else { return }
    isStopped = true
    hasStopToReport = true
    notifyParent(code: SignalInformation.childStopped, status: stopSignal)
  }

  /// SIGCHLD for a stop or a continuation, and a look for those who wait(2).
  private func notifyParent(code: Int32, status: Int32) {
    guard let parent else { return }
    // A parent that traces its child hears of each thread's stop.
    if code == SignalInformation.childStopped, leaderTracing?.tracer.process === parent { return }
    let action = parent.actions[Signal.child]
    if action.flags & SignalAction.noChildStop == 0, action.handler != SignalAction.ignoreHandler {
      parent.notify(childInformation(signal: Signal.child, code: code, status: status))
    }
    parent.childQueue.wake()
  }

  func childInformation(signal: Int32, code: Int32, status: Int32) -> SignalInformation {
    var information = SignalInformation(signal, code: code)
    information.pid = pid
    information.uid = credentials.realUser
    information.status = status
    return information
  }
}
