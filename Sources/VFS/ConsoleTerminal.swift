public import ABI
public import Tasks

/// The host's terminal as ours: the host has put it into raw mode, lines are edited here.
public final class ConsoleTerminal: Terminal, DeviceDriver {
  private static let attempts = 10_000

  /// Starts to listen to the host's terminal. `window` is its size in rows and columns.
  public init(rows: UInt16, columns: UInt16) {
    super.init()
    window = (rows, columns, 0, 0)
    Devices.console = self
    Devices.consoleReaders = 1
  }

  public func handleInput() {
    var bytes = [UInt8](repeating: 0, count: 1024)
    while true {
      var count = 0
      var failure: Errno?
      bytes.withUnsafeMutableBytes { buffer in
        do throws(Errno) { count = try host.readConsole(buffer) } catch { failure = error }
      }
      if failure == .again { return }
      if failure == .interrupted { continue }
      if failure != nil || count <= 0 {
        Devices.consoleReaders = 0
        return hangUp()
      }
      receive(Array(bytes[..<min(count, bytes.count)]))
      if count < bytes.count { return }
    }
  }

  override func display(_ bytes: [UInt8]) -> Int {
    var done = 0
    var attempts = 0
    bytes.withUnsafeBytes { buffer in
      while done < buffer.count, attempts < ConsoleTerminal.attempts {
        do throws(Errno) {
          done += try host.writeConsole(1, UnsafeRawBufferPointer(rebasing: buffer[done...]))
        } catch {
          // A terminal drains by itself; one that is gone does not.
          if error != .again, error != .interrupted { return }
          attempts += 1
          host.yield()
        }
      }
    }
    return done
  }

  /// /dev/console or standard input, output and error of the first process.
  public func open(inode: Inode, flags: UInt32) -> TerminalFile {
    TerminalFile(self, inode: inode, flags: flags)
  }
}
