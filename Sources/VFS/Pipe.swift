public import ABI
public import Tasks

/// Inodes of files that have no name: pipes, sockets, event files (fstat(2) wants something to tell).
public enum PipeInodes {
  nonisolated(unsafe) private static var next: UInt64 = 1
  /// User and group of the calling process, who own what it makes; set at start.
  nonisolated(unsafe) public static var owner: (() -> (user: UInt32, group: UInt32))? = nil

  /// A new inode of `mode` (type and permissions) on the nameless device.
  public static func anonymous(mode: UInt32) -> Inode { Inode(status: status(mode: mode)) }

  static func status(mode: UInt32) -> FileStatus {
    var status = FileStatus()
    status.device = 0xd
    status.inode = next
    next &+= 1
    status.mode = mode
    let now = host.realtimeNanoseconds
    status.accessed = now
    status.modified = now
    status.changed = now
    if let owner {
      let (user, group) = owner()
      status.user = user
      status.group = group
    }
    return status
  }
}

/// The inode of a pipe(7): opening it by /proc/PID/fd gives another end of the pipe, without waiting.
final class PipeInode: Inode {
  private let pipe: Pipe

  init(_ pipe: Pipe) {
    self.pipe = pipe
    super.init(status: PipeInodes.status(mode: 0o010600))
  }

  override func open(flags: UInt32) throws(Errno) -> OpenFile { PipeFile(pipe, inode: self, flags: flags) }
}

/// What the two sides of a pipe(7) or a fifo(7) share. Kernel lock held for every call.
public final class Pipe {
  /// PIPE_BUF: writes up to this size are not torn.
  public static let atomicSize = 4096
  public static let defaultCapacity = 65536
  /// /proc/sys/fs/pipe-max-size
  public static let maximalCapacity = 1_048_576

  var buffer = PipeBuffer(capacity: Pipe.defaultCapacity)
  let readQueue = WaitQueue()
  let writeQueue = WaitQueue()
  /// Where openers of a FIFO wait for the other side.
  let openQueue = WaitQueue()
  var readers = 0
  var writers = 0
  /// Open files that read and write; they wait on `readQueue` for both.
  var duplexes = 0
  /// How often a side was opened, so that a blocked opener notices somebody who has come and gone.
  var readerOpens: UInt64 = 0
  var writerOpens: UInt64 = 0

  public init() {}

  /// pipe2(2): `flags` may hold O_NONBLOCK and O_DIRECT (ignored).
  public static func make(flags: UInt32 = 0) -> (reader: PipeFile, writer: PipeFile) {
    let pipe = Pipe()
    let inode = PipeInode(pipe)
    return (
      PipeFile(pipe, inode: inode, flags: flags & 0o4000),
      PipeFile(pipe, inode: inode, flags: flags & 0o4000 | 1)
    )
  }

  /// open(2) of a FIFO whose inode owns this pipe; waits for the other side as fifo(7) says. EINTR; ENXIO for
  /// O_WRONLY | O_NONBLOCK without a reader.
  public func openFIFO(inode: Inode, flags: UInt32) throws(Errno) -> OpenFile {
    let access = flags & 3
    let isNonblocking = flags & 0o4000 != 0
    if access == 1, isNonblocking, readers == 0 { throw .noSuchDevice }
    let file = PipeFile(self, inode: inode, flags: flags)
    openQueue.wake()
    let (readersBefore, writersBefore) = (readerOpens, writerOpens)
    do throws(Errno) {
      if access == 0, !isNonblocking {
        while writers == 0, writerOpens == writersBefore { try openQueue.sleep() }
      } else if access == 1 {
        while readers == 0, readerOpens == readersBefore { try openQueue.sleep() }
      }
    } catch {
      file.released()
      throw error
    }
    return file
  }

  func wakeReaders(_ events: Readiness, all: Bool = false) {
    if !readQueue.isEmpty { readQueue.wake(events.rawValue, exclusive: all ? .max : 1) }
  }

  func wakeWriters(_ events: Readiness, all: Bool = false) {
    if !writeQueue.isEmpty { writeQueue.wake(events.rawValue, exclusive: all ? .max : 1) }
    if duplexes > 0, !readQueue.isEmpty { readQueue.wake(events.rawValue) }
  }

  func read(_ slice: UserSlice, isNonblocking: Bool) throws(Errno) -> Int {
    guard slice.count > 0 else { return 0 }
    var slept = false
    while buffer.count == 0 {
      if writers == 0 { return 0 }
      if isNonblocking { throw .again }
      slept = true
      try readQueue.sleep(exclusive: duplexes == 0)
    }
    let wasFull = buffer.space < Pipe.atomicSize
    let amount = try buffer.take(slice)
    // One writer is let in when an atomic write fits; it lets in the next.
    if wasFull, buffer.space >= Pipe.atomicSize { wakeWriters(.writable) }
    // Who was woken alone lets in the next; for others nothing has changed (EPOLLET).
    if slept, buffer.count > 0 { wakeReaders(.readable) }
    return amount
  }

  func write(_ slice: UserSlice, isNonblocking: Bool) throws(Errno) -> Int {
    guard slice.count > 0 else { return 0 }
    var rest = slice
    do throws(Errno) {
      while rest.count > 0 {
        if readers == 0 { throw .brokenPipe }
        let needed = slice.count <= Pipe.atomicSize ? slice.count : 1
        if buffer.space < needed {
          if isNonblocking { throw .again }
          try writeQueue.sleep(exclusive: duplexes == 0)
          continue
        }
        rest.advance(try buffer.append(rest))
        wakeReaders(.readable)
      }
    } catch {
      if rest.count == slice.count { throw error }
    }
    if buffer.space >= Pipe.atomicSize, !writeQueue.isEmpty { wakeWriters(.writable) }
    return slice.count - rest.count
  }
}

/// One open side of a pipe (both, for a FIFO that was opened O_RDWR).
public final class PipeFile: OpenFile {
  public let pipe: Pipe
  private let writersAtOpen: UInt64

  init(_ pipe: Pipe, inode: Inode, flags: UInt32) {
    self.pipe = pipe
    writersAtOpen = pipe.writerOpens
    super.init(inode: inode, flags: flags)
    if isReadable {
      pipe.readers += 1
      pipe.readerOpens &+= 1
    }
    if isWritable {
      pipe.writers += 1
      pipe.writerOpens &+= 1
    }
    if isReadable && isWritable { pipe.duplexes += 1 }
  }

  public override func read(_ slice: UserSlice) throws(Errno) -> Int {
    guard isReadable else { throw .badFileDescriptor }
    return try pipe.read(slice, isNonblocking: isNonblocking)
  }

  public override func write(_ slice: UserSlice) throws(Errno) -> Int {
    guard isWritable else { throw .badFileDescriptor }
    return try pipe.write(slice, isNonblocking: isNonblocking)
  }

  public override func readiness() -> Readiness {
    var result: Readiness = []
    if isReadable {
      if pipe.buffer.count > 0 { result.insert(.readable) }
      // A FIFO that no writer has opened yet is not hung up (poll(2)).
      if pipe.writers == 0, pipe.writerOpens != writersAtOpen { result.insert(.hangup) }
    }
    if isWritable {
      if pipe.buffer.space >= Pipe.atomicSize { result.insert(.writable) }
      if pipe.readers == 0 { result.insert(.error) }
    }
    return result
  }

  public override var waitQueue: WaitQueue? { isReadable ? pipe.readQueue : pipe.writeQueue }

  /// FIONREAD.
  public override func control(_ request: UInt32, argument: UInt) throws(Errno) -> Int {
    guard request == 0x541b else { throw .notTerminal }
    try UserSlice.store(Int32(pipe.buffer.count), at: argument)
    return 0
  }

  /// F_GETPIPE_SZ, in bytes.
  public var capacity: Int { pipe.buffer.capacity }

  /// F_SETPIPE_SZ: rounds up to a power of two of at least a page. EBUSY when the contents would not fit, EPERM
  /// above the maximum.
  public func setCapacity(_ bytes: Int) throws(Errno) -> Int {
    guard bytes >= 0 else { throw .invalid }
    guard bytes <= Pipe.maximalCapacity else { throw .notPermitted }
    var size = 4096
    while size < bytes { size *= 2 }
    try pipe.buffer.setCapacity(size)
    if pipe.buffer.space >= Pipe.atomicSize { pipe.wakeWriters(.writable) }
    return size
  }

  public override func released() {
    if isReadable && isWritable { pipe.duplexes -= 1 }
    if isReadable {
      pipe.readers -= 1
      if pipe.readers == 0 { pipe.wakeWriters([.error, .writable], all: true) }
    }
    if isWritable {
      pipe.writers -= 1
      if pipe.writers == 0 { pipe.wakeReaders([.hangup, .readable], all: true) }
    }
    if pipe.readers == 0, pipe.writers == 0 { pipe.buffer.discard() }
  }
}
