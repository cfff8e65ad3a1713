public import ABI
public import Tasks

/// A terminal that a program has open.
public class TerminalFile: OpenFile {
  public final let terminal: Terminal
  private let generation: Int

  public init(_ terminal: Terminal, inode: Inode, flags: UInt32) {
    self.terminal = terminal
    generation = terminal.generation
    super.init(inode: inode, flags: flags & ~0o400)
    if flags & 0o400 == 0 { acquireControl() }
  }

  /// open(2): the first terminal that a session leader without one opens becomes its own, unless O_NOCTTY.
  private func acquireControl() {
    guard isReadable, terminal.session == 0, !terminal.isHungUp, let jobControl = Terminal.jobControl,
      jobControl.currentIsSessionLeader, jobControl.currentTerminal == nil
    else { return }
    terminal.session = jobControl.currentSession
    terminal.foreground = jobControl.currentGroup
    jobControl.setControllingTerminal(terminal)
  }

  final var isHungUp: Bool { terminal.isHungUp || generation != terminal.generation }

  public final override var waitQueue: WaitQueue? { terminal.queue }

  public final override func readiness() -> Readiness {
    if isHungUp { return [.readable, .writable, .error, .hangup, .readHangup] }
    var result: Readiness = []
    if terminal.isReadable { result.insert(.readable) }
    if !terminal.isStopped, terminal.displaySpace > 1 { result.insert(.writable) }
    return result
  }

  public override func read(_ slice: UserSlice) throws(Errno) -> Int {
    guard slice.count > 0, !isHungUp else { return 0 }
    try terminal.checkForeground(21)
    if terminal.settings.isCanonical { return try readLine(slice) }
    let minimum = min(Int(terminal.settings.characters[TerminalSettings.Index.minimum]), slice.count)
    let time = UInt64(terminal.settings.characters[TerminalSettings.Index.time]) &* 100_000_000
    if isNonblocking || (minimum == 0 && time == 0) {
      if terminal.input.count == 0, minimum > 0 || time > 0 { throw .again }
      return try terminal.take(slice)
    }
    if time > 0 { return try readTimed(slice, minimum: minimum, time: time) }
    while terminal.input.count < minimum, !terminal.settings.isCanonical, !isHungUp {
      try terminal.queue.sleep()
    }
    // Somebody else went back to lines meanwhile.
    return terminal.settings.isCanonical && !isHungUp ? try readLine(slice) : try terminal.take(slice)
  }

  private func readLine(_ slice: UserSlice) throws(Errno) -> Int {
    while !(terminal.settings.isCanonical ? terminal.isReadable : terminal.input.count > 0) {
      if isHungUp { return 0 }
      if isNonblocking { throw .again }
      try terminal.queue.sleep()
    }
    return try terminal.take(slice)
  }

  /// VTIME: with VMIN 0 the time of the whole read, else the time between two bytes.
  private func readTimed(_ slice: UserSlice, minimum: Int, time: UInt64) throws(Errno) -> Int {
    if minimum > 0 {
      while terminal.input.count == 0, !isHungUp { try terminal.queue.sleep() }
    }
    var seen = terminal.input.count
    var deadline = host.monotonicNanoseconds &+ time
    while terminal.input.count < max(minimum, 1), !isHungUp {
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
    if terminal.settings.stopsBackgroundOutput { try terminal.checkForeground(22) }
    var rest = slice
    do throws(Errno) {
      while rest.count > 0 {
        if isHungUp { throw .inputOutput }
        // Output processing may make eight spaces of a tab.
        let space = terminal.settings.processesOutput ? terminal.displaySpace / 8 : terminal.displaySpace
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

  public override func control(_ request: UInt32, argument: UInt) throws(Errno) -> Int {
    if isHungUp {
      // TIOCSPGRP is asked for most by shells that must notice: ENOTTY, all else EIO.
      throw request == 0x5410 ? .notTerminal : .inputOutput
    }
    return try terminal.control(request, argument: argument, from: self)
  }
}
