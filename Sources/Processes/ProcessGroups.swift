public import ABI

// Process groups and sessions (setpgid(2), setsid(2), credentials(7)).

extension Process {
  /// setpgid(2): 0 means the caller, and a group of the process's own. EINVAL, ESRCH, EPERM, EACCES.
  public func setProcessGroup(of pid: Int32, to group: Int32) throws(Errno) {
    if group < 0 { throw .invalid }
    let target: Process
    if pid == 0 || pid == self.pid {
      target = self
    } else {
      guard let child = ProcessTable.process(pid), child.parent === self else { throw .noSuchProcess }
      if child.session != session { throw .notPermitted }
      if child.hasExecuted { throw .accessDenied }
      target = child
    }
    if target.session == target.pid { throw .notPermitted }
    let wanted = group == 0 ? target.pid : group
    if wanted != target.pid {
      let exists = ProcessTable.members(ofGroup: wanted).contains { $0.session == session }
      if !exists { throw .notPermitted }
    }
    target.processGroup = wanted
  }

  /// getpgid(2). ESRCH.
  public func processGroup(of pid: Int32) throws(Errno) -> Int32 {
    if pid == 0 { return processGroup }
    guard let process = ProcessTable.process(pid) else { throw .noSuchProcess }
    return process.processGroup
  }

  /// getsid(2). ESRCH.
  public func session(of pid: Int32) throws(Errno) -> Int32 {
    if pid == 0 { return session }
    guard let process = ProcessTable.process(pid) else { throw .noSuchProcess }
    return process.session
  }

  /// setsid(2): the new session's id. EPERM for the leader of a group.
  public func startSession() throws(Errno) -> Int32 {
    if !ProcessTable.members(ofGroup: pid).isEmpty { throw .notPermitted }
    session = pid
    processGroup = pid
    terminal = nil
    lostForeground = 0
    return pid
  }
}
