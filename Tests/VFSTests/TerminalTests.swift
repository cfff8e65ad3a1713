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
      #expect(control.currentTerminal == nil && master.pair.session == 0)
      slave.released()
    }
  }

  @Test func `A background process is told EIO where no shell could continue it`() throws {
    try IPCFakeHost.run { (_) throws in
      let control = FakeJobControl()
      Terminal.jobControl = control
      defer { Terminal.jobControl = nil }
      let master = try TerminalMultiplexer.open(inode: PipeInodes.anonymous(mode: 0o020666), flags: 0o4002)
      let slave = master.peer(flags: 0o4002)
      _ = try master.put("line\n")
      control.currentGroup = 8
      control.orphans = [8]
      #expect(errno { _ = try slave.text() } == .inputOutput)
      control.orphans = []
      control.ignored = [21, 22]
      #expect(errno { _ = try slave.text() } == .inputOutput)
      master.pair.settings.local |= 0x100
      #expect(try slave.put("x") == 1)
      #expect(control.signals.isEmpty)
      control.currentGroup = 7
      #expect(try slave.text() == "line\n")
      slave.released()
      master.released()
    }
  }

  @Test func `A shell hands the foreground to groups of its session only`() throws {
    try IPCFakeHost.run { (_) throws in
      let control = FakeJobControl()
      Terminal.jobControl = control
      defer { Terminal.jobControl = nil }
      let master = try TerminalMultiplexer.open(inode: PipeInodes.anonymous(mode: 0o020666), flags: 0o4002)
      let slave = master.peer(flags: 0o4002)
      func set(_ group: Int32) throws {
        var group = group
        _ = try withUnsafeBytes(of: &group) {
          try slave.control(0x5410, argument: UInt(bitPattern: $0.baseAddress))
        }
      }
      try set(8)
      #expect(master.pair.foreground == 8)
      control.currentGroup = 8
      #expect(errno { try set(-1) } == .invalid)
      #expect(errno { try set(150) } == .notPermitted)
      #expect(errno { try set(250) } == .noSuchProcess)
      control.currentGroup = 9
      #expect(errno { try set(9) } == .interrupted)
      #expect(control.signals == [[9, 22]])
      control.ignored = [22]
      try set(9)
      control.currentTerminal = nil
      #expect(errno { try set(8) } == .notTerminal)
      slave.released()
      master.released()
    }
  }

  @Test(arguments: [
    ("\u{16}\n\n", 0x8a3b as UInt32, 5 as UInt32, "\n\n", "^\u{8}^J\r\n"),
    (
      "a\tb\u{7f}\u{7f}c\n", 0x8a3b, 5, "ac\n",
      "a\tb\u{8} \u{8}" + String(repeating: "\u{8}", count: 7) + "c\r\n"
    ),
    ("ab\u{15}c\n", 0x803b, 5, "c\n", "ab\u{15}\r\nc\r\n"),
    ("ab\u{15}c\n", 0x8a0b, 5, "c\n", "ab^Uc\r\n"),
    ("x\n", 0x8003, 5, "x\n", ""),
    ("x\n", 0x8043, 5, "x\n", "\r\n"),
    ("a\tb\n", 0x8a3b, 0x1805, "a\tb\n", "a       b\r\n"),
    ("a.b/c d\u{17}\u{17}\n", 0x8a3b, 5, "a.b/\n", "a.b/c d\u{8} \u{8}\u{8} \u{8}\u{8} \u{8}\r\n"),
  ])
  func `Echo follows the local and output modes`(
    typed: String, local: UInt32, output: UInt32, read: String, shown: String
  ) throws {
    try IPCFakeHost.run { (_) throws in
      let (master, slave) = try pair()
      master.pair.settings.local = local
      master.pair.settings.output = output
      _ = try master.put(typed)
      #expect(try slave.text() == read)
      #expect(shown.isEmpty ? errno { _ = try master.text() } == .again : try master.text() == shown)
      slave.released()
      master.released()
    }
  }

  @Test func `Stopped output waits and so does its echo`() throws {
    try IPCFakeHost.run { (_) throws in
      let (master, slave) = try pair()
      _ = try master.put("\u{13}a")
      #expect(errno { _ = try slave.put("x") } == .again)
      #expect(!slave.readiness().contains(.writable))
      #expect(errno { _ = try master.text() } == .again)
      _ = try master.put("\u{11}")
      #expect(try master.text() == "a")
      #expect(try slave.put("x") == 1)
      slave.released()
      master.released()
    }
  }

  @Test func `VMIN and VTIME decide when a raw read ends`() throws {
    try IPCFakeHost.run { (_) throws in
      let master = try TerminalMultiplexer.open(inode: PipeInodes.anonymous(mode: 0o020666), flags: 0o4002)
      let slave = master.peer(flags: 0o402)
      master.pair.settings.local = 0
      master.pair.settings.characters[6] = 0
      #expect(try slave.text() == "")
      master.pair.settings.characters[5] = 1
      let start = host.monotonicNanoseconds
      #expect(try slave.text() == "")
      #expect(host.monotonicNanoseconds - start >= 100_000_000)
      master.pair.settings.characters[6] = 3
      _ = try master.put("ab")
      #expect(try slave.text() == "ab")
      master.pair.settings.characters[5] = 0
      _ = try master.put("abcd")
      #expect(try slave.text(2) == "ab")
      #expect(!slave.readiness().contains(.readable))
      slave.released()
      master.released()
    }
  }

  @Test func `The directory of terminals lists and finds what exists`() throws {
    try IPCFakeHost.run { (_) throws in
      let (master, slave) = try pair()
      let directory = PseudoTerminalDirectory()
      let number = Array("\(master.pair.number)".utf8)
      let inode = try directory.lookup(number)
      #expect(inode.status.rawDevice == 136 << 8 | UInt64(master.pair.number))
      #expect(inode.status.mode == 0o020620 && inode.status.group == 5)
      for name in ["", "x", "00", "-1", "99999", "4095"] {
        #expect(errno { _ = try directory.lookup(Array(name.utf8)) } == .noSuchFile)
      }
      #expect(try directory.lookup(Array("ptmx".utf8)).status.rawDevice == 5 << 8 | 2)
      #expect(errno { _ = try inode.open(flags: 0o402) } == .inputOutput)
      slave.released()
      master.released()
      #expect(errno { _ = try directory.lookup(number) } == .noSuchFile)
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
      let terminal = ConsoleTerminal(size: nil)
      let file = try terminal.open(inode: PipeInodes.anonymous(mode: 0o020600), flags: 0o4402)
      fake.typed = Array("ls\r".utf8)
      terminal.handleInput()
      #expect(try file.text() == "ls\n")
      #expect(fake.printed == Array("ls\r\n".utf8))
      file.released()
    }
  }
}

extension TerminalTests {
  @Test func `The console keeps what the host does not take and follows its size`() throws {
    try IPCFakeHost.run { (fake) throws in
      let control = FakeJobControl()
      Terminal.jobControl = control
      defer { Terminal.jobControl = nil }
      let size = UnsafeMutablePointer<UInt64>.allocate(capacity: 2)
      defer { size.deallocate() }
      size[0] = 30 | 100 << 16
      size[1] = 0x4000
      let terminal = ConsoleTerminal(size: size)
      let file = try terminal.open(inode: PipeInodes.anonymous(mode: 0o020600), flags: 0o4002)
      #expect(terminal.window.rows == 30 && terminal.window.columns == 100)
      #expect(terminal.settings.input & 0x4000 != 0)
      fake.shortWrite = 0
      #expect(try file.put("x\n") == 2)
      #expect(fake.printed.isEmpty)
      fake.shortWrite = 1
      Timers.run(now: host.monotonicNanoseconds + 2_000_000)
      #expect(fake.printed == Array("x\r\n".utf8))
      size[0] = 31 | 100 << 16
      terminal.updateSize()
      terminal.updateSize()
      #expect(control.signals == [[7, 28]])
      fake.hasConsoleEnded = true
      terminal.handleInput()
      #expect(try file.text() == "")
      #expect(errno { _ = try file.put("x") } == .inputOutput)
      #expect(control.signals.suffix(2) == [[7, 1], [7, 18]])
      file.released()
    }
  }

  @Test func `A master in packet mode hears of flushes and stops`() throws {
    try IPCFakeHost.run { (_) throws in
      let master = try TerminalMultiplexer.open(inode: PipeInodes.anonymous(mode: 0o020666), flags: 0o4002)
      let slave = master.peer(flags: 0o4402)
      var on: Int32 = 1
      try withUnsafeMutableBytes(of: &on) {
        _ = try master.control(0x5420, argument: UInt(bitPattern: $0.baseAddress))
      }
      #expect(try slave.put("x") == 1)
      #expect(try master.get() == [0, 0x78])
      _ = try slave.control(0x540b, argument: 0)
      #expect(master.readiness().contains(.priority))
      #expect(try master.get() == [1])
      _ = try slave.control(0x540a, argument: 0)
      _ = try slave.control(0x540a, argument: 1)
      #expect(try master.get() == [8])
      #expect(errno { _ = try master.get() } == .again)
      slave.released()
      master.released()
    }
  }
}

/// A session of one leader, 7, that may pretend to be in another group.
private final class FakeJobControl: TerminalJobControl {
  var signals: [[Int32]] = []
  var currentGroup: Int32 = 7
  var currentSession: Int32 { 7 }
  var currentIsSessionLeader: Bool { currentGroup == 7 }
  var currentUser: UInt32 { 0 }
  var currentTerminal: Terminal?
  var ignored: Set<Int32> = []
  var orphans: Set<Int32> = []
  func signalGroup(_ group: Int32, _ signal: Int32) { signals.append([group, signal]) }
  func currentIgnoresOrBlocks(_ signal: Int32) -> Bool { ignored.contains(signal) }
  func isOrphaned(_ group: Int32) -> Bool { orphans.contains(group) }
  func setControllingTerminal(_ terminal: Terminal?) { currentTerminal = terminal }
  func clearControllingTerminal(_ terminal: Terminal, ofSession session: Int32) { currentTerminal = nil }
  func hangUp(session: Int32, foreground: Int32) { signals += [[session, 1], [session, 18]] }
  func session(ofGroup group: Int32) -> Int32? { group < 100 ? 7 : group < 200 ? 100 : nil }
}
