import ABI
public import CMachine
import Tasks

// Where a traced thread stops (ptrace(2), "Stopped states"): functions of the thread itself, which sleeps in them.

extension LinuxThread {
  /// Stops until the tracer lets the thread go on: the signal that it gives along.
  private func stop(_ stop: TraceStop, _ information: SignalInformation?, evenAtEnd: Bool = false) -> Int32 {
    guard let tracing, evenAtEnd || !process.ends(self) else { return 0 }
    beginStop(stop, information, tracing)
    return awaitTracer()
  }

  private func beginStop(_ stop: TraceStop, _ information: SignalInformation?, _ tracing: Tracing) {
    process.addressSpace.restoreSites()
    tracing.enter(stop, information)
  }

  private func awaitTracer() -> Int32 {
    guard let tracing else { return 0 }
    while tracing.stop != nil {
      do throws(Errno) { try tracing.queue.sleep(interruptible: false) } catch {}
    }
    // How it goes on is seen to on the slow way out.
    machine_store(&block.pointee.attention, 1)
    return tracing.injected
  }

  private func stop(_ kind: TraceStop.Kind, code: Int32, evenAtEnd: Bool = false) -> Int32 {
    guard let tracing else { return 0 }
    return stop(TraceStop(kind: kind, code: code), tracing.ownInformation(code), evenAtEnd: evenAtEnd)
  }

  // MARK: Signals

  /// Signal-delivery-stop: the signal as the tracer wants it; nil for none now.
  func stopForSignal(_ original: SignalInformation) -> SignalInformation? {
    guard let tracing else { return original }
    let signal = stop(TraceStop(kind: .signal, code: original.signal), original)
    guard signal > 0, !process.ends(self) else { return nil }
    var information = tracing.information ?? original
    if information.signal != signal {
      information = SignalInformation(signal, code: SignalInformation.user)
      information.pid = tracing.tracer.process.pid
      information.uid = tracing.tracer.process.credentials.realUser
    }
    guard mask.has(signal) else { return information }
    _ = pending.add(information, limit: .max)
    return nil
  }

  /// A step into a handler ends at its first instruction.
  func stopAtHandler() { _ = stop(.event, code: Signal.trap) }

  /// Group-stop: the thread takes part in its process's stop.
  func joinStop() {
    guard let tracing else { return }
    tracing.hasJoinedStop = true
    process.countStopped()
    let signal = process.stopSignal
    if tracing.isSeized {
      _ = stop(.group, code: signal | TraceEvent.stop.rawValue << 8)
    } else {
      _ = stop(TraceStop(kind: .group, code: signal), nil)
    }
  }

  /// PTRACE_EVENT_STOP: PTRACE_INTERRUPT, the first stop of a new thread, the end of a group-stop.
  func stopOnRequest() {
    guard let tracing else { return }
    tracing.wantsStop = false
    if process.isStopping { return joinStop() }
    _ = stop(.event, code: Signal.trap | TraceEvent.stop.rawValue << 8)
  }

  /// By somebody who may not do everything anyway.
  public var isTracedByOthers: Bool {
    guard let tracing else { return false }
    return tracing.tracer.process.capabilities.effective & Capabilities.trace == 0
  }

  // MARK: Events

  func stopForEvent(_ event: TraceEvent, message: UInt64) {
    guard let tracing, tracing.options.contains(event.option) else { return }
    tracing.message = message
    _ = stop(.event, code: Signal.trap | event.rawValue << 8, evenAtEnd: event == .exit)
  }

  /// Before the thread ends.
  public func stopForExit() {
    let status = process.isExiting ? process.exitStatus : (exitCode & 0xff) << 8
    stopForEvent(.exit, message: UInt64(UInt32(bitPattern: status)))
  }

  /// execve(2) has succeeded; the thread's number was `former` before. Without the event it is a SIGTRAP.
  public func reportExecution(former: Int32) {
    guard let tracing, !process.isExiting else { return }
    tracing.noteMemory()
    if tracing.options.contains(TraceEvent.execution.option) {
      stopForEvent(.execution, message: UInt64(UInt32(bitPattern: former)))
    } else if !tracing.isSeized {
      var information = SignalInformation(Signal.trap, code: SignalInformation.user)
      information.pid = process.pid
      information.uid = process.credentials.realUser
      do throws(Errno) { try send(information, fromOutside: true) } catch {}
    }
  }

  /// The event that the tracer is told of a new thread; nil for none.
  func traceEvent(_ arguments: CloneArguments) -> TraceEvent? {
    guard let tracing, !arguments.flags.contains(.untraced) else { return nil }
    let event: TraceEvent =
      if arguments.flags.contains(.vfork) { .vfork } else if arguments.exitSignal != Signal.child {
        .clone
      } else { .fork }
    return tracing.options.contains(event.option) ? event : nil
  }

  /// A new thread is traced as the one that made it, and stops before it runs.
  func trace(_ child: LinuxThread) {
    guard let tracing else { return }
    let new = Tracing(
      tracer: tracing.tracer, thread: child, isSeized: tracing.isSeized, options: tracing.options)
    if tracing.isSeized {
      new.wantsStop = true
    } else {
      _ = child.pending.add(SignalInformation(Signal.stop, code: SignalInformation.kernel), limit: .max)
    }
    child.recalculatePending()
  }

  /// The tracer hears of a new thread. A vfork's child needs this thread's host thread: the stop begins, and the thread
  /// sleeps in it once it is back (`finishCall`).
  func report(_ event: TraceEvent?, child: LinuxThread) {
    guard let tracing else { return }
    let message = UInt64(UInt32(bitPattern: child.tid))
    guard isLending else {
      if let event { stopForEvent(event, message: message) }
      return
    }
    tracing.vforkChild = child.tid
    guard let event else { return }
    tracing.message = message
    let code = Signal.trap | event.rawValue << 8
    beginStop(TraceStop(kind: .event, code: code), tracing.ownInformation(code), tracing)
  }

  // MARK: System calls

  /// Syscall-enter-stop: the number of the call to make, nil for none: the frame has the result.
  public func enterCall(_ number: Int, _ frame: UnsafeMutablePointer<trap_frame>) -> Int? {
    guard let tracing, tracing.resumption == .untilCall || tracing.resumption.emulates else { return number }
    let emulates = tracing.resumption.emulates
    callNumber = UInt64(bitPattern: Int64(number))
    frame.pointee.rax = UInt64(bitPattern: -38)  // ENOSYS
    stopAtCall(.callEntry)
    guard !emulates, !process.ends(self), let wanted = callNumber else { return nil }
    return Int(truncatingIfNeeded: wanted)
  }

  /// Syscall-exit-stop, or the trap of a step over a call.
  public func leaveCall(_ frame: UnsafeMutablePointer<trap_frame>) {
    guard let tracing else { return }
    switch departure {
    case .none: break
    case .end: return
    case .lend, .giveBack:
      tracing.finishesCall = true
      return
    }
    if tracing.resumption == .untilCall {
      stopAtCall(.callExit)
    } else if tracing.resumption == .step {
      raiseFault(
        signal: Signal.trap, code: SignalInformation.trapBreakpoint, address: UInt(frame.pointee.rip))
      machine_store(&block.pointee.attention, 1)
    }
  }

  /// On the slow way out: the rest of a call whose thread changed its host thread.
  public func finishCall(_ frame: UnsafeMutablePointer<trap_frame>) {
    guard let tracing, tracing.finishesCall else { return }
    tracing.finishesCall = false
    _ = awaitTracer()
    if let child = tracing.vforkChild {
      tracing.vforkChild = nil
      stopForEvent(.vforkDone, message: UInt64(UInt32(bitPattern: child)))
    }
    leaveCall(frame)
  }

  private func stopAtCall(_ kind: TraceStop.Kind) {
    guard let tracing else { return }
    let signal = stop(kind, code: Signal.trap | (tracing.options.contains(.marksCalls) ? 0x80 : 0))
    guard signal > 0 else { return }
    do throws(Errno) { try send(SignalInformation(signal, code: SignalInformation.kernel)) } catch {}
  }

  // MARK: Single steps

  /// EFLAGS.TF
  static var stepFlag: UInt64 { 0x100 }

  /// A traced thread has trapped: the flag that stepped it is nobody's business, and the jumps to the gate, of which it
  /// may have been in the midst, are not either.
  public func enterTrap(_ frame: UnsafeMutablePointer<trap_frame>) {
    guard let tracing else { return }
    if tracing.resumption.steps || tracing.watchpoints.areSet {
      frame.pointee.rflags &= ~LinuxThread.stepFlag
      // A page that was missing only: the instruction is still to come.
      machine_store(&block.pointee.attention, 1)
    }
    if frame.pointee.kind == UInt64(TRAP_KICK) { process.addressSpace.leaveTrampoline(frame) }
  }

  /// The thread goes back to its program: by one instruction only, if the tracer wants that.
  func armStep(_ frame: UnsafeMutablePointer<trap_frame>) {
    guard let tracing, tracing.resumption.steps || tracing.watchpoints.areSet else { return }
    if tracing.watchpoints.areSet { tracing.watchpoints.sample() }
    frame.pointee.makeComplete()
    frame.pointee.rflags |= LinuxThread.stepFlag
  }
}

extension trap_frame {
  /// A frame of the gate does not have the registers that a call changes; a complete one is left with all of them.
  mutating func makeComplete() {
    guard kind == UInt64(TRAP_NONE) else { return }
    kind = UInt64(TRAP_SYSTEM_CALL)
    r11 = rflags
  }
}
