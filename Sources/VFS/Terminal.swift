public import ABI
public import Tasks

/// What a terminal needs to know of processes; `Processes` implements it and sets `Terminal.jobControl` at start.
public protocol TerminalJobControl: AnyObject {
  func signalGroup(_ group: Int32, _ signal: Int32)
  /// Of the calling process.
  var currentGroup: Int32 { get }
  var currentSession: Int32 { get }
  var currentIsSessionLeader: Bool { get }
  /// The controlling terminal of the caller's session.
  var currentTerminal: Terminal? { get }
  func currentIgnoresOrBlocks(_ signal: Int32) -> Bool
  /// credentials(7): a group without a member whose parent is in another group of the session.
  func isOrphaned(_ group: Int32) -> Bool
  /// Of the caller's session.
  func setControllingTerminal(_ terminal: Terminal?)
  /// Whether the group exists in the session.
  func isGroup(_ group: Int32, inSession session: Int32) -> Bool
}

/// A terminal: the line discipline between a program and what displays its output (termios(3)).
///
/// Input is kept in one ring; in canonical mode `lines` ends of lines are in it. Kernel lock held for every call.
public class Terminal {
  nonisolated(unsafe) public static var jobControl: (any TerminalJobControl)?
  static let capacity = 4096

  public final var settings = TerminalSettings()
  /// struct winsize: rows, columns, and both in pixels.
  public final var window: (rows: UInt16, columns: UInt16, width: UInt16, height: UInt16) = (24, 80, 0, 0)
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
  final var isStopped = false
  final var isHungUp = false
  private var isLiteral = false

  public init() {}

  deinit { input.discard() }

  /// Sends bytes to the display; how many were taken.
  func display(_ bytes: [UInt8]) -> Int { bytes.count }
  /// How many bytes `display` would take.
  var displaySpace: Int { .max }
  /// A reader has made room.
  func inputDrained() {}

  // MARK: Input

  /// What was typed.
  public final func receive(_ bytes: [UInt8]) {
    for byte in bytes { receive(byte) }
    if isReadable, !queue.isEmpty { queue.wake(Readiness.readable.rawValue) }
  }

  var inputSpace: Int { max(0, Terminal.capacity - input.count - line.count) }

  private func receive(_ raw: UInt8) {
    var byte = settings.stripsEighthBit ? raw & 0x7f : raw
    if isLiteral {
      isLiteral = false
      return insert(byte)
    }
    if handleFlow(byte) || handleSignal(byte) { return }
    if byte == 13 {
      if settings.ignoresReturn { return }
      if settings.mapsReturnToNewline { byte = 10 }
    } else if byte == 10, settings.mapsNewlineToReturn {
      byte = 13
    }
    if settings.isCanonical { edit(byte) } else { insert(byte) }
  }

  private func handleFlow(_ byte: UInt8) -> Bool {
    guard settings.hasFlowControl else { return false }
    if settings.matches(byte, TerminalSettings.Index.stop) {
      isStopped = true
      return true
    }
    if settings.matches(byte, TerminalSettings.Index.start) || (isStopped && settings.anyRestarts) {
      isStopped = false
      queue.wake(Readiness.writable.rawValue)
      return settings.matches(byte, TerminalSettings.Index.start)
    }
    return false
  }

  private func handleSignal(_ byte: UInt8) -> Bool {
    guard settings.signals else { return false }
    let signal: Int32
    if settings.matches(byte, TerminalSettings.Index.interrupt) {
      signal = 2
    } else if settings.matches(byte, TerminalSettings.Index.quit) {
      signal = 3
    } else if settings.matches(byte, TerminalSettings.Index.suspend) {
      signal = 20
    } else {
      return false
    }
    if !settings.keepsQueues { flushInput() }
    isStopped = false
    echo(byte)
    if foreground > 0 { Terminal.jobControl?.signalGroup(foreground, signal) }
    return true
  }

  private func edit(_ byte: UInt8) {
    typealias Index = TerminalSettings.Index
    if settings.matches(byte, Index.erase) { return eraseOne() }
    if settings.matches(byte, Index.kill) { return killLine() }
    if settings.isExtended, settings.matches(byte, Index.wordErase) { return eraseWord() }
    if settings.isExtended, settings.matches(byte, Index.literalNext) {
      isLiteral = true
      if settings.echoes, settings.echoesControls { emit([0x5e, 8]) }
      return
    }
    if settings.isExtended, settings.matches(byte, Index.reprint) {
      echo(byte)
      emit([10])
      for character in line { echo(character) }
      return
    }
    if settings.matches(byte, Index.endOfFile) { return endLine(isEndOfFile: true) }
    insert(byte)
    if byte == 10 || settings.matches(byte, Index.endOfLine) || settings.matches(byte, Index.endOfLine2) {
      endLine(isEndOfFile: false)
    }
  }

  private func insert(_ byte: UInt8) {
    // The last place is kept for the end of the line.
    guard inputSpace > (settings.isCanonical && byte != 10 ? 1 : 0) else { return }
    if settings.isCanonical { line.append(byte) } else { _ = input.append(byte) }
    echo(byte)
  }

  private func endLine(isEndOfFile: Bool) {
    for byte in line { _ = input.append(byte) }
    line.removeAll(keepingCapacity: true)
    lineEnds.append((input.count, isEndOfFile))
  }

  // MARK: Editing and echo

  private func eraseOne() {
    guard let last = line.popLast() else { return }
    rubOut(last)
    // The continuation bytes of UTF-8 go with their first byte (IUTF8).
    if settings.input & 0x4000 != 0, last & 0xc0 == 0x80 {
      while let next = line.popLast(), next & 0xc0 == 0x80 {}
    }
  }

  private func rubOut(_ byte: UInt8) {
    guard settings.echoes else { return }
    guard settings.echoesErase else { return echo(settings.characters[TerminalSettings.Index.erase]) }
    let width = byte < 32 || byte == 127 ? (settings.echoesControls ? 2 : 0) : 1
    for _ in 0..<width { emit([8, 32, 8]) }
  }

  private func eraseWord() {
    func isBlank(_ byte: UInt8) -> Bool { byte == 32 || byte == 9 }
    while let last = line.last, isBlank(last) { eraseOne() }
    while let last = line.last, !isBlank(last) { eraseOne() }
  }

  private func killLine() {
    if settings.echoesErase, settings.erasesLineOnKill {
      while !line.isEmpty { eraseOne() }
      return
    }
    line.removeAll(keepingCapacity: true)
    echo(settings.characters[TerminalSettings.Index.kill])
    if settings.echoesKill { emit([10]) }
  }

  private func echo(_ byte: UInt8) {
    guard settings.echoes || (byte == 10 && settings.echoesNewline && settings.isCanonical) else { return }
    if byte == 10 || byte == 9 || byte >= 32 && byte != 127 || !settings.echoesControls {
      emit([byte])
    } else {
      emit([0x5e, byte ^ 0x40])
    }
  }

  /// Displays what the line discipline itself has to say; lost if there is no room, as on a real line.
  private func emit(_ bytes: [UInt8]) { _ = display(processed(bytes)) }

  /// Output processing (OPOST).
  final func processed(_ bytes: [UInt8]) -> [UInt8] {
    guard settings.processesOutput else { return bytes }
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count + 16)
    for byte in bytes {
      if byte == 10, settings.addsReturn { result.append(13) }
      result.append(byte == 13 && settings.mapsReturnOnOutput ? 10 : byte)
    }
    return result
  }

  // MARK: Reading

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
  }

  /// The mode changed: what was typed becomes readable, or one line (termios(3), "Canonical and noncanonical mode").
  final func change(_ new: TerminalSettings) {
    let wasCanonical = settings.isCanonical
    settings = new
    if wasCanonical, !new.isCanonical {
      for byte in line { _ = input.append(byte) }
      line.removeAll(keepingCapacity: true)
      lineEnds.removeAll(keepingCapacity: true)
    } else if !wasCanonical, new.isCanonical, input.count > 0 {
      lineEnds = [(input.count, false)]
    }
    if !new.hasFlowControl { isStopped = false }
    if !queue.isEmpty { queue.wake() }
  }

  /// The other side is gone: readers see the end, the session is told (SIGHUP, SIGCONT).
  final func hangUp() {
    guard !isHungUp else { return }
    isHungUp = true
    if !queue.isEmpty { queue.wake() }
    if let jobControl = Terminal.jobControl {
      if session > 0 { jobControl.signalGroup(session, 1) }
      if foreground > 0, foreground != session { jobControl.signalGroup(foreground, 1) }
      if foreground > 0 { jobControl.signalGroup(foreground, 18) }
    }
    session = 0
    foreground = 0
  }
}
