import ABI
import CMachine
import Processes
import Tasks

/// What `--trace` prints, a line a call, to the host's standard error.
public enum Trace {
  nonisolated(unsafe) public static var systemCalls = false
  nonisolated(unsafe) public static var missing = false

  static func print(_ call: SystemCall) {
    var line = TraceLine()
    line.number(Int(LinuxThread.running.tid))
    line.text(" call ")
    line.number(call.number)
    line.text("(")
    for value in [call.a, call.b, call.c, call.d, call.e, call.f] {
      line.hexadecimal(value)
      line.text(" ")
    }
    line.text(") = ")
    line.number(Int(Int64(bitPattern: call.frame.pointee.rax)))
    line.end()
  }

  static func missing(_ call: SystemCall) {
    guard missing || systemCalls else { return }
    var line = TraceLine()
    line.text("swiftlet: ")
    line.bytes(LinuxThread.running.process.name)
    line.text(" called missing system call ")
    line.number(call.number)
    line.end()
  }

  static func fault(_ signal: Int32, _ frame: UnsafeMutablePointer<trap_frame>) {
    guard systemCalls else { return }
    var line = TraceLine()
    line.number(Int(LinuxThread.running.tid))
    line.text(" fault, signal ")
    line.number(Int(signal))
    line.text(" at ")
    line.hexadecimal(UInt(frame.pointee.rip))
    line.text(" address ")
    line.hexadecimal(UInt(frame.pointee.address))
    line.end()
  }
}

/// A line for the host's standard error.
public struct TraceLine {
  private var content: [UInt8] = []

  public init() {}

  public mutating func text(_ text: StaticString) {
    for i in 0..<text.utf8CodeUnitCount { content.append(text.utf8Start[i]) }
  }
  public mutating func bytes(_ bytes: [UInt8]) { content += bytes }
  public mutating func number(_ value: Int) {
    if value < 0 {
      content.append(0x2d)
      number(-value)
      return
    }
    if value >= 10 { number(value / 10) }
    content.append(UInt8(0x30 + value % 10))
  }
  public mutating func hexadecimal(_ value: UInt) {
    if value >= 16 { hexadecimal(value / 16) }
    let digit = UInt8(value % 16)
    content.append(digit < 10 ? 0x30 + digit : 0x57 + digit)
  }
  public mutating func end() {
    content.append(0x0a)
    content.withUnsafeBytes { bytes in
      var done = 0
      // Nothing of a trace is lost to a slow reader: everything waits for it.
      while done < bytes.count {
        do throws(Errno) {
          done += try host.writeConsole(2, UnsafeRawBufferPointer(rebasing: bytes[done...]))
        } catch {
          guard error == .again || error == .interrupted else { return }
          host.yield()
        }
      }
    }
  }
}
