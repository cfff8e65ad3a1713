public import ABI
public import Tasks

/// A terminal that a program has open.
public class TerminalFile: OpenFile {
  public final let terminal: Terminal

  public init(_ terminal: Terminal, inode: Inode, flags: UInt32) {
    self.terminal = terminal
    super.init(inode: inode, flags: flags)
    acquireControl(flags)
  }

  /// open(2): the first terminal that a session leader without one opens becomes its own, unless O_NOCTTY.
  private func acquireControl(_ flags: UInt32) {
    guard flags & 0o400 == 0, terminal.session == 0, !terminal.isHungUp, let jobControl = Terminal.jobControl,
      jobControl.currentIsSessionLeader, jobControl.currentTerminal == nil
    else { return }
    terminal.session = jobControl.currentSession
    terminal.foreground = jobControl.currentGroup
    jobControl.setControllingTerminal(terminal)
  }

  public final override var waitQueue: WaitQueue? { terminal.queue }

  public final override func readiness() -> Readiness {
    if terminal.isHungUp { return [.readable, .writable, .hangup, .readHangup] }
    var result: Readiness = []
    if terminal.isReadable { result.insert(.readable) }
    if !terminal.isStopped, terminal.displaySpace > 1 { result.insert(.writable) }
    return result
  }

  /// Job control: a background group is stopped by SIGTTIN or SIGTTOU, or told EIO (tcsetpgrp(3), termios(3)).
  private func checkForeground(_ signal: Int32) throws(Errno) {
    guard let jobControl = Terminal.jobControl, terminal.session > 0, terminal.foreground > 0,
      jobControl.currentSession == terminal.session, jobControl.currentGroup != terminal.foreground
    else { return }
    if jobControl.currentIgnoresOrBlocks(signal) {
      if signal == 21 { throw .inputOutput }
      return
    }
    if jobControl.isOrphaned(jobControl.currentGroup) { throw .inputOutput }
    jobControl.signalGroup(jobControl.currentGroup, signal)
    throw .interrupted
  }

  public override func read(_ slice: UserSlice) throws(Errno) -> Int {
    guard slice.count > 0 else { return 0 }
    try checkForeground(21)
    if terminal.settings.isCanonical || isNonblocking { return try readWhenReady(slice) }
    let minimum = min(Int(terminal.settings.characters[TerminalSettings.Index.minimum]), slice.count)
    let time = UInt64(terminal.settings.characters[TerminalSettings.Index.time]) &* 100_000_000
    if minimum > 0, time == 0 {
      while terminal.input.count < minimum, !terminal.settings.isCanonical, !terminal.isHungUp {
        try terminal.queue.sleep()
      }
      return try terminal.take(slice)
    }
    return try readTimed(slice, minimum: minimum, time: time)
  }

  private func readWhenReady(_ slice: UserSlice) throws(Errno) -> Int {
    while !(terminal.settings.isCanonical ? terminal.isReadable : terminal.input.count > 0) {
      if terminal.isHungUp { return 0 }
      if isNonblocking { throw .again }
      try terminal.queue.sleep()
      try checkForeground(21)
    }
    return try terminal.take(slice)
  }

  /// VTIME: with VMIN 0 the time of the whole read, else the time between two bytes.
  private func readTimed(_ slice: UserSlice, minimum: Int, time: UInt64) throws(Errno) -> Int {
    if minimum > 0 {
      while terminal.input.count == 0, !terminal.isHungUp { try terminal.queue.sleep() }
    }
    var seen = terminal.input.count
    var deadline = host.monotonicNanoseconds &+ time
    while time > 0, terminal.input.count < max(minimum, 1), !terminal.isHungUp {
      do throws(Errno) {
        try terminal.queue.sleep(deadline: deadline)
      } catch {
        if error == .timedOut { break }
        throw error
      }
      if minimum > 0, terminal.input.count > seen {
        seen = terminal.input.count
        deadline = host.monotonicNanoseconds &+ time
      }
    }
    return try terminal.take(slice)
  }

  public override func write(_ slice: UserSlice) throws(Errno) -> Int {
    if terminal.settings.stopsBackgroundOutput { try checkForeground(22) }
    var rest = slice
    do throws(Errno) {
      while rest.count > 0 {
        if terminal.isHungUp { throw .inputOutput }
        // Output processing may double every byte.
        let space = terminal.displaySpace / 2
        if terminal.isStopped || space == 0 {
          if isNonblocking { throw .again }
          try terminal.queue.sleep()
          continue
        }
        let chunk = try rest.prefix(min(space, 4096)).bytes()
        _ = terminal.display(terminal.processed(chunk))
        rest.advance(chunk.count)
      }
    } catch {
      if rest.count == slice.count { throw error }
    }
    return slice.count - rest.count
  }

  // MARK: ioctl_tty(2)

  public override func control(_ request: UInt32, argument: UInt) throws(Errno) -> Int {
    switch request {
    case 0x5401: try UserSlice(argument, TerminalSettings.size).store(terminal.settings.bytes)
    case 0x5402, 0x5403, 0x5404:
      let bytes = try UserSlice(argument, TerminalSettings.size).bytes()
      if request != 0x5402 { try checkForeground(22) }
      if request == 0x5404 { terminal.flushInput() }
      terminal.change(TerminalSettings(bytes: bytes))
    case 0x5409, 0x5425: break  // TCSBRK, TCSBRKP: output is never held back.
    case 0x540a: try setFlow(argument)
    case 0x540b: try flush(argument)
    case 0x540e: try makeControlling(steal: argument == 1)
    case 0x540f, 0x5410, 0x5422, 0x5429: return try controlGroup(request, argument)
    case 0x5411: try UserSlice.store(Int32(0), at: argument)  // TIOCOUTQ
    case 0x5413: try UserSlice(argument, 8).store(windowBytes)
    case 0x5414: try setWindow(UserSlice(argument, 8).bytes())
    case 0x541b: try UserSlice.store(Int32(terminal.available), at: argument)
    default: throw .notTerminal
    }
    return 0
  }

  private var windowBytes: [UInt8] {
    let window = terminal.window
    var result: [UInt8] = []
    for value in [window.rows, window.columns, window.width, window.height] {
      result.append(UInt8(truncatingIfNeeded: value))
      result.append(UInt8(truncatingIfNeeded: value >> 8))
    }
    return result
  }

  private func setWindow(_ bytes: [UInt8]) {
    if bytes == windowBytes { return }
    func value(_ at: Int) -> UInt16 { UInt16(bytes[at]) | UInt16(bytes[at + 1]) << 8 }
    terminal.window = (value(0), value(2), value(4), value(6))
    if terminal.foreground > 0 { Terminal.jobControl?.signalGroup(terminal.foreground, 28) }
  }

  /// TCXONC.
  private func setFlow(_ action: UInt) throws(Errno) {
    guard action <= 3 else { throw .invalid }
    if action == 0 { terminal.isStopped = true }
    if action == 1 {
      terminal.isStopped = false
      terminal.queue.wake(Readiness.writable.rawValue)
    }
  }

  private func flush(_ queue: UInt) throws(Errno) {
    guard queue <= 2 else { throw .invalid }
    if queue != 1 { terminal.flushInput() }
  }

  private func makeControlling(steal: Bool) throws(Errno) {
    guard let jobControl = Terminal.jobControl, jobControl.currentIsSessionLeader else { throw .notPermitted }
    if terminal.session == jobControl.currentSession { return }
    guard jobControl.currentTerminal == nil, terminal.session == 0 || steal else { throw .notPermitted }
    terminal.session = jobControl.currentSession
    terminal.foreground = jobControl.currentGroup
    jobControl.setControllingTerminal(terminal)
  }

  /// TIOCGPGRP, TIOCSPGRP, TIOCNOTTY, TIOCGSID.
  private func controlGroup(_ request: UInt32, _ argument: UInt) throws(Errno) -> Int {
    guard let jobControl = Terminal.jobControl, terminal.session > 0,
      terminal.session == jobControl.currentSession
    else { throw .notTerminal }
    switch request {
    case 0x540f: try UserSlice.store(terminal.foreground, at: argument)
    case 0x5429: try UserSlice.store(terminal.session, at: argument)
    case 0x5422:
      if jobControl.currentIsSessionLeader {
        let group = terminal.foreground
        terminal.session = 0
        terminal.foreground = 0
        if group > 0 {
          jobControl.signalGroup(group, 1)
          jobControl.signalGroup(group, 18)
        }
      }
      jobControl.setControllingTerminal(nil)
    default:
      try checkForeground(22)
      let group = try UserSlice.load(argument, Int32(0))
      guard group > 0 else { throw .invalid }
      guard jobControl.isGroup(group, inSession: terminal.session) else { throw .notPermitted }
      terminal.foreground = group
    }
    return 0
  }
}
