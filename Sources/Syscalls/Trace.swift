import ABI
import CMachine
import Processes
import Tasks

/// What `--trace` prints, a line a call, to the host's standard error.
public enum Trace {
  nonisolated(unsafe) public static var systemCalls = false
  nonisolated(unsafe) public static var missing = false
  /// A number that no call has: who calls it makes the libOS panic. Set by tests from outside only.
  nonisolated(unsafe) public static var panicNumber = -1

  /// The call as strace(1) has it, up to the closing parenthesis: made before it is served, while what its arguments
  /// point at is still there.
  static func begin(_ call: SystemCall) -> TraceLine {
    var line = TraceLine()
    line.text("[")
    line.number(Int(LinuxThread.running.tid))
    line.text("] ")
    let entry = TableEntry(CallTable.text, call.number)
    if let entry { line.add(entry.name) } else { line.call(call.number) }
    line.text("(")
    let values = [call.a, call.b, call.c, call.d, call.e, call.f]
    let kinds = entry.map { Array($0.rest) } ?? [0x61, 0x61, 0x61]
    var count = 0
    for kind in kinds where kind != 0x2d && count < 6 {
      if count > 0 { line.text(", ") }
      line.argument(kind, values[count])
      count += 1
    }
    line.text(")")
    // These do not come back.
    if call.number == 60 || call.number == 231 {
      line.text(" = ?")
      line.end()
    }
    return line
  }

  static func end(_ line: consuming TraceLine, result: UInt64) {
    var line = line
    line.text(" = ")
    line.result(Int(Int64(bitPattern: result)))
    line.end()
  }

  static func missing(_ call: SystemCall) {
    precondition(call.number != panicNumber || panicNumber < 0, "the panic that was asked for")
    guard missing else { return }
    var line = TraceLine()
    line.text("swiftlet: ")
    line.bytes(LinuxThread.running.process.name)
    line.text(" (")
    line.number(Int(LinuxThread.running.tid))
    line.text(") called ")
    if let entry = TableEntry(CallTable.text, call.number) {
      line.add(entry.name)
    } else {
      line.text("an unknown system call")
    }
    line.text(" (")
    line.number(call.number)
    line.text("), which is missing\n")
    line.flush()
  }

  static func fault(_ signal: Int32, _ frame: UnsafeMutablePointer<trap_frame>) {
    guard systemCalls else { return }
    var line = TraceLine()
    line.text("[")
    line.number(Int(LinuxThread.running.tid))
    line.text("] fault, signal ")
    line.number(Int(signal))
    line.text(" at 0x")
    line.hexadecimal(UInt(frame.pointee.rip))
    line.text(", address 0x")
    line.hexadecimal(UInt(frame.pointee.address))
    line.end()
  }
}

/// A line of a table: number, name, and what follows.
struct TableEntry {
  let name: UnsafeBufferPointer<UInt8>
  let rest: UnsafeBufferPointer<UInt8>

  /// The line that begins with `number`; nil if there is none.
  init?(_ table: StaticString, _ number: Int) {
    let text = UnsafeBufferPointer(start: table.utf8Start, count: table.utf8CodeUnitCount)
    var position = 0
    while position < text.count {
      let end = text[position...].firstIndex(of: 0x0a) ?? text.count
      var value = 0
      var at = position
      while at < end, text[at] != 0x20 {
        value = value &* 10 &+ Int(text[at]) &- 0x30
        at += 1
      }
      if value == number, at < end {
        let cut = text[(at + 1)..<end].firstIndex(of: 0x20) ?? end
        name = UnsafeBufferPointer(rebasing: text[(at + 1)..<cut])
        rest = UnsafeBufferPointer(rebasing: text[min(cut + 1, end)..<end])
        return
      }
      position = end + 1
    }
    return nil
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
  mutating func add(_ bytes: UnsafeBufferPointer<UInt8>) { content += bytes }
  public mutating func number(_ value: Int) {
    if value < 0 {
      content.append(0x2d)
      if value == .min { content.append(0x39) } else { number(-value) }
      return
    }
    if value >= 10 { number(value / 10) }
    content.append(UInt8(0x30 + value % 10))
  }
  public mutating func hexadecimal(_ value: UInt) { digits(value, 16) }

  private mutating func digits(_ value: UInt, _ base: UInt) {
    if value >= base { digits(value / base, base) }
    let digit = UInt8(value % base)
    content.append(digit < 10 ? 0x30 + digit : 0x57 + digit)
  }

  fileprivate mutating func call(_ number: Int) {
    text("syscall_0x")
    hexadecimal(UInt(bitPattern: number))
  }

  /// One argument by its letter in `CallTable`.
  fileprivate mutating func argument(_ kind: UInt8, _ value: UInt) {
    let word = Int(Int32(truncatingIfNeeded: value))
    switch kind {
    case 0x66: number(word)  // f
    case 0x44: if word == -100 { text("AT_FDCWD") } else { number(word) }  // D
    case 0x64: number(Int(bitPattern: value) == word ? word : Int(bitPattern: value))  // d
    case 0x73: digits(value, 10)  // s
    case 0x6f:  // o
      text("0")
      digits(UInt(UInt32(truncatingIfNeeded: value)), 8)
    case 0x70: string(value)  // p
    default:
      if value == 0, kind == 0x61 {
        text("NULL")
      } else {
        text("0x")
        hexadecimal(value)
      }
    }
  }

  /// A program's text in quotes, at most 64 bytes of it.
  private mutating func string(_ address: UInt) {
    guard address != 0, let content = try? UserSlice.string(address) else {
      argument(0x61, address)
      return
    }
    text("\"")
    for byte in content.prefix(64) {
      if byte == 0x22 || byte == 0x5c || byte < 0x20 || byte > 0x7e {
        text("\\x")
        digits(UInt(byte >> 4), 16)
        digits(UInt(byte & 15), 16)
      } else {
        self.content.append(byte)
      }
    }
    text(content.count > 64 ? "\"..." : "\"")
  }

  fileprivate mutating func result(_ value: Int) {
    guard value < 0, value >= -4095 else {
      if value >= 0, value < 1 << 32 {
        number(value)
      } else {
        text("0x")
        hexadecimal(UInt(bitPattern: value))
      }
      return
    }
    if value <= -512 {
      text("? (to be restarted)")
      return
    }
    text("-1 ")
    guard let error = TableEntry(ErrorTable.text, -value) else {
      number(-value)
      return
    }
    add(error.name)
    text(" (")
    add(error.rest)
    text(")")
  }

  public mutating func end() {
    content.append(0x0a)
    flush()
  }

  fileprivate mutating func flush() {
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
    content = []
  }
}
