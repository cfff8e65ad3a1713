import ABI
import Tasks
import Testing
import VFS

@Suite("Terminals and the console", .serialized) struct TerminalTests {
  private func pair() throws -> (master: PseudoTerminalMaster, slave: OpenFile) {
    let master = try TerminalMultiplexer.open(inode: PipeInodes.anonymous(mode: 0o020666), flags: 0o4002)
    return (master, master.peer(flags: 0o4402))
  }

  @Test(arguments: [
    ("abc\r", "abc\n", "abc\r\n"),
    ("abx\u{7f}c\r", "abc\n", "abx\u{8} \u{8}c\r\n"),
    ("one two\u{17}x\n", "one x\n", "one two\u{8} \u{8}\u{8} \u{8}\u{8} \u{8}x\r\n"),
    ("no\u{15}yes\n", "yes\n", "no\u{8} \u{8}\u{8} \u{8}yes\r\n"),
    ("\u{16}\u{3}\n", "\u{3}\n", "^\u{8}^C\r\n"),
    ("\u{1b}\n", "\u{1b}\n", "^[\r\n"),
  ])
  func `Canonical mode edits and echoes`(typed: String, read: String, shown: String) throws {
    try IPCFakeHost.run { (_) throws in
      let (master, slave) = try pair()
      _ = try master.put(typed)
      #expect(try slave.text() == read)
      #expect(try master.text() == shown)
      slave.released()
      master.released()
    }
  }

  @Test func `A canonical read gives a line at a time and an end of file once`() throws {
    try IPCFakeHost.run { (_) throws in
      let (master, slave) = try pair()
      #expect(errno { _ = try slave.text() } == .again)
      _ = try master.put("ab\ncd\u{4}\u{4}")
      #expect(try slave.text(1) == "a")
      #expect(try slave.text() == "b\n")
      #expect(try slave.text() == "cd")
      #expect(try slave.text() == "")
      #expect(errno { _ = try slave.text() } == .again)
      slave.released()
      master.released()
    }
  }

  @Test func `Raw mode passes everything through`() throws {
    try IPCFakeHost.run { (_) throws in
      let (master, slave) = try pair()
      master.pair.settings.local = 0
      master.pair.settings.input = 0
      master.pair.settings.output = 0
      _ = try master.put("\u{3}\r\u{4}")
      #expect(try slave.text() == "\u{3}\r\u{4}")
      #expect(try slave.put("x\n") == 2)
      #expect(try master.text() == "x\n")
      slave.released()
      master.released()
    }
  }

  @Test func `Job control signals the foreground and stops the background`() throws {
    try IPCFakeHost.run { (_) throws in
      let control = FakeJobControl()
      Terminal.jobControl = control
      defer { Terminal.jobControl = nil }
      let master = try TerminalMultiplexer.open(inode: PipeInodes.anonymous(mode: 0o020666), flags: 0o4002)
      let slave = master.peer(flags: 0o4002)
      #expect(control.currentTerminal === master.pair && master.pair.foreground == 7)
      _ = try master.put("lost\u{3}")
      #expect(control.signals == [[7, 2]])
      #expect(errno { _ = try slave.text() } == .again)
      control.currentGroup = 8
      #expect(errno { _ = try slave.text() } == .interrupted)
      #expect(control.signals.last == [8, 21])
      #expect(try slave.put("x") == 1)
      master.pair.settings.local |= 0x100
      #expect(errno { _ = try slave.put("x") } == .interrupted)
      #expect(control.signals.last == [8, 22])
      control.currentGroup = 7
      master.released()
      #expect(control.signals.suffix(2) == [[7, 1], [7, 18]])
      slave.released()
    }
  }

  @Test func `A raw terminal loses nothing when its input is full`() throws {
    try IPCFakeHost.run { (_) throws in
      let (master, slave) = try pair()
      master.pair.settings.local = 0
      master.pair.settings.input = 0
      #expect(try master.put([UInt8](repeating: 7, count: 5000)) == 4096)
      #expect(try slave.get(5000).count == 4096)
      slave.released()
      master.released()
    }
  }

  @Test func `A pseudo-terminal hangs up when a side goes`() throws {
    try IPCFakeHost.run { (_) throws in
      let (master, slave) = try pair()
      #expect(TerminalMultiplexer.numbers == [master.pair.number])
      slave.released()
      #expect(errno { _ = try master.text() } == .inputOutput)
      #expect(master.readiness().contains(.hangup))
      let again = master.peer(flags: 0o4402)
      master.released()
      #expect(try again.text() == "")
      #expect(errno { _ = try again.put("x") } == .inputOutput)
      #expect(again.readiness().contains(.hangup))
      #expect(TerminalMultiplexer.numbers.isEmpty)
    }
  }

  @Test func `The plain console reads, ends, and writes in spite of short writes`() throws {
    try IPCFakeHost.run { (fake) throws in
      let input = ConsoleFile(stream: 0)
      input.flags |= 0o4000
      #expect(errno { _ = try input.text() } == .again)
      #expect(Devices.consoleReaders == 1)
      fake.typed = Array("hello".utf8)
      Devices.console?.handleInput()
      #expect(input.readiness() == .readable)
      #expect(try input.text(2) == "he")
      #expect(try input.text() == "llo")
      let output = ConsoleFile(stream: 1)
      fake.shortWrite = 3
      #expect(try output.put("a longer line") == 13)
      #expect(fake.printed == Array("a longer line".utf8))
      #expect(errno { _ = try output.control(0x5401, argument: 0) } == .notTerminal)
    }
  }

  @Test func `The console as a terminal edits lines itself`() throws {
    try IPCFakeHost.run { (fake) throws in
      let terminal = ConsoleTerminal(rows: 24, columns: 80)
      let file = terminal.open(inode: PipeInodes.anonymous(mode: 0o020600), flags: 0o4402)
      fake.typed = Array("ls\r".utf8)
      terminal.handleInput()
      #expect(try file.text() == "ls\n")
      #expect(fake.printed == Array("ls\r\n".utf8))
      file.released()
    }
  }
}

/// A session of one leader, 7, that may pretend to be in another group.
private final class FakeJobControl: TerminalJobControl {
  var signals: [[Int32]] = []
  var currentGroup: Int32 = 7
  var currentSession: Int32 { 7 }
  var currentIsSessionLeader: Bool { currentGroup == 7 }
  var currentTerminal: Terminal?
  func signalGroup(_ group: Int32, _ signal: Int32) { signals.append([group, signal]) }
  func currentIgnoresOrBlocks(_ signal: Int32) -> Bool { false }
  func isOrphaned(_ group: Int32) -> Bool { false }
  func setControllingTerminal(_ terminal: Terminal?) { currentTerminal = terminal }
  func isGroup(_ group: Int32, inSession session: Int32) -> Bool { true }
}
