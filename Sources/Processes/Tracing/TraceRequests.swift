public import ABI
import Tasks

// What a tracer asks for (ptrace(2)); the dispatcher reads and writes the program's structures.

extension LinuxThread {
  /// The thread with this number, which this one traces. ESRCH.
  public func tracee(_ tid: Int32) throws(Errno) -> Tracing {
    for tracing in tracees where tracing.thread.tid == tid && !tracing.thread.hasExited { return tracing }
    throw .noSuchProcess
  }

  /// The same, if it is stopped: what most requests need.
  public func stoppedTracee(_ tid: Int32) throws(Errno) -> Tracing {
    let tracing = try tracee(tid)
    guard tracing.stop != nil, !tracing.isListening else { throw .noSuchProcess }
    return tracing
  }

  /// PTRACE_TRACEME. EPERM when somebody traces the thread, or the parent has fewer rights.
  public func askForTracing() throws(Errno) {
    guard tracing == nil, let parent = process.parent, let leader = parent.threads.first,
      process.capabilities.permitted & ~parent.capabilities.permitted == 0
    else { throw .notPermitted }
    var tracer = leader
    if let creator = ProcessTable.thread(process.creator), creator.process === parent { tracer = creator }
    _ = Tracing(tracer: tracer, thread: self, isSeized: false, options: [])
  }

  /// PTRACE_ATTACH, PTRACE_SEIZE; rights are checked. EPERM for what is traced already, or of the own process.
  public func trace(_ target: LinuxThread, isSeized: Bool, options: TraceOptions) throws(Errno) {
    guard target.process !== process, target.tracing == nil, !target.hasExited, !target.process.isExiting
    else {
      throw .notPermitted
    }
    let tracing = Tracing(tracer: self, thread: target, isSeized: isSeized, options: options)
    if !isSeized {
      try target.send(SignalInformation(Signal.stop, code: SignalInformation.kernel), fromOutside: true)
    }
    // A thread in its process's stop goes over to a stop for the tracer, which may count on that at once.
    guard target.process.isStopping else { return }
    let wasStopped = target.process.isStopped
    target.process.stopQueue.wake()
    while wasStopped, tracing.stop == nil, target.process.isStopping, !target.hasExited {
      do throws(Errno) { try process.childQueue.sleep() } catch { return }
    }
  }

  /// This thread ends, or another program begins: nobody is traced by it any longer.
  func releaseTracees() {
    while let tracing = tracees.last {
      if tracing.options.contains(.killsAtExit) { tracing.thread.process.beginGroupExit(status: Signal.kill) }
      let signal = tracing.hasReport && tracing.stop?.kind == .signal ? tracing.stop?.code ?? 0 : 0
      tracing.leave(signal: signal)
    }
  }
}

extension Tracing {
  /// PTRACE_CONT, PTRACE_SYSCALL and the like. EIO for what is no signal.
  public func resume(_ resumption: Resumption, signal: UInt) throws(Errno) {
    guard signal <= UInt(Signal.last) else { throw .inputOutput }
    release(resumption, signal: Int32(signal))
  }

  /// PTRACE_DETACH. EIO for what is no signal.
  public func detach(signal: UInt) throws(Errno) {
    guard signal <= UInt(Signal.last) else { throw .inputOutput }
    leave(signal: Int32(signal))
  }

  /// The thread goes on untraced, or, when it has ended, its end is its parent's to hear of.
  func leave(signal: Int32) {
    unlink()
    release(signal: signal)
    guard thread.hasExited else { return thread.recalculatePending() }
    if end != nil { thread.process.endedTracees -= 1 }
    if thread.process.isZombie { thread.process.announceEnd() }
  }

  /// PTRACE_KILL
  public func kill() { thread.process.beginGroupExit(status: Signal.kill) }

  /// PTRACE_INTERRUPT. EIO unless seized.
  public func interrupt() throws(Errno) {
    guard isSeized else { throw .inputOutput }
    if isListening { return notice() }
    guard stop?.code ?? 0 < TraceEvent.stop.rawValue << 8 else { return }
    wantsStop = true
    thread.interrupt()
  }

  /// PTRACE_LISTEN. EIO unless in PTRACE_EVENT_STOP.
  public func startListening() throws(Errno) {
    guard isSeized, stop?.code ?? 0 >= TraceEvent.stop.rawValue << 8 else { throw .inputOutput }
    if wantsStop { return notice() }
    listen()
  }

  /// While the tracer listens: the stop is told of anew, for what it is now.
  private func notice() {
    wantsStop = false
    let process = thread.process
    let signal = process.isStopping ? process.stopSignal : Signal.trap
    let code = signal | TraceEvent.stop.rawValue << 8
    enter(TraceStop(kind: process.isStopping ? .group : .event, code: code), ownInformation(code))
  }

  /// The process's stop has ended (SIGCONT): a seized thread tells of it.
  func endGroupStop() {
    hasJoinedStop = false
    guard isSeized, !thread.process.isExiting else { return }
    if isListening { notice() } else { wantsStop = true }
  }

  // MARK: wait(2)

  func matches(_ selector: WaitSelector) -> Bool {
    switch selector {
    case .any: true
    case .process(let number): thread.tid == number
    case .group(let group): thread.process.processGroup == group
    }
  }

  /// What `waiter`, the tracer's process, is to hear: of a stop whatever the options, of the end of the thread or, of the
  /// leader, of its process.
  func report(_ options: WaitOptions, to waiter: Process) -> WaitResult? {
    let keeps = options.contains(.noWait)
    if let stop, hasReport, !isListening {
      if !keeps { reported() }
      return thread.process.waitResult(
        thread.tid,
        code: stop.kind == .group ? SignalInformation.childStopped : SignalInformation.childTrapped,
        detail: stop.code, status: stop.code << 8 | 0x7f)
    }
    guard options.contains(.exited), thread.hasExited else { return nil }
    let process = thread.process
    if let end {
      let isExit = end & 0x7f == 0
      if !keeps { leave(signal: 0) }
      return process.waitResult(
        thread.tid, code: isExit ? SignalInformation.childExited : SignalInformation.childKilled,
        detail: isExit ? end >> 8 & 0xff : end & 0x7f, status: end)
    }
    guard process.isZombie, process.endedTracees == 0 else { return nil }
    let result = process.waitResult(
      thread.tid, code: process.exitCode, detail: process.exitDetail, status: process.exitStatus)
    guard !keeps else { return result }
    unlink()
    if process.parent === waiter {
      waiter.childrenUsage.add(result.usage)
      process.forget()
    } else {
      process.announceEnd()
    }
    return result
  }
}
