public import ABI
public import Tasks

/// What a terminal needs to know of processes; `Processes` implements it and sets `Terminal.jobControl` at start.
public protocol TerminalJobControl: AnyObject {
  func signalGroup(_ group: Int32, _ signal: Int32)
  /// Of the calling process.
  var currentGroup: Int32 { get }
  var currentSession: Int32 { get }
  var currentIsSessionLeader: Bool { get }
  /// Effective user id.
  var currentUser: UInt32 { get }
  /// The controlling terminal of the caller.
  var currentTerminal: Terminal? { get }
  func currentIgnoresOrBlocks(_ signal: Int32) -> Bool
  /// credentials(7): a group without a member whose parent is in another group of the session.
  func isOrphaned(_ group: Int32) -> Bool
  /// Of the calling process alone.
  func setControllingTerminal(_ terminal: Terminal?)
  /// Every process of the session that has this terminal loses it.
  func clearControllingTerminal(_ terminal: Terminal, ofSession session: Int32)
  /// The terminal of the session is gone: its leader gets SIGHUP and SIGCONT, and `foreground` the same when the
  /// leader ends.
  func hangUp(session: Int32, foreground: Int32)
  /// The session of a process group, nil if there is no such group.
  func session(ofGroup group: Int32) -> Int32?
}

/// A terminal: the line discipline between a program and what displays its output (termios(3)).
///
/// Input is kept in one ring; in canonical mode `lineEnds` are the ends of lines in it. Kernel lock held for every
/// call.
public class Terminal {
  nonisolated(unsafe) public static var jobControl: (any TerminalJobControl)?
  static let capacity = 4096
  /// Echo that is kept while output is stopped.
  static let echoCapacity = 4096

  public final var settings = TerminalSettings()
  /// What is not zero here stays as it is in `settings` (TIOCSLCKTRMIOS).
  final var lockedSettings = TerminalSettings(bytes: [UInt8](repeating: 0, count: TerminalSettings.size))
  /// struct winsize: rows, columns, and both in pixels.
  public final var window: (rows: UInt16, columns: UInt16, width: UInt16, height: UInt16) = (0, 0, 0, 0)
  /// The foreground process group and the session that the terminal controls; 0 none.
  public final var foreground: Int32 = 0
  public final var session: Int32 = 0
  public final let queue = WaitQueue()

  /// Bytes that may be read.
  final var input = PipeBuffer(capacity: Terminal.capacity)
  /// Where lines end in `input`: offsets behind the end from its first byte; true if an EOF character is there, which
  /// is not part of what is read.
  final var lineEnds: [(end: Int, isEndOfFile: Bool)] = []
  /// The line that is being edited in canonical mode.
  final var line: [UInt8] = []
  /// The column that the line began in, and that output is at: a rubbed out tab needs both.
  final var lineColumn = 0
  final var column = 0
  /// Output is stopped (XOFF, TCOOFF); what is echoed meanwhile waits.
  final var isStopped = false
  final var heldEcho: [UInt8] = []
  final var isHungUp = false
  /// The next character is taken as it is (VLNEXT).
  final var isLiteral = false
  /// vhangup(2) ends what was opened before.
  final var generation = 0

  public init() {}

  deinit { input.discard() }

  // MARK: What kinds of terminals differ in

  /// As stat(2) and /proc/PID/stat number it: 136 (/dev/pts) and N.
  public var deviceNumber: UInt64 { 0 }
  /// Sends bytes to the display; how many were taken.
  func display(_ bytes: [UInt8]) -> Int { bytes.count }
  /// How many bytes `display` would take.
  var displaySpace: Int { .max }
  /// Drops what the display has not fetched.
  func flushDisplay() {}
  /// A reader has made room.
  func inputDrained() {}
  /// TIOCPKT: the other side wants to hear of flushes, stops and changes of flow control.
  func tellPacketMode(_ events: UInt8) {}
  /// Opens the terminal once more. EIO.
  public func open(inode: Inode, flags: UInt32) throws(Errno) -> TerminalFile {
    TerminalFile(self, inode: inode, flags: flags)
  }

  // MARK: Reading

  var inputSpace: Int { max(0, Terminal.capacity - input.count - line.count) }

  final var isReadable: Bool {
    if settings.isCanonical { return !lineEnds.isEmpty }
    return input.count >= max(1, Int(settings.characters[TerminalSettings.Index.minimum]))
      || (input.count > 0 && settings.characters[TerminalSettings.Index.time] > 0)
  }

  /// Bytes that a read could have now (FIONREAD).
  final var available: Int { settings.isCanonical ? lineEnds.last.map { $0.end } ?? 0 : input.count }

  /// Takes what is there, one line at most in canonical mode.
  final func take(_ slice: UserSlice) throws(Errno) -> Int {
    guard settings.isCanonical, let first = lineEnds.first else {
      let taken = try input.take(slice)
      inputDrained()
      return taken
    }
    let taken = try input.take(slice.prefix(first.end))
    for index in lineEnds.indices { lineEnds[index].end -= taken }
    // A line that is not read to its end stays; behind an EOF character nothing is left to read.
    if taken == first.end { lineEnds.removeFirst() }
    inputDrained()
    return taken
  }

  final func flushInput() {
    input.dropFirst(input.count)
    lineEnds.removeAll(keepingCapacity: true)
    line.removeAll(keepingCapacity: true)
    inputDrained()
    tellPacketMode(PacketEvents.flushedInput)
  }

  final func flushOutput() {
    heldEcho.removeAll(keepingCapacity: true)
    flushDisplay()
    tellPacketMode(PacketEvents.flushedOutput)
    if !queue.isEmpty { queue.wake(Readiness.writable.rawValue) }
  }

  /// The mode changed: what was typed becomes readable, or one line (termios(3), "Canonical and noncanonical mode").
  final func change(_ new: TerminalSettings) {
    let wasCanonical = settings.isCanonical
    let hadFlowControl = settings.hasStandardFlowControl
    settings = new
    if wasCanonical, !new.isCanonical {
      for byte in line { _ = input.append(byte) }
      line.removeAll(keepingCapacity: true)
      lineEnds.removeAll(keepingCapacity: true)
    } else if !wasCanonical, new.isCanonical, input.count > 0 {
      lineEnds = [(input.count, false)]
    }
    if !new.hasFlowControl { restartOutput() }
    if hadFlowControl != new.hasStandardFlowControl {
      tellPacketMode(hadFlowControl ? PacketEvents.flowControlOff : PacketEvents.flowControlOn)
    }
    if !queue.isEmpty { queue.wake() }
  }

  /// TIOCSWINSZ, or the display itself changed its size.
  final func resize(_ new: (rows: UInt16, columns: UInt16, width: UInt16, height: UInt16)) {
    if new == window { return }
    window = new
    if foreground > 0 { Terminal.jobControl?.signalGroup(foreground, 28) }
  }

  // MARK: Hang-up

  /// The other side is gone for good: readers see the end, the session is told (SIGHUP, SIGCONT).
  final func hangUp() {
    guard !isHungUp else { return }
    isHungUp = true
    detach()
  }

  /// vhangup(2): whoever opens the terminal afterwards finds it in order.
  public final func hangUpOpenFiles() {
    generation += 1
    detach()
  }

  private func detach() {
    flushInput()
    heldEcho.removeAll()
    if !queue.isEmpty { queue.wake() }
    if session > 0, let jobControl = Terminal.jobControl {
      jobControl.clearControllingTerminal(self, ofSession: session)
      jobControl.hangUp(session: session, foreground: foreground)
    }
    session = 0
    foreground = 0
  }

  /// The session has ended, or gives the terminal up (TIOCNOTTY, setsid(2) NOTES): its foreground group hears of it.
  public final func release(continues: Bool) {
    let (oldSession, group) = (session, foreground)
    session = 0
    foreground = 0
    guard let jobControl = Terminal.jobControl else { return }
    if group > 0 {
      jobControl.signalGroup(group, 1)
      if continues { jobControl.signalGroup(group, 18) }
    }
    if oldSession > 0 { jobControl.clearControllingTerminal(self, ofSession: oldSession) }
  }
}

/// What the master hears in packet mode (ioctl_tty(2), TIOCPKT).
enum PacketEvents {
  static let flushedInput: UInt8 = 1, flushedOutput: UInt8 = 2, stopped: UInt8 = 4, started: UInt8 = 8
  static let flowControlOff: UInt8 = 16, flowControlOn: UInt8 = 32
}
