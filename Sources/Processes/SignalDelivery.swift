import ABI
public import CMachine
import Tasks

/// What a thread does after it has looked at its signals.
public enum Delivery {
  /// Goes back to the program, with the frame as it is now.
  case resume
  /// Ends: `LinuxThread.exit`, then the host thread.
  case exit
}

extension LinuxThread {
  /// Delivers what is pending; called on the slow path out of the libOS, with the frame that the thread leaves by.
  /// May sleep while the process is stopped. `number` is the system call that `frame.rax` holds the result of, nil
  /// after a trap (and after rt_sigreturn, whose rax is the program's).
  public func deliverSignals(frame: UnsafeMutablePointer<trap_frame>, number: UInt64?) -> Delivery {
    callNumber = number
    defer { callNumber = nil }
    while true {
      machine_store(&block.pointee.attention, 0)
      if process.ends(self) { return .exit }
      if let tracing, tracing.wantsStop {
        stopOnRequest()
        continue
      }
      if process.isStopping, tracing?.hasJoinedStop != true {
        if tracing == nil { process.waitWhileStopped(self) } else { joinStop() }
        continue
      }
      if let information = takeSignal(blocked: mask) {
        let isTraced = tracing != nil && information.signal != Signal.kill
        guard let wanted = isTraced ? stopForSignal(information) : information else { continue }
        handle(wanted, frame)
        continue
      }
      if let restarted = callNumber { restartWithoutHandler(frame, restarted) }
      callNumber = nil
      restoreMask()
      recalculatePending()
      if isInterrupted { continue }
      armStep(frame)
      return .resume
    }
  }

  /// The next signal for this thread: its own before the process's.
  func takeSignal(blocked: SignalSet) -> SignalInformation? {
    guard var information = pending.take(blocked: blocked) ?? process.pending.take(blocked: blocked) else {
      return nil
    }
    if information.code == SignalInformation.timer {
      for timer in process.posixTimers where timer.identifier == information.pid {
        information.uid = UInt32(bitPattern: timer.delivered())
      }
    }
    return information
  }

  private func handle(
    _ information: SignalInformation, _ frame: UnsafeMutablePointer<trap_frame>
  ) {
    let signal = information.signal
    let action = process.actions[signal]
    if action.handler == SignalAction.ignoreHandler { return }
    if action.handler == SignalAction.defaultHandler {
      process.actByDefault(signal)
      return
    }
    if let number = callNumber { restartWithHandler(frame, number, action) }
    callNumber = nil
    do throws(Errno) {
      try enter(action, information, frame)
    } catch {
      // No room for the frame (sigaltstack(2), NOTES): SIGSEGV, deadly if it was SIGSEGV's own handler.
      if signal == Signal.segmentation { process.actions[signal].handler = SignalAction.defaultHandler }
      raiseFault(signal: Signal.segmentation, code: SignalInformation.kernel, address: 0)
      return
    }
    if action.flags & SignalAction.resetHandler != 0 {
      process.actions[signal].handler = SignalAction.defaultHandler
    }
    if tracing?.resumption.steps == true { stopAtHandler() }
  }

  /// Builds the frame and points the thread at the handler. EFAULT.
  private func enter(
    _ action: SignalAction, _ information: SignalInformation, _ frame: UnsafeMutablePointer<trap_frame>
  ) throws(Errno) {
    guard action.flags & SignalAction.hasRestorer != 0, trap_frame.isProgramAddress(UInt64(action.handler))
    else {
      throw .badAddress
    }
    let vectors = VectorState.save()
    let place = try framePlace(action, stackPointer: UInt(frame.pointee.rsp))
    var bytes = frameBytes(frame.pointee, vectorAddress: place.vectors)
    bytes.setField(SignalFrameLayout.returnAddress, UInt64(action.restorer))
    bytes.replaceSubrange(SignalFrameLayout.information..<SignalFrameLayout.size, with: information.encoded())
    try UserSlice(place.vectors, vectors.count).store(vectors)
    try UserSlice(place.frame, bytes.count).store(bytes)

    if alternateStack.flags & AlternateStack.autoDisarm != 0 { alternateStack = AlternateStack() }
    frame.pointee.rdi = UInt64(information.signal)
    frame.pointee.rsi = UInt64(place.frame) + UInt64(SignalFrameLayout.information)
    frame.pointee.rdx = UInt64(place.frame) + UInt64(SignalFrameLayout.contextOffset)
    frame.pointee.rax = 0
    frame.pointee.rip = UInt64(action.handler)
    frame.pointee.rsp = UInt64(place.frame)
    // Direction, single-step and resume flags, as the ABI wants them on entry to a function.
    frame.pointee.rflags &= ~0x1_0500
    var blocked = mask.union(action.mask)
    if action.flags & SignalAction.noDefer == 0 { blocked.insert(SignalSet(information.signal)) }
    savedMask = nil
    setMask(blocked)
  }

  /// Where the frame goes: below the red zone, or at the top of the alternate stack. EFAULT when it does not fit.
  private func framePlace(
    _ action: SignalAction, stackPointer: UInt
  ) throws(Errno) -> (frame: UInt, vectors: UInt) {
    let isNested = alternateStack.contains(stackPointer)
    var top = stackPointer &- 128
    let switches =
      action.flags & SignalAction.onStack != 0 && alternateStack.flags & AlternateStack.disabled == 0
      && (!isNested || alternateStack.flags & AlternateStack.autoDisarm != 0)
    if switches { top = alternateStack.address &+ alternateStack.size }
    let vectors = (top &- UInt(VectorState.extendedSize)) & ~63
    let frame = ((vectors &- UInt(SignalFrameLayout.size)) & ~15) &- 8
    if switches || isNested, frame < alternateStack.address { throw .badAddress }
    guard frame < top else { throw .badAddress }
    return (frame, vectors)
  }

  private func frameBytes(_ frame: trap_frame, vectorAddress: UInt) -> [UInt8] {
    typealias Layout = SignalFrameLayout
    var bytes = [UInt8](repeating: 0, count: Layout.size)
    bytes.setField(Layout.flags, Layout.contextFlags)
    bytes.setField(Layout.stack, UInt64(alternateStack.address))
    bytes.setField(Layout.stack + 8, UInt32(bitPattern: alternateStack.flags))
    bytes.setField(Layout.stack + 16, UInt64(alternateStack.size))
    var offset = Layout.registers
    for register in frame.contextRegisters {
      bytes.setField(offset, register)
      offset += 8
    }
    // cs, gs, fs, ss of every program.
    bytes.setField(Layout.segments, UInt64(0x002b_0000_0000_0033))
    bytes.setField(Layout.trapNumber, frame.kind == UInt64(TRAP_FAULT) ? UInt64(14) : 0)
    let saved = savedMask ?? mask
    bytes.setField(Layout.oldMask, saved.rawValue)
    bytes.setField(Layout.faultAddress, frame.kind == 0 ? UInt64(0) : frame.address)
    bytes.setField(Layout.vectorPointer, UInt64(vectorAddress))
    bytes.setField(Layout.mask, saved.rawValue)
    return bytes
  }

  /// rt_sigreturn(2): brings back what the frame at `rsp - 8` holds. False: the frame is bad, SIGSEGV waits. Call
  /// `deliverSignals` with number nil afterwards.
  public func returnFromSignal(frame: UnsafeMutablePointer<trap_frame>) -> Bool {
    do throws(Errno) {
      // The handler's `ret` has taken the return address.
      let start = UInt(frame.pointee.rsp) &- 8
      let bytes = try UserSlice(start, SignalFrameLayout.size).bytes()
      let vectors = try VectorState.read(UInt(bytes.field64(SignalFrameLayout.vectorPointer)))
      try frame.pointee.load(context: bytes)
      VectorState.restore(vectors)
      restoreAlternateStack(bytes, stackPointer: UInt(frame.pointee.rsp))
      restartDeadline = nil
      setMask(SignalSet(rawValue: bytes.field64(SignalFrameLayout.mask)))
      return true
    } catch {
      raiseFault(signal: Signal.segmentation, code: SignalInformation.kernel, address: 0)
      return false
    }
  }

  private func restoreAlternateStack(_ bytes: [UInt8], stackPointer: UInt) {
    var stack = AlternateStack()
    stack.address = UInt(bytes.field64(SignalFrameLayout.stack))
    stack.flags = Int32(bitPattern: bytes.field32(SignalFrameLayout.stack + 8))
    stack.size = UInt(bytes.field64(SignalFrameLayout.stack + 16))
    // As Linux: a stack that sigaltstack(2) would refuse is not an error here.
    do throws(Errno) { try setAlternateStack(stack, stackPointer: stackPointer) } catch {}
  }

  /// A signal that an instruction of this thread raised: blocked or ignored, it ends the process.
  public func raiseFault(signal: Int32, code: Int32, address: UInt) {
    guard signal >= 1, signal <= Signal.last else { return }
    let handler = process.actions[signal].handler
    if mask.has(signal) || handler == SignalAction.ignoreHandler {
      process.actions[signal].handler = SignalAction.defaultHandler
      mask.remove(SignalSet(signal))
    }
    if process.actions[signal].handler == SignalAction.defaultHandler, tracing == nil {
      process.isProtected = false
    }
    var information = SignalInformation(signal, code: code)
    information.address = address
    _ = pending.add(information, limit: .max)
    recalculatePending()
  }
}

extension Process {
  /// What happens on a signal that has no handler.
  fileprivate func actByDefault(_ signal: Int32) {
    if isProtected, !SignalSet.unblockable.has(signal) { return }
    switch Signal.defaultAction(signal) {
    case .ignore, .resume: return
    case .stop:
      // Nobody could continue an orphaned group (POSIX, sigaction).
      if signal != Signal.stop, Process.isOrphaned(group: processGroup) { return }
      beginStop(signal)
    // The core flag of the status says that a core was written, which never happens.
    case .core, .terminate: beginGroupExit(status: signal)
    }
  }
}

// Restart of system calls (signal(7)).
extension LinuxThread {
  private func restart(_ frame: UnsafeMutablePointer<trap_frame>, _ number: UInt64) {
    frame.pointee.rip &-= 2
    frame.pointee.rax = number
  }

  /// restart_syscall(2): goes on with `restartedCall`, whose deadline is kept.
  static var restartCall: UInt64 { 219 }

  private static var interruptedResult: UInt64 { UInt64(bitPattern: -4) }

  private func restartWithHandler(
    _ frame: UnsafeMutablePointer<trap_frame>, _ number: UInt64, _ action: SignalAction
  ) {
    switch Int64(bitPattern: frame.pointee.rax) {
    case -512 where action.flags & SignalAction.restart != 0, -513: restart(frame, number)
    case -512, -514, -516:
      restartDeadline = nil
      frame.pointee.rax = LinuxThread.interruptedResult
    default: break
    }
  }

  private func restartWithoutHandler(_ frame: UnsafeMutablePointer<trap_frame>, _ number: UInt64) {
    switch Int64(bitPattern: frame.pointee.rax) {
    case -512, -513, -514: restart(frame, number)
    case -516:
      if number != LinuxThread.restartCall { restartedCall = number }
      restart(frame, LinuxThread.restartCall)
    default: break
    }
  }
}
