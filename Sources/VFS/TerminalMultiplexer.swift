public import ABI
public import Tasks

/// The slave side of a pseudo-terminal (pty(7)): its display is what the master reads.
public final class PseudoTerminal: Terminal {
  /// N of /dev/pts/N.
  public let number: Int
  /// TIOCSPTLCK: the slave cannot be opened while it is locked.
  public internal(set) var isLocked = true
  var output = PipeBuffer(capacity: 65536)
  let masterQueue = WaitQueue()
  var slaves = 0
  var hadSlave = false

  init(number: Int) { self.number = number }

  deinit { output.discard() }

  override var displaySpace: Int { output.space }

  override func display(_ bytes: [UInt8]) -> Int {
    var taken = 0
    for byte in bytes {
      guard output.append(byte) else { break }
      taken += 1
    }
    if taken > 0, !masterQueue.isEmpty { masterQueue.wake(Readiness.readable.rawValue) }
    return taken
  }

  override func inputDrained() {
    if !masterQueue.isEmpty { masterQueue.wake(Readiness.writable.rawValue) }
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
    super.init(inode: inode, flags: flags)
  }

  private var isHungUp: Bool { pair.hadSlave && pair.slaves == 0 }

  public override var waitQueue: WaitQueue? { pair.masterQueue }

  public override func readiness() -> Readiness {
    var result: Readiness = []
    if pair.output.count > 0 { result.insert(.readable) }
    if pair.inputSpace > 0 { result.insert(.writable) }
    if isHungUp { result.insert(.hangup) }
    return result
  }

  /// EIO when no slave is open any more and everything is read.
  public override func read(_ slice: UserSlice) throws(Errno) -> Int {
    guard slice.count > 0 else { return 0 }
    while pair.output.count == 0 {
      if isHungUp { throw .inputOutput }
      if isNonblocking { throw .again }
      try pair.masterQueue.sleep()
    }
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

  /// TIOCGPTN, TIOCSPTLCK, TIOCGPTLCK, and what both sides share. TIOCGPTPEER makes a file: see `peer`.
  public override func control(_ request: UInt32, argument: UInt) throws(Errno) -> Int {
    switch request {
    case 0x8004_5430: try UserSlice.store(UInt32(pair.number), at: argument)
    case 0x4004_5431: pair.isLocked = try UserSlice.load(argument, Int32(0)) != 0
    case 0x8004_5439: try UserSlice.store(Int32(pair.isLocked ? 1 : 0), at: argument)
    case 0x541b: try UserSlice.store(Int32(pair.output.count), at: argument)
    case 0x5401, 0x5402, 0x5403, 0x5404, 0x5413, 0x5414:
      // The master has the slave's settings; opening it must not take the terminal (O_NOCTTY).
      return try TerminalFile(pair, inode: inode, flags: 0o402).control(request, argument: argument)
    default: throw .notTerminal
    }
    return 0
  }

  /// TIOCGPTPEER (0x5441): opens the slave, locked or not.
  public func peer(flags: UInt32) -> OpenFile {
    PseudoTerminalFile(pair, inode: TerminalMultiplexer.inode(of: pair.number), flags: flags)
  }

  public override func released() {
    pair.hangUp()
    TerminalMultiplexer.remove(pair)
  }
}

/// The pseudo-terminals that exist: what /dev/ptmx and /dev/pts open.
public enum TerminalMultiplexer {
  nonisolated(unsafe) private static var pairs: [PseudoTerminal?] = []
  /// /proc/sys/kernel/pty/max
  static let maximum = 4096

  /// Opens /dev/ptmx: a new pair. ENOSPC.
  public static func open(inode: Inode, flags: UInt32) throws(Errno) -> PseudoTerminalMaster {
    var number = 0
    while number < pairs.count, pairs[number] != nil { number += 1 }
    guard number < maximum else { throw .noSpace }
    let pair = PseudoTerminal(number: number)
    if number == pairs.count { pairs.append(pair) } else { pairs[number] = pair }
    return PseudoTerminalMaster(pair, inode: inode, flags: flags)
  }

  /// Opens /dev/pts/`number`: ENOENT if there is none, EIO while it is locked.
  public static func openSlave(_ number: Int, inode: Inode, flags: UInt32) throws(Errno) -> OpenFile {
    guard let pair = find(number) else { throw .noSuchFile }
    guard !pair.isLocked else { throw .inputOutput }
    return PseudoTerminalFile(pair, inode: inode, flags: flags)
  }

  public static func find(_ number: Int) -> PseudoTerminal? {
    number >= 0 && number < pairs.count ? pairs[number] : nil
  }

  /// The numbers in use, ascending: what /dev/pts lists.
  public static var numbers: [Int] {
    var result: [Int] = []
    for (number, pair) in pairs.enumerated() where pair != nil { result.append(number) }
    return result
  }

  static func remove(_ pair: PseudoTerminal) { pairs[pair.number] = nil }

  static func inode(of number: Int) -> Inode {
    let inode = PipeInodes.anonymous(mode: 0o020620)
    inode.status.rawDevice = 136 << 8 | UInt64(number)
    return inode
  }
}
