public import ABI
import Tasks
import VFS

// The end of threads and processes (exit_group(2), wait(2) NOTES).
//
// Cooperative: `beginGroupExit` marks the process and interrupts its threads; each ends at its safe point, where
// `deliverSignals` answers `.exit`; the last one turns the process into a zombie.

extension Process {
  /// Every thread is to end; the first status counts. `status` as wait(2) encodes it.
  public func beginGroupExit(status: Int32) {
    if isExiting || isZombie { return }
    isExiting = true
    exitStatus = status
    if isStopping { resume() }
    for thread in threads {
      thread.tracing?.release()
      thread.interrupt()
    }
  }

  /// Ends every thread but the caller, for execve(2), and waits until they have gone; the caller takes the leader's
  /// number. EINTR when the process ends instead, or when another thread was first.
  public func endOtherThreads(_ thread: LinuxThread) throws(Errno) {
    if isExiting || survivor != nil { throw .interrupted }
    survivor = thread
    defer { survivor = nil }
    for other in threads where other !== thread {
      other.tracing?.release()
      other.interrupt()
    }
    // Threads that a stop holds end too.
    stopQueue.wake()
    while threads.count > 1 {
      do throws(Errno) { try exitQueue.sleep(interruptible: false) } catch {}
    }
    if isExiting { throw .interrupted }
    if thread.tid != pid {
      // The leader has gone without a trace (ptrace(2), "execve(2) under ptrace").
      leaderTracing?.unlink()
      ProcessTable.renumber(thread, pid)
      leaderTracing = thread.tracing
    }
    thread.recalculatePending()
  }

  /// The thread is to end at its next safe point.
  func ends(_ thread: LinuxThread) -> Bool { isExiting || (survivor != nil && survivor !== thread) }
}

extension LinuxThread {
  /// exit_group(2): marks the process; the caller then calls `exit`.
  public func exitGroup(code: Int32) { process.beginGroupExit(status: (code & 0xff) << 8) }

  /// exit(2), and the end of every thread: what the program's other threads see of it, then the process's end with
  /// the last thread. The caller runs in the thread's address space and ends the host thread afterwards. `code` is
  /// the exit code of a process whose last thread leaves without exit_group.
  public func exit(code: Int32 = 0) {
    if hasExited { return }
    releaseRobustList()
    clearChildWord()
    if process.threads.count == 1 { returnMemory() }
    hasExited = true
    refuseVisits()
    process.threads.removeAll { $0 === self }
    // The leader's number stays with the process until it has been waited for.
    ProcessTable.remove(self)
    releaseTracees()
    if let tracing, process.leaderTracing !== tracing { tracing.endThread(status: endStatus(code)) }
    if process.threads.isEmpty {
      process.keepUsage(of: self)
      if !process.isExiting {
        process.isExiting = true
        process.exitStatus = (code & 0xff) << 8
      }
      process.end()
      return
    }
    if process.isStopping, process.stoppedThreads >= process.threads.count { process.reportStop() }
    process.retarget(except: self)
    process.exitQueue.wake()
  }

  private func endStatus(_ code: Int32) -> Int32 {
    if process.isExiting { return process.exitStatus }
    return process.survivor == nil ? (code & 0xff) << 8 : Signal.kill
  }

  /// Linux frees a process's memory before it tells the parent of the end: who has waited may count on what a big
  /// process held. A small one's goes with the host process, while the parent goes on.
  private func returnMemory() {
    let memory = process.addressSpace
    // Not a memory that is another process's too (CLONE_VM).
    let pages = memory.privateBytes >> 12
    guard pages > 0, lender == nil, process.addressSpaceIdentity == UInt(process.pid),
      pages >= UInt(frames.totalFrames / 16)
    else { return }
    KernelLock.release()
    memory.unmapAll()
    KernelLock.acquire()
  }

  /// set_tid_address(2): pthread_join waits on this word. Not for a memory that another process still uses alone.
  func clearChildWord() {
    guard clearChildAddress != 0 else { return }
    let address = clearChildAddress
    clearChildAddress = 0
    do throws(Errno) {
      try UserSlice.store(UInt32(0), at: address)
      _ = try Futex.wake(address, count: 1, isShared: true, thread: self)
    } catch {}
  }
}

extension Process {
  /// The last thread has left.
  fileprivate func end() {
    disarmTimers()
    Semaphores.undo(self)
    ProcessTable.releaseResources?(self)
    MemoryLimit.noteShrinkage()
    completeVfork()
    isStopping = false
    isStopped = false
    let isLeader = session == pid
    isZombie = true
    if isLeader { leaveTerminal() }
    reparentChildren()
    hangUpIfOrphaned(self, of: parent)
    exitQueue.wake()
    if isInit {
      ProcessTable.initEnded?(exitStatus)
      return
    }
    announceEnd()
  }

  /// Tells the parent, or disappears at once if the parent does not want to know (SA_NOCLDWAIT, wait(2) NOTES).
  func announceEnd() {
    guard endedTracees == 0 else { return }
    if let tracer = leaderTracing?.tracer.process {
      let signal = tracer === parent ? exitSignal : Signal.child
      if signal != 0 { tracer.notify(childInformation(signal: signal, code: exitCode, status: exitDetail)) }
      return tracer.childQueue.wake()
    }
    guard let parent else {
      ProcessTable.remove(self)
      return
    }
    let action = parent.actions[Signal.child]
    let isIgnored = action.handler == SignalAction.ignoreHandler
    let isReaped = exitSignal == Signal.child && (isIgnored || action.flags & SignalAction.noChildWait != 0)
    if exitSignal != 0, !(exitSignal == Signal.child && isIgnored) {
      parent.notify(childInformation(signal: exitSignal, code: exitCode, status: exitDetail))
    }
    let queue = parent.childQueue
    if isReaped { forget() }
    queue.wake()
  }

  /// CLD_ number of the end.
  var exitCode: Int32 {
    if exitStatus & 0x7f == 0 { return SignalInformation.childExited }
    return exitStatus & 0x80 != 0 ? SignalInformation.childDumped : SignalInformation.childKilled
  }

  /// Exit code or signal.
  var exitDetail: Int32 { exitStatus & 0x7f == 0 ? (exitStatus >> 8) & 0xff : exitStatus & 0x7f }

  /// The zombie has been waited for.
  func forget() {
    parent?.children.removeAll { $0 === self }
    parent = nil
    ProcessTable.remove(self)
  }

  /// Children go to the nearest subreaper (PR_SET_CHILD_SUBREAPER) or to pid 1.
  private func reparentChildren() {
    let reaper = findReaper()
    let orphans = children
    children = []
    for child in orphans {
      child.parent = reaper
      guard let reaper else { continue }
      reaper.children.append(child)
      if child.parentDeathSignal != 0 {
        child.notify(SignalInformation(child.parentDeathSignal, code: SignalInformation.user))
      }
      if child.isZombie {
        child.exitSignal = Signal.child
        child.announceEnd()
      } else {
        if child.exitSignal != 0 { child.exitSignal = Signal.child }
        hangUpIfOrphaned(child, of: self)
      }
    }
  }

  private func findReaper() -> Process? {
    var candidate = parent
    while let process = candidate {
      if process.isChildSubreaper, !process.isExiting { return process }
      candidate = process.parent
    }
    let first = ProcessTable.initProcess
    return first === self ? nil : first
  }

  /// A group is orphaned when no member has a parent in the session but outside the group (setpgid(2)).
  static func isOrphaned(group: Int32) -> Bool {
    for member in ProcessTable.members(ofGroup: group) where !member.isZombie {
      guard let parent = member.parent, !parent.isZombie, !parent.isInit || parent.session == member.session
      else {
        continue
      }
      if parent.processGroup != group, parent.session == member.session { return false }
    }
    return true
  }

  /// POSIX: a group that becomes orphaned with stopped members gets SIGHUP and SIGCONT. It becomes so when a member
  /// whose `parent` was in another group of the session ends, or that parent itself (Linux: kill_orphaned_pgrp).
  private func hangUpIfOrphaned(_ member: Process, of parent: Process?) {
    let group = member.processGroup
    guard let parent, parent.processGroup != group, parent.session == member.session,
      Process.isOrphaned(group: group)
    else { return }
    let members = ProcessTable.members(ofGroup: group)
    guard members.contains(where: { $0.isStopped && !$0.isZombie }) else { return }
    for member in members where !member.isZombie {
      member.notify(SignalInformation(Signal.hangup, code: SignalInformation.kernel))
      member.notify(SignalInformation(Signal.continue, code: SignalInformation.kernel))
    }
  }

  /// The session leader has ended: its terminal is free, the session's processes lose it and the foreground group
  /// hears of it (setsid(2), credentials(7)).
  private func leaveTerminal() {
    if let terminal {
      if terminal.session == session { terminal.release(continues: false) }
    } else if lostForeground > 0 {
      ProcessTable.notify(group: lostForeground, Signal.hangup, fromOutside: true)
      ProcessTable.notify(group: lostForeground, Signal.continue, fromOutside: true)
    }
    terminal = nil
  }
}
