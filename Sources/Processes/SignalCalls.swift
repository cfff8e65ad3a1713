public import ABI
import Tasks

// The system calls on signals, with numbers checked; the dispatcher reads and writes the program's structures.

extension LinuxThread {
  /// rt_sigaction(2): the old action. EINVAL for bad numbers and for changes of SIGKILL and SIGSTOP.
  public func signalAction(_ signal: Int32, new: SignalAction?) throws(Errno) -> SignalAction {
    guard signal >= 1, signal <= Signal.last else { throw .invalid }
    if new != nil, SignalSet.unblockable.has(signal) { throw .invalid }
    let old = process.actions[signal]
    guard var action = new else { return old }
    action.mask.subtract(.unblockable)
    process.actions[signal] = action
    let isIgnored =
      action.handler == SignalAction.ignoreHandler
      || (action.handler == SignalAction.defaultHandler && Signal.defaultAction(signal) == .ignore)
    if isIgnored { process.discard(SignalSet(signal)) }
    return old
  }

  /// rt_sigprocmask(2): the old mask. `how`: SIG_BLOCK 0, SIG_UNBLOCK 1, SIG_SETMASK 2.
  public func changeMask(_ how: Int32, _ set: SignalSet?) throws(Errno) -> SignalSet {
    let old = mask
    guard let set else { return old }
    switch how {
    case 0: setMask(old.union(set))
    case 1: setMask(old.subtracting(set))
    case 2: setMask(set)
    default: throw .invalid
    }
    return old
  }

  /// rt_sigpending(2)
  public var pendingAndBlocked: SignalSet { pending.set.union(process.pending.set).intersection(mask) }

  /// rt_sigsuspend(2): always throws, ERESTARTNOHAND; `deliverSignals` restores the mask.
  public func suspend(_ set: SignalSet) throws(Errno) {
    setTemporaryMask(set)
    try pause()
  }

  /// pause(2): always throws.
  public func pause() throws(Errno) {
    let queue = WaitQueue()
    while true {
      do throws(Errno) { try queue.sleep() } catch { throw .restartNoHandler }
    }
  }

  /// sigaltstack(2). EPERM on the stack itself, EINVAL for bad flags, ENOMEM if it is too small.
  public func setAlternateStack(_ stack: AlternateStack, stackPointer: UInt) throws(Errno) {
    if isOnAlternateStack(stackPointer) { throw .notPermitted }
    let mode = stack.flags & ~AlternateStack.autoDisarm
    guard mode == 0 || mode == AlternateStack.onStack || mode == AlternateStack.disabled else {
      throw .invalid
    }
    if mode == AlternateStack.disabled {
      alternateStack = AlternateStack()
      return
    }
    guard stack.size >= AlternateStack.minimumSize else { throw .noMemory }
    alternateStack = stack
    alternateStack.flags &= ~AlternateStack.onStack
  }

  /// The stack as sigaltstack(2) reports it.
  public func alternateStack(at stackPointer: UInt) -> AlternateStack {
    var result = alternateStack
    if isOnAlternateStack(stackPointer) { result.flags |= AlternateStack.onStack }
    return result
  }

  private func isOnAlternateStack(_ stackPointer: UInt) -> Bool {
    // A stack that disarms itself is not in use as far as anybody can tell.
    alternateStack.flags & AlternateStack.autoDisarm == 0 && alternateStack.contains(stackPointer)
  }

  /// rt_sigtimedwait(2), sigwaitinfo. `deadline` monotonic nanoseconds, 0 for a poll. EAGAIN at the deadline, EINTR.
  public func waitForSignal(_ set: SignalSet, deadline: UInt64) throws(Errno) -> SignalInformation {
    let awaited = set.subtracting(.unblockable)
    let others = SignalSet(rawValue: ~awaited.rawValue)
    if let information = takeSignal(blocked: others) {
      recalculatePending()
      return information
    }
    if deadline == 0 { throw .again }
    let original = mask
    realMask = original
    setMask(original.subtracting(awaited))
    var failure = Errno.interrupted
    let queue = WaitQueue()
    do throws(Errno) { try queue.sleep(deadline: deadline) } catch { failure = error }
    // Take before the mask closes, so that a process signal is not handed on.
    let information = takeSignal(blocked: others)
    realMask = SignalSet(rawValue: 0)
    setMask(original)
    if let information { return information }
    throw failure == .timedOut ? .again : .interrupted
  }

  /// kill(2). ESRCH, EPERM, EINVAL; signal 0 only checks.
  public func kill(_ target: Int32, _ signal: Int32) throws(Errno) {
    guard signal >= 0, signal <= Signal.last else { throw .invalid }
    let information = sent(signal, code: SignalInformation.user)
    if target > 0 {
      guard let process = ProcessTable.process(target) ?? ProcessTable.thread(target)?.process else {
        throw .noSuchProcess
      }
      try send(information, to: process)
      return
    }
    if target == .min { throw .noSuchProcess }
    let isBroadcast = target == -1
    let group = target == 0 ? process.processGroup : -target
    var failure = Errno.noSuchProcess
    var reached = false
    for candidate in Array(ProcessTable.processes.values) {
      if isBroadcast {
        if candidate.isInit || candidate === process { continue }
      } else if candidate.processGroup != group {
        continue
      }
      do throws(Errno) {
        try send(information, to: candidate)
        reached = true
      } catch { failure = error }
    }
    if !reached { throw failure }
  }

  /// tgkill(2); `group` nil: tkill(2). ESRCH, EPERM, EINVAL, EAGAIN.
  public func kill(thread tid: Int32, in group: Int32?, _ signal: Int32) throws(Errno) {
    try queue(sent(signal, code: SignalInformation.threadKill), thread: tid, in: group)
  }

  /// rt_tgsigqueueinfo(2); `information` names the signal.
  public func queue(
    _ information: SignalInformation, thread tid: Int32, in group: Int32?
  ) throws(Errno) {
    guard tid > 0, group ?? 1 > 0 else { throw .invalid }
    let signal = information.signal
    guard signal >= 0, signal <= Signal.last else { throw .invalid }
    guard let target = ProcessTable.thread(tid) else { throw .noSuchProcess }
    if let group, target.process.pid != group { throw .noSuchProcess }
    if information.code >= 0 || information.code == SignalInformation.threadKill, target.process !== process,
      information.code != SignalInformation.threadKill || information.pid != process.pid
    {
      throw .notPermitted
    }
    try checkPermission(target.process, signal)
    if signal > 0 { try target.send(information, fromOutside: target.process === process) }
  }

  /// rt_sigqueueinfo(2). EPERM for codes that only the kernel may give.
  public func queue(_ information: SignalInformation, process pid: Int32) throws(Errno) {
    let signal = information.signal
    guard signal >= 0, signal <= Signal.last else { throw .invalid }
    guard let target = ProcessTable.process(pid) ?? ProcessTable.thread(pid)?.process else {
      throw .noSuchProcess
    }
    if target !== process, information.code >= 0 || information.code == SignalInformation.threadKill {
      throw .notPermitted
    }
    try send(information, to: target)
  }

  private func sent(_ signal: Int32, code: Int32) -> SignalInformation {
    var information = SignalInformation(signal, code: code)
    information.pid = process.pid
    information.uid = process.credentials.realUser
    return information
  }

  private func send(_ information: SignalInformation, to target: Process) throws(Errno) {
    try checkPermission(target, information.signal)
    // What pid 1 sends to itself counts: abort(3) must end it.
    if information.signal > 0 { try target.send(information, fromOutside: target === process) }
  }

  /// kill(2): root, the same real or effective user as the target's real or saved one, SIGCONT in the session.
  private func checkPermission(_ target: Process, _ signal: Int32) throws(Errno) {
    if target === process { return }
    let mine = process.credentials
    let theirs = target.credentials
    if mine.isPrivileged { return }
    if signal == Signal.continue, target.session == process.session { return }
    for user in [mine.realUser, mine.effectiveUser] where user == theirs.realUser || user == theirs.savedUser
    {
      return
    }
    throw .notPermitted
  }
}

extension ProcessTable {
  /// A signal of the terminal or the host for every process of a group; who is missing is not an error.
  public static func notify(group: Int32, _ signal: Int32, fromOutside: Bool = false) {
    for member in members(ofGroup: group) {
      member.notify(SignalInformation(signal, code: SignalInformation.kernel), fromOutside: fromOutside)
    }
  }
}
