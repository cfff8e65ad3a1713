public import ABI
import Tasks

/// A terminal's file in /dev/pts.
final class PseudoTerminalInode: Inode {
  private let terminal: Terminal

  init(_ terminal: Terminal, status: FileStatus) {
    self.terminal = terminal
    super.init(status: status)
  }

  override func open(flags: UInt32) throws(Errno) -> OpenFile {
    try terminal.open(inode: self, flags: flags)
  }
  override func truncate(_ size: Int64) throws(Errno) {}
}

/// /dev/pts (devpts of pty(7)): the slaves that exist, and ptmx.
public final class PseudoTerminalDirectory: Inode {
  public static let device: UInt64 = 0x1c
  /// Where it is mounted: the place of slaves that are opened without a name (TIOCGPTPEER).
  nonisolated(unsafe) public static var mounted: Path?
  private let multiplexer: Inode

  public init() {
    var status = FileStatus()
    status.device = PseudoTerminalDirectory.device
    status.inode = 1
    status.mode = 0o040755
    status.links = 2
    let now = host.realtimeNanoseconds
    status.accessed = now
    status.modified = now
    status.changed = now
    var file = status
    file.inode = 2
    file.mode = 0o020666
    file.links = 1
    file.rawDevice = 5 << 8 | 2
    multiplexer = DeviceInode(status: file)
    super.init(status: status)
  }

  public override func lookup(_ name: [UInt8]) throws(Errno) -> Inode {
    if name == bytes("ptmx") { return multiplexer }
    guard !name.isEmpty, name.count <= 4, name.count == 1 || name[0] != 0x30 else { throw .noSuchFile }
    var number = 0
    for byte in name {
      guard byte >= 0x30, byte <= 0x39 else { throw .noSuchFile }
      number = number * 10 + Int(byte - 0x30)
    }
    guard let inode = TerminalMultiplexer.inode(number) else { throw .noSuchFile }
    return inode
  }

  public override func create(
    _ name: [UInt8], mode: UInt32, user: UInt32, group: UInt32, device: UInt64, target: [UInt8]
  ) throws(Errno) -> Inode { throw .accessDenied }
  public override func link(_ name: [UInt8], to inode: Inode) throws(Errno) { throw .notPermitted }
  public override func unlink(_ name: [UInt8], directory: Bool) throws(Errno) { throw .notPermitted }
  public override func rename(_ name: [UInt8], to newParent: Inode, as newName: [UInt8], flags: UInt32)
    throws(Errno)
  { throw .notPermitted }

  public override func open(flags: UInt32) throws(Errno) -> OpenFile {
    PseudoTerminalListing(inode: self, flags: flags)
  }
}

/// /dev/pts, opened; the offset is 1 behind `.`, 2 behind `..`, 3 behind ptmx, N + 4 behind N.
private final class PseudoTerminalListing: OpenFile {
  override func read(_ slice: UserSlice) throws(Errno) -> Int { throw .isDirectory }

  override func seek(_ offset: Int64, whence: Int32) throws(Errno) -> Int64 { try move(offset, whence) }

  override func readDirectory(_ slice: UserSlice) throws(Errno) -> Int {
    var output = DirectoryRecords(space: slice.count)
    let parent = path?.parent?.inode.status.inode ?? 1
    var entries: [(name: [UInt8], inode: UInt64, mode: UInt32, cookie: Int64)] = [
      (bytes("."), 1, 0o040000, 1), (bytes(".."), parent, 0o040000, 2), (bytes("ptmx"), 2, 0o020000, 3),
    ]
    for number in TerminalMultiplexer.numbers {
      entries.append((decimal(UInt64(number)), UInt64(number) + 3, 0o020000, Int64(number) + 4))
    }
    for entry in entries where entry.cookie > offset {
      guard output.add(entry.name, entry.inode, entry.mode, entry.cookie) else {
        if output.bytes.isEmpty { throw .invalid }
        break
      }
      offset = entry.cookie
    }
    try slice.store(output.bytes)
    return output.bytes.count
  }
}

/// /dev/tty, /dev/console and /dev/ptmx.
enum TerminalDevices {
  /// Major 5 and 136. ENXIO where there is none.
  static func open(_ inode: Inode, _ flags: UInt32) throws(Errno) -> OpenFile {
    switch inode.status.rawDevice {
    case 5 << 8:
      guard let terminal = Terminal.jobControl?.currentTerminal else { throw .noSuchDevice }
      return try terminal.open(inode: inode, flags: flags | 0o400)
    case 5 << 8 | 1:
      guard let console = TerminalMultiplexer.console else { return ConsoleFile(stream: 1) }
      return try console.open(inode: inode, flags: flags | 0o400)
    case 5 << 8 | 2: return try TerminalMultiplexer.open(inode: inode, flags: flags)
    default:
      let number = inode.status.rawDevice
      guard let terminal = TerminalMultiplexer.find(Int(number & 0xff | (number >> 12) & ~0xff)) else {
        throw .noSuchDevice
      }
      return try terminal.open(inode: inode, flags: flags)
    }
  }
}
