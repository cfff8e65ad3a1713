public import ABI
public import Tasks

/// The host's terminal as ours: the host has put it into raw mode, lines are edited here.
public final class ConsoleTerminal: Terminal, DeviceDriver {
  /// Output that the host's terminal has not taken yet.
  private var output = PipeBuffer(capacity: 65536)
  private let retry = ConsoleRetry()
  /// Where the command writes the size of its terminal (struct winsize, read at once) and, once, IUTF8 if the
  /// terminal has it; nil without.
  private let size: UnsafePointer<UInt64>?
  private var number = 0

  /// Starts to listen to the host's terminal and becomes /dev/pts/0. `size` is valid for ever.
  public init(size: UnsafePointer<UInt64>?) {
    self.size = size
    super.init()
    retry.console = self
    window = currentSize
    if let size { settings.input |= UInt32(truncatingIfNeeded: size[1]) & 0x4000 }
    number = TerminalMultiplexer.add(self)
    Devices.console = self
    Devices.consoleReaders = 1
  }

  deinit { output.discard() }

  public override var deviceNumber: UInt64 { TerminalMultiplexer.deviceNumber(number) }
  /// Its file in /dev/pts.
  public var inode: Inode? { TerminalMultiplexer.inode(number) }

  private var currentSize: (rows: UInt16, columns: UInt16, width: UInt16, height: UInt16) {
    guard let size else { return (24, 80, 0, 0) }
    let value = size.pointee
    func part(_ shift: UInt64) -> UInt16 { UInt16(truncatingIfNeeded: value >> shift) }
    return (part(0), part(16), part(32), part(48))
  }

  /// The host says that the size has changed (SIGWINCH).
  public func updateSize() { if size != nil { resize(currentSize) } }

  public func handleInput() {
    var bytes = [UInt8](repeating: 0, count: 1024)
    // What no reader has room for stays with the host.
    while inputSpace > 0 {
      var count = 0
      var failure: Errno?
      bytes.withUnsafeMutableBytes { buffer in
        let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(inputSpace, buffer.count)])
        do throws(Errno) { count = try host.readConsole(part) } catch { failure = error }
      }
      if failure == .again { return }
      if failure == .interrupted { continue }
      if failure != nil || count <= 0 {
        Devices.consoleReaders = 0
        return hangUp()
      }
      receive(Array(bytes[..<min(count, bytes.count)]))
    }
    Devices.consoleReaders = 0
  }

  override func inputDrained() {
    guard Devices.consoleReaders == 0, !isHungUp, inputSpace > 0 else { return }
    Devices.consoleReaders = 1
    Devices.devicesChanged()
  }

  // MARK: Output

  override var displaySpace: Int { output.space }

  override func display(_ bytes: [UInt8]) -> Int {
    let taken = output.append(contentsOf: bytes)
    flush()
    return taken
  }

  override func flushDisplay() { output.dropFirst(output.count) }

  /// Hands over what the host's terminal takes, and looks again in a millisecond if that is not all: the host says
  /// nothing when it drains.
  fileprivate func flush() {
    let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 16)
    defer { chunk.deallocate() }
    while output.count > 0 {
      do throws(Errno) {
        let count = try output.peek(UserSlice(kernel: chunk))
        let part = UnsafeRawBufferPointer(rebasing: chunk[..<count])
        output.dropFirst(max(0, min(count, try host.writeConsole(1, part))))
      } catch {
        if error == .interrupted { continue }
        // A terminal that is gone takes nothing any more.
        guard error == .again else {
          output.dropFirst(output.count)
          break
        }
        return retry.arm(host.monotonicNanoseconds &+ 1_000_000)
      }
    }
    if !queue.isEmpty { queue.wake(Readiness.writable.rawValue) }
  }

  /// The end of the system: what was written before is still displayed, if the host takes it in five seconds.
  public func drain() {
    let deadline = host.monotonicNanoseconds &+ 5_000_000_000
    while output.count > 0, host.monotonicNanoseconds < deadline {
      flush()
      if output.count > 0 { host.yield() }
    }
  }
}

private final class ConsoleRetry: Timer {
  unowned(unsafe) var console: ConsoleTerminal?
  override func fire(now: UInt64) { console?.flush() }
}
