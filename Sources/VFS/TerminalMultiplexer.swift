public import ABI
public import Tasks

/// The slave side of a pseudo-terminal (pty(7)): its display is what the master reads.
public final class PseudoTerminal: Terminal {
  /// N of /dev/pts/N.
  public let number: Int
  /// TIOCSPTLCK: the slave cannot be opened while it is locked.
  public internal(set) var isLocked = true
  /// TIOCPKT, and what the master has not been told yet.
  var isPacketMode = false
  var packetEvents: UInt8 = 0
  var output = PipeBuffer(capacity: 65536)
  let masterQueue = WaitQueue()
  var slaves = 0
  var hadSlave = false

  init(number: Int) { self.number = number }

  deinit { output.discard() }

  public override var deviceNumber: UInt64 { TerminalMultiplexer.deviceNumber(number) }

  override var displaySpace: Int { output.space }

  override func display(_ bytes: [UInt8]) -> Int {
    let taken = output.append(contentsOf: bytes)
    if taken > 0, !masterQueue.isEmpty { masterQueue.wake(Readiness.readable.rawValue) }
    return taken
  }

  /// What a read of the master could have had at once is past recall, as on Linux (N_TTY_BUF_SIZE).
  override func flushDisplay() { output.dropLast(max(0, output.count - 4095)) }

  override func inputDrained() {
    if !masterQueue.isEmpty { masterQueue.wake(Readiness.writable.rawValue) }
  }

  override func tellPacketMode(_ events: UInt8) {
    guard isPacketMode else { return }
    if events & (PacketEvents.stopped | PacketEvents.started) != 0 {
      packetEvents &= ~(PacketEvents.stopped | PacketEvents.started)
    }
    if events & (PacketEvents.flowControlOff | PacketEvents.flowControlOn) != 0 {
      packetEvents &= ~(PacketEvents.flowControlOff | PacketEvents.flowControlOn)
    }
    packetEvents |= events
    if !masterQueue.isEmpty { masterQueue.wake() }
  }

  public override func open(inode: Inode, flags: UInt32) throws(Errno) -> TerminalFile {
    // EIO, as Linux has it: the slave is locked, or its master is closed.
    guard !isLocked, !isHungUp else { throw .inputOutput }
    return PseudoTerminalFile(self, inode: inode, flags: flags)
  }
}

/// /dev/pts/N, opened.
public final class PseudoTerminalFile: TerminalFile {
  private let pair: PseudoTerminal

  init(_ pair: PseudoTerminal, inode: Inode, flags: UInt32) {
    self.pair = pair
    pair.slaves += 1
    pair.hadSlave = true
    super.init(pair, inode: inode, flags: flags)
  }

  public override func released() {
    pair.slaves -= 1
    if pair.slaves == 0, !pair.masterQueue.isEmpty { pair.masterQueue.wake() }
  }
}

/// /dev/ptmx, opened: the master side.
public final class PseudoTerminalMaster: OpenFile {
  public let pair: PseudoTerminal

  init(_ pair: PseudoTerminal, inode: Inode, flags: UInt32) {
    self.pair = pair
    super.init(inode: inode, flags: flags & ~0o400)
  }

  private var isHungUp: Bool { pair.hadSlave && pair.slaves == 0 }

  public override var waitQueue: WaitQueue? { pair.masterQueue }

  public override func readiness() -> Readiness {
    var result: Readiness = []
    if pair.output.count > 0 { result.insert(.readable) }
    if pair.isPacketMode, pair.packetEvents != 0 {
      result.insert(.readable)
      result.insert(.priority)
    }
    if pair.inputSpace > 0 { result.insert(.writable) }
    if isHungUp { result.insert(.hangup) }
    return result
  }

  /// EIO when no slave is open any more and everything is read.
  public override func read(_ slice: UserSlice) throws(Errno) -> Int {
    guard slice.count > 0 else { return 0 }
    while pair.output.count == 0, !pair.isPacketMode || pair.packetEvents == 0 {
      if isHungUp { throw .inputOutput }
      if isNonblocking { throw .again }
      try pair.masterQueue.sleep()
    }
    guard pair.isPacketMode else { return try take(slice) }
    let events = pair.packetEvents
    try slice.prefix(1).store([events])
    pair.packetEvents = 0
    return events == 0 ? 1 + (try take(slice.dropFirst(1))) : 1
  }

  private func take(_ slice: UserSlice) throws(Errno) -> Int {
    let taken = try pair.output.take(slice)
    if !pair.queue.isEmpty { pair.queue.wake(Readiness.writable.rawValue) }
    return taken
  }

  public override func write(_ slice: UserSlice) throws(Errno) -> Int {
    var rest = slice
    do throws(Errno) {
      while rest.count > 0 {
        // A full line buffer still lets the line's end through; what is beyond is lost (termios(3), MAX_INPUT).
        if pair.inputSpace == 0 {
          if isNonblocking { throw .again }
          try pair.masterQueue.sleep()
          continue
        }
        let chunk = try rest.prefix(min(pair.inputSpace, 1024)).bytes()
        pair.receive(chunk)
        rest.advance(chunk.count)
      }
    } catch {
      if rest.count == slice.count { throw error }
    }
    return slice.count - rest.count
  }

  /// TIOCGPTN, TIOCSPTLCK, TIOCGPTLCK, TIOCPKT, TIOCGPKT, TIOCSIG, and what both sides share. TIOCGPTPEER makes a
  /// file: see `peer`.
  public override func control(_ request: UInt32, argument: UInt) throws(Errno) -> Int {
    switch request {
    case 0x8004_5430: try UserSlice.store(UInt32(pair.number), at: argument)
    case 0x4004_5431: pair.isLocked = try UserSlice.load(argument, Int32(0)) != 0
    case 0x8004_5439: try UserSlice.store(Int32(pair.isLocked ? 1 : 0), at: argument)
    case 0x5420:
      pair.isPacketMode = try UserSlice.load(argument, Int32(0)) != 0
      pair.packetEvents = 0
    case 0x8004_5438: try UserSlice.store(Int32(pair.isPacketMode ? 1 : 0), at: argument)
    case 0x4004_5436:
      guard argument >= 1, argument <= 31 else { throw .invalid }
      if pair.foreground > 0 { Terminal.jobControl?.signalGroup(pair.foreground, Int32(argument)) }
    case 0x541b: try UserSlice.store(Int32(pair.output.count), at: argument)
    case 0x540b: try flush(argument)
    // Who has the master has no controlling terminal in it.
    case 0x540e: throw .notPermitted
    default: return try pair.control(request, argument: argument, from: nil)
    }
    return 0
  }

  /// TCFLSH from this side: its input is the slave's output; its output the line discipline has already.
  private func flush(_ which: UInt) throws(Errno) {
    guard which <= 2 else { throw .invalid }
    if which != 1 {
      pair.output.dropFirst(pair.output.count)
      if !pair.queue.isEmpty { pair.queue.wake(Readiness.writable.rawValue) }
    }
  }

  /// TIOCGPTPEER (0x5441): opens the slave, locked or not.
  public func peer(flags: UInt32) -> OpenFile {
    let inode = TerminalMultiplexer.inode(pair.number) ?? inode
    let file = PseudoTerminalFile(pair, inode: inode, flags: flags)
    if let directory = PseudoTerminalDirectory.mounted {
      file.path = Path(inode: inode, name: decimal(UInt64(pair.number)), parent: directory)
    }
    return file
  }

  public override func released() {
    TerminalMultiplexer.remove(pair.number)
    pair.hangUp()
  }
}

/// The terminals of /dev/pts: what /dev/ptmx makes, and the console as number 0 where it is a terminal.
public enum TerminalMultiplexer {
  nonisolated(unsafe) private static var entries: [(terminal: Terminal, inode: Inode)?] = []
  /// /proc/sys/kernel/pty/max
  static let maximum = 4096
  /// The group `tty`, to which slaves belong (devpts: gid=5, mode=620).
  static let group: UInt32 = 5

  /// The console of the system, where that is a terminal.
  nonisolated(unsafe) public static var console: ConsoleTerminal?

  /// Opens /dev/ptmx: a new pair. ENOSPC.
  public static func open(inode: Inode, flags: UInt32) throws(Errno) -> PseudoTerminalMaster {
    var number = 0
    while number < entries.count, entries[number] != nil { number += 1 }
    guard number < maximum else { throw .noSpace }
    let pair = PseudoTerminal(number: number)
    add(pair, number, user: Terminal.jobControl?.currentUser ?? 0)
    return PseudoTerminalMaster(pair, inode: inode, flags: flags)
  }

  /// Puts a terminal of another kind into the directory; its number.
  public static func add(_ terminal: Terminal) -> Int {
    let number = entries.count
    add(terminal, number, user: 0)
    return number
  }

  private static func add(_ terminal: Terminal, _ number: Int, user: UInt32) {
    var status = FileStatus()
    status.device = PseudoTerminalDirectory.device
    // As devpts numbers them: 1 is the directory, 2 is ptmx.
    status.inode = UInt64(number) + 3
    status.mode = 0o020620
    status.user = user
    status.group = group
    status.rawDevice = deviceNumber(number)
    status.blockSize = 1024
    let now = host.realtimeNanoseconds
    status.accessed = now
    status.modified = now
    status.changed = now
    let entry = (terminal, PseudoTerminalInode(terminal, status: status) as Inode)
    if number == entries.count { entries.append(entry) } else { entries[number] = entry }
  }

  /// Major 136; a program's dev_t has the minor number's upper bits on top (makedev(3)).
  static func deviceNumber(_ number: Int) -> UInt64 {
    136 << 8 | UInt64(number & 0xff) | UInt64(number & ~0xff) << 12
  }

  /// ENXIO if there is none.
  public static func find(_ number: Int) -> Terminal? {
    number >= 0 && number < entries.count ? entries[number]?.terminal : nil
  }

  static func inode(_ number: Int) -> Inode? {
    number >= 0 && number < entries.count ? entries[number]?.inode : nil
  }

  /// The numbers in use, ascending: what /dev/pts lists.
  public static var numbers: [Int] {
    var result: [Int] = []
    for (number, entry) in entries.enumerated() where entry != nil { result.append(number) }
    return result
  }

  static func remove(_ number: Int) { entries[number] = nil }
}
