// What a new thread or program takes over (clone(2), fork(2), execve(2), signal(7)).

extension LinuxThread {
  /// The mask and the name are `thread`'s, and in a copy of the address space (or for vfork(2), which passes false)
  /// the alternate stack; nothing pends.
  public func inherit(from thread: LinuxThread, sharesMemory: Bool) {
    mask = thread.mask
    name = thread.name
    inputOutputPriority = thread.inputOutputPriority
    login = thread.login
    timerSlack = thread.timerSlack
    usualTimerSlack = thread.timerSlack
    if !thread.resetsSchedulingOnFork || thread.schedulingPolicy == 3 {
      schedulingPolicy = thread.schedulingPolicy
      schedulingPriority = thread.schedulingPriority
    }
    if !sharesMemory { alternateStack = thread.alternateStack }
  }

  /// execve(2), after `endOtherThreads` and while the old memory is still there: what the old program set up in
  /// memory ends, handlers go back to the default, the mask and pending signals stay.
  public func prepareForExecution() {
    releaseRobustList()
    clearChildWord()
    robustListLength = 0
    alternateStack = AlternateStack()
    restartDeadline = nil
    process.actions = process.actions.copy()
    process.actions.resetForExecution()
    process.deletePosixTimers()
    process.hasExecuted = true
    process.exitSignal = Signal.child
    process.completeVfork()
    recalculatePending()
  }
}
