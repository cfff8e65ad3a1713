public import ABI
public import Tasks

/// What arrives on the host's standard input when that is no terminal: readers sleep here.
public final class ConsoleInput: DeviceDriver {
  nonisolated(unsafe) public static let shared = ConsoleInput()
  let queue = WaitQueue()
  var buffer = PipeBuffer(capacity: 65536)
  var hasEnded = false

  private init() {}

  /// Fetches what is there. The host is not watched any more until somebody wants more.
  public func handleInput() {
    fill()
    guard buffer.count > 0 || hasEnded else { return }
    Devices.consoleReaders = 0
    if !queue.isEmpty { queue.wake(Readiness.readable.rawValue) }
  }

  var isReadable: Bool { buffer.count > 0 || hasEnded }

  private func fill() {
    guard !isReadable else { return }
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 16384, alignment: 16)
    defer { bytes.deallocate() }
    do throws(Errno) {
      let count = try host.readConsole(bytes)
      if count <= 0 { hasEnded = true }
      let read = UnsafeMutableRawBufferPointer(rebasing: bytes[..<max(0, min(count, bytes.count))])
      _ = try buffer.append(UserSlice(kernel: read))
    } catch {
      if error != .again, error != .interrupted { hasEnded = true }
    }
  }

  /// Looks whether there is input; has the poller watch for it if not.
  func watch() {
    fill()
    guard !isReadable, Devices.consoleReaders == 0 else { return }
    Devices.consoleReaders = 1
    Devices.devicesChanged()
  }
}

/// Standard input, output or error of the system, when they are files or pipes of the host.
public final class ConsoleFile: OpenFile {
  private let stream: Int

  /// `stream`: 0 input, 1 output, 2 error.
  public convenience init(stream: Int) {
    self.init(stream: stream, inode: ConsoleInode(stream: stream), flags: stream == 0 ? 0 : 1)
  }

  fileprivate init(stream: Int, inode: Inode, flags: UInt32) {
    self.stream = stream
    super.init(inode: inode, flags: flags)
    if stream == 0 { Devices.console = ConsoleInput.shared }
  }

  public override var waitQueue: WaitQueue? { ConsoleInput.shared.queue }

  public override func readiness() -> Readiness {
    if stream != 0 { return .writable }
    let input = ConsoleInput.shared
    input.watch()
    return input.isReadable ? .readable : []
  }

  public override func read(_ slice: UserSlice) throws(Errno) -> Int {
    guard isReadable else { throw .badFileDescriptor }
    guard slice.count > 0 else { return 0 }
    let input = ConsoleInput.shared
    input.watch()
    while !input.isReadable {
      if isNonblocking { throw .again }
      try input.queue.sleep()
      input.watch()
    }
    // Nothing is left at the end: 0.
    return try input.buffer.take(slice)
  }

  public override func write(_ slice: UserSlice) throws(Errno) -> Int {
    guard isWritable else { throw .badFileDescriptor }
    let bytes = UnsafeMutableRawBufferPointer.allocate(
      byteCount: min(max(slice.count, 1), 65536), alignment: 16)
    defer { bytes.deallocate() }
    var rest = slice
    while rest.count > 0 {
      let size = min(rest.count, bytes.count)
      let chunk = UnsafeMutableRawBufferPointer(rebasing: bytes[..<size])
      do throws(Errno) {
        try rest.copyIn(chunk)
        rest.advance(try host.writeConsole(stream, UnsafeRawBufferPointer(chunk)))
      } catch {
        if error == .again, !isNonblocking || rest.count < slice.count {
          if isNonblocking { break }
          try pause(hasWritten: slice.count - rest.count)
          continue
        }
        if rest.count < slice.count { break }
        throw error
      }
    }
    return slice.count - rest.count
  }

  /// The host's output is full and says nothing when it drains: look again in a millisecond.
  private func pause(hasWritten: Int) throws(Errno) {
    do throws(Errno) {
      try WaitQueue().sleep(deadline: host.monotonicNanoseconds &+ 1_000_000, interruptible: hasWritten == 0)
    } catch {
      if error != .timedOut { throw error }
    }
  }
}

/// A stream of the host's as a file: /dev/stdin, /dev/stdout and /dev/stderr open it again.
private final class ConsoleInode: Inode {
  private let stream: Int

  init(stream: Int) {
    self.stream = stream
    super.init(status: PipeInodes.status(mode: 0o010600))
  }

  /// EACCES for the direction that the host's stream does not have.
  override func open(flags: UInt32) throws(Errno) -> OpenFile {
    guard flags & 3 == 2 || (flags & 3 == 0) == (stream == 0) else { throw .accessDenied }
    let access: UInt32 = stream == 0 ? 0 : 1
    return ConsoleFile(stream: stream, inode: self, flags: flags & ~3 | access)
  }
}
