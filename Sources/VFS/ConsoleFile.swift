public import ABI
public import Tasks

/// What arrives on the host's standard input when that is no terminal: readers sleep here.
public final class ConsoleInput: DeviceDriver {
  nonisolated(unsafe) public static let shared = ConsoleInput()
  let queue = WaitQueue()
  /// Input has been seen since the last read that found none.
  var mayBeReady = false

  private init() {}

  /// Somebody who would read is told; the host keeps the bytes. Polling stops until somebody wants more, since the
  /// host's input stays ready.
  public func handleInput() {
    mayBeReady = true
    Devices.consoleReaders = 0
    queue.wake(Readiness.readable.rawValue)
  }

  /// Has the poller watch the host's input.
  func watch() {
    mayBeReady = false
    if Devices.consoleReaders == 0 {
      Devices.consoleReaders = 1
      if let poller = Devices.poller, poller !== Thread.current { host.wakePoller() }
    }
  }
}

/// Standard input, output or error of the system, when they are files or pipes of the host.
public final class ConsoleFile: OpenFile {
  private let stream: Int

  /// `stream`: 0 input, 1 output, 2 error.
  public init(stream: Int) {
    self.stream = stream
    super.init(inode: PipeInodes.anonymous(mode: 0o010600), flags: stream == 0 ? 0 : 1)
    if stream == 0 { Devices.console = ConsoleInput.shared }
  }

  public override var waitQueue: WaitQueue? { ConsoleInput.shared.queue }

  public override func readiness() -> Readiness {
    if stream != 0 { return .writable }
    let input = ConsoleInput.shared
    if !input.mayBeReady { input.watch() }
    return input.mayBeReady ? .readable : []
  }

  public override func read(_ slice: UserSlice) throws(Errno) -> Int {
    guard isReadable else { throw .badFileDescriptor }
    guard slice.count > 0 else { return 0 }
    let input = ConsoleInput.shared
    let size = min(slice.count, 65536)
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 16)
    defer { bytes.deallocate() }
    while true {
      do throws(Errno) {
        let count = try host.readConsole(bytes)
        try slice.copyOut(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
        return count
      } catch {
        guard error == .again else { throw error }
      }
      input.watch()
      if isNonblocking { throw .again }
      try input.queue.sleep()
    }
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
