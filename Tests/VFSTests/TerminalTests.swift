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
