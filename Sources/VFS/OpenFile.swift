public import ABI
public import Tasks

/// What an open file is ready for, as epoll(7) and poll(2) number it.
public struct Readiness: OptionSet, Sendable {
  public let rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
  @inlinable public static var readable: Readiness { Readiness(rawValue: 0x1) }
  @inlinable public static var priority: Readiness { Readiness(rawValue: 0x2) }
  @inlinable public static var writable: Readiness { Readiness(rawValue: 0x4) }
  @inlinable public static var error: Readiness { Readiness(rawValue: 0x8) }
  @inlinable public static var hangup: Readiness { Readiness(rawValue: 0x10) }
  @inlinable public static var readHangup: Readiness { Readiness(rawValue: 0x2000) }
}

/// An open file description (open(2), NOTES): what descriptors refer to, after `dup` and `fork` several of them.
///
/// Subclasses: regular files and directories, pipes, sockets, terminals, event files. Kernel lock held for every
/// call; calls that must wait sleep on a `WaitQueue` (which gives the lock up) unless `isNonblocking`.
open class OpenFile {
  /// Access mode and status flags (O_APPEND, O_NONBLOCK, …), as open(2) numbers them.
  public final var flags: UInt32
  /// The next byte that read(2) and write(2) use, for files that have an offset.
  public final var offset: Int64 = 0
  /// The file's inode; anonymous files (epoll, eventfd) have one of their own for fstat(2).
  public final let inode: Inode
  /// The path it was opened by, for /proc/PID/fd, maps and *at calls.
  public final var path: Path?
  /// Descriptors that refer to this description. `released()` is called when it becomes 0.
  public final var references = 0 {
    didSet {
      if oldValue == 0 { inode.opened(by: self) } else if references == 0 { inode.closed(by: self) }
    }
  }
  /// Who gets SIGIO or `signal` when it becomes ready (fcntl(2), F_SETOWN and O_ASYNC); in its wait queue.
  public final var asynchronous: Waiter?
  /// F_SETOWN_EX: 0 thread, 1 process, 2 group; and its number.
  public final var ownerKind: Int32 = 1
  public final var signalOwner: Int32 = 0
  /// The descriptor that O_ASYNC was set by, for si_fd.
  public final var signalDescriptor: Int32 = 0
  /// F_NOTIFY's watch.
  public final var directoryWatch: DirectoryWatch?
  /// F_SETSIG, 0 for SIGIO.
  public final var ownerSignal: Int32 = 0
  /// The epoll items that watch this description; `Epoll.forget` empties it when the description is released.
  public final var watchers: EpollItem?

  public init(inode: Inode, flags: UInt32) {
    self.inode = inode
    self.flags = flags
  }

  public final var isNonblocking: Bool { flags & 0o4000 != 0 }
  public final var isReadable: Bool { flags & 3 != 1 }
  public final var isWritable: Bool { flags & 3 != 0 }

  /// What read(2) and write(2) do after a transfer at the offset; the count.
  public final func advance(by count: Int) -> Int {
    offset += Int64(count)
    return count
  }

  /// Reads at the offset, moves it, and says how many bytes; 0 at the end. EOF, EAGAIN, EINTR as read(2).
  open func read(_ slice: UserSlice) throws(Errno) -> Int { throw .invalid }
  open func write(_ slice: UserSlice) throws(Errno) -> Int { throw .invalid }
  /// pread(2), pwrite(2): ESPIPE where there is no offset.
  open func read(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int { throw .illegalSeek }
  open func write(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int { throw .illegalSeek }
  open func seek(_ offset: Int64, whence: Int32) throws(Errno) -> Int64 { throw .illegalSeek }
  /// What `seek` does for SEEK_SET, SEEK_CUR and, in files that have an end, SEEK_END (lseek(2)): the new offset.
  /// EINVAL for others, and for a place before the start or past all numbers.
  public final func move(_ offset: Int64, _ whence: Int32, end: Int64? = nil) throws(Errno) -> Int64 {
    let base: Int64
    switch (whence, end) {
    case (0, _): base = 0
    case (1, _): base = self.offset
    case (2, let end?): base = end
    default: throw .invalid
    }
    let (place, overflow) = base.addingReportingOverflow(offset)
    guard !overflow, place >= 0 else { throw .invalid }
    self.offset = place
    return place
  }

  open func control(_ request: UInt32, argument: UInt) throws(Errno) -> Int { throw .notTerminal }
  open func readiness() -> Readiness { [.readable, .writable] }
  /// Woken when `readiness` may have changed; nil for files that are always ready.
  open var waitQueue: WaitQueue? { nil }
  open func synchronize() throws(Errno) { throw .invalid }
  /// fdatasync(2)
  open func synchronizeData() throws(Errno) { try synchronize() }
  /// getdents64(2).
  open func readDirectory(_ slice: UserSlice) throws(Errno) -> Int { throw .notDirectory }
  /// The last descriptor is gone.
  open func released() {}
  /// What /proc/PID/fd shows behind `anon_inode:` for a file without name and type.
  open var anonymousName: StaticString { "[none]" }

  /// What readlink(2) of /proc/PID/fd tells.
  public final var linkText: [UInt8] {
    if let path, path.parent != nil || inode.isDirectory {
      let text = path.absolute
      // A file of memory has its mark in its name already.
      let isMarked = text.count > 10 && Array(text[(text.count - 10)...]) == bytes(" (deleted)")
      return inode.status.links == 0 && !isMarked ? text + bytes(" (deleted)") : text
    }
    var text: [UInt8]
    switch inode.type {
    case 0o010000: text = bytes("pipe:[")
    case 0o140000: text = bytes("socket:[")
    case 0o020000: return bytes("/dev/pts/") + decimal(inode.status.rawDevice & 0xff)
    default: return bytes("anon_inode:") + bytes(anonymousName)
    }
    text += decimal(inode.status.inode)
    text.append(0x5d)
    return text
  }
}
