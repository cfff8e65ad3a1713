import ABI
import Tasks

// ioctl_tty(2), for both sides of a pseudo-terminal: the master's calls act on the slave.

extension Terminal {
  /// Job control: a background group is stopped by SIGTTIN or SIGTTOU and the call starts again, or is told EIO
  /// (tcsetpgrp(3), termios(3)).
  func checkForeground(_ signal: Int32) throws(Errno) {
    guard let jobControl = Terminal.jobControl, foreground > 0, jobControl.currentTerminal === self else {
      return
    }
    let group = jobControl.currentGroup
    if group == foreground { return }
    if jobControl.currentIgnoresOrBlocks(signal) {
      if signal == 21 { throw .inputOutput }
      return
    }
    if jobControl.isOrphaned(group) { throw .inputOutput }
    jobControl.signalGroup(group, signal)
    throw .interrupted
  }

  /// `file` nil: the master asks. ENOTTY for what is not known.
  func control(_ request: UInt32, argument: UInt, from file: TerminalFile?) throws(Errno) -> Int {
    switch request {
    case 0x5401: try UserSlice(argument, TerminalSettings.size).store(settings.bytes)
    case 0x5402, 0x5403, 0x5404:
      try change(UserSlice(argument, TerminalSettings.size), flushes: request == 0x5404)
    case 0x802c_542a:
      try UserSlice(argument, TerminalSettings.extendedSize).store(settings.extendedBytes)
    case 0x402c_542b, 0x402c_542c, 0x402c_542d:
      try change(UserSlice(argument, TerminalSettings.extendedSize), flushes: request == 0x402c_542d)
    case 0x5405: try UserSlice(argument, TerminalSettings.oldSize).store(settings.oldBytes)
    case 0x5406, 0x5407, 0x5408: try changeOld(argument, flushes: request == 0x5408)
    case 0x5456: try UserSlice(argument, TerminalSettings.size).store(lockedSettings.bytes)
    case 0x5457: try lockSettings(argument)
    // TCSBRK, TCSBRKP, TIOCSBRK, TIOCCBRK: output is never held back, and there is no line to break.
    case 0x5409, 0x5425, 0x5427, 0x5428: try checkForeground(22)
    case 0x540a: try setFlow(argument)
    case 0x540b: try flush(argument)
    case 0x540c, 0x540d: break  // TIOCEXCL, TIOCNXCL: root may open it all the same
    case 0x540e: try makeControlling(steal: argument == 1)
    case 0x540f, 0x5410, 0x5422, 0x5429: try controlGroup(request, argument, isMaster: file == nil)
    case 0x5411: try UserSlice.store(Int32(0), at: argument)  // TIOCOUTQ
    case 0x5412: try simulateInput(argument)
    case 0x5413: try UserSlice(argument, 8).store(windowBytes)
    case 0x5414: try resize(window(from: UserSlice(argument, 8).bytes()))
    case 0x541b: try UserSlice.store(Int32(available), at: argument)
    case 0x5423: guard try UserSlice.load(argument, Int32(0)) == 0 else { throw .invalid }
    case 0x5424: try UserSlice.store(Int32(0), at: argument)  // TIOCGETD: N_TTY
    case 0x5437:
      guard Terminal.jobControl?.currentUser == 0 else { throw .notPermitted }
      hangUpOpenFiles()
    case 0x8004_5432: try UserSlice.store(UInt32(truncatingIfNeeded: deviceNumber), at: argument)  // TIOCGDEV
    default: throw .notTerminal
    }
    return 0
  }

  private func change(_ slice: UserSlice, flushes: Bool) throws(Errno) {
    try checkForeground(22)
    var new = TerminalSettings(bytes: try slice.bytes())
    if slice.count < TerminalSettings.extendedSize {
      new.inputSpeed = settings.inputSpeed
      new.outputSpeed = settings.outputSpeed
    }
    if flushes { flushInput() }
    change(new.keeping(lockedSettings, of: settings))
  }

  /// TCSETA, TCSETAW, TCSETAF: the flags of System V, which know the low halves only.
  private func changeOld(_ argument: UInt, flushes: Bool) throws(Errno) {
    try checkForeground(22)
    let new = settings.changed(by: try UserSlice(argument, TerminalSettings.oldSize).bytes())
    if flushes { flushInput() }
    change(new.keeping(lockedSettings, of: settings))
  }

  /// TIOCSLCKTRMIOS: what is not zero in the structure can no longer be changed. EPERM without CAP_SYS_ADMIN.
  private func lockSettings(_ argument: UInt) throws(Errno) {
    guard Terminal.jobControl?.currentUser == 0 else { throw .notPermitted }
    lockedSettings = TerminalSettings(bytes: try UserSlice(argument, TerminalSettings.size).bytes())
  }

  private var windowBytes: [UInt8] {
    var result: [UInt8] = []
    for value in [window.rows, window.columns, window.width, window.height] {
      result.append(UInt8(truncatingIfNeeded: value))
      result.append(UInt8(truncatingIfNeeded: value >> 8))
    }
    return result
  }

  private func window(from bytes: [UInt8]) -> (
    rows: UInt16, columns: UInt16, width: UInt16, height: UInt16
  ) {
    func value(_ at: Int) -> UInt16 { UInt16(bytes[at]) | UInt16(bytes[at + 1]) << 8 }
    return (value(0), value(2), value(4), value(6))
  }

  /// TCXONC: suspend and restart output; XOFF and XON towards what types.
  private func setFlow(_ action: UInt) throws(Errno) {
    try checkForeground(22)
    switch action {
    case 0: stopOutput()
    case 1: restartOutput()
    case 2, 3:
      let index = action == 2 ? TerminalSettings.Index.stop : TerminalSettings.Index.start
      let byte = settings.characters[index]
      if byte != TerminalSettings.disabled { _ = display([byte]) }
    default: throw .invalid
    }
  }

  /// TCFLSH
  private func flush(_ which: UInt) throws(Errno) {
    try checkForeground(22)
    guard which <= 2 else { throw .invalid }
    if which != 1 { flushInput() }
    if which != 0 { flushOutput() }
  }

  /// TIOCSTI: a byte as if it had been typed. EPERM on the terminals of others.
  private func simulateInput(_ argument: UInt) throws(Errno) {
    guard let jobControl = Terminal.jobControl,
      jobControl.currentTerminal === self || jobControl.currentUser == 0
    else { throw .notPermitted }
    receive([try UserSlice.load(argument, UInt8(0))])
  }

  /// TIOCSCTTY
  private func makeControlling(steal: Bool) throws(Errno) {
    guard let jobControl = Terminal.jobControl, jobControl.currentIsSessionLeader else { throw .notPermitted }
    if session == jobControl.currentSession { return }
    guard jobControl.currentTerminal == nil else { throw .notPermitted }
    if session > 0 {
      guard steal, jobControl.currentUser == 0 else { throw .notPermitted }
      jobControl.clearControllingTerminal(self, ofSession: session)
    }
    session = jobControl.currentSession
    foreground = jobControl.currentGroup
    jobControl.setControllingTerminal(self)
  }

  /// TIOCGPGRP, TIOCSPGRP, TIOCNOTTY, TIOCGSID.
  private func controlGroup(_ request: UInt32, _ argument: UInt, isMaster: Bool) throws(Errno) {
    guard let jobControl = Terminal.jobControl else { throw .notTerminal }
    let isOwn = jobControl.currentTerminal === self
    guard isOwn || (isMaster && (request == 0x540f || request == 0x5429)) else { throw .notTerminal }
    switch request {
    case 0x540f: try UserSlice.store(foreground, at: argument)
    case 0x5429:
      guard session > 0 else { throw .notTerminal }
      try UserSlice.store(session, at: argument)
    case 0x5422:
      if jobControl.currentIsSessionLeader { release(continues: true) }
      jobControl.setControllingTerminal(nil)
    default: try setForeground(try UserSlice.load(argument, Int32(0)), jobControl)
    }
  }

  private func setForeground(_ group: Int32, _ jobControl: any TerminalJobControl) throws(Errno) {
    do throws(Errno) { try checkForeground(22) } catch {
      throw error == .inputOutput ? .notTerminal : error
    }
    guard group >= 0 else { throw .invalid }
    guard session == jobControl.currentSession else { throw .notTerminal }
    guard let owner = jobControl.session(ofGroup: group) else { throw .noSuchProcess }
    guard owner == session else { throw .notPermitted }
    foreground = group
  }
}
