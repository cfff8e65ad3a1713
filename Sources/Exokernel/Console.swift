import CExokernel

/// The serial port (16550 at 0x3f8), and QEMU's write-only ports where they are: what the exokernel says itself, and
/// the console of a libOS that has found no better one.
enum Console {
  static let port: UInt16 = 0x3f8
  /// Writes to this port reach the standard error of `swiftlet run`.
  static let errorPort: UInt16 = 0xe9
  nonisolated(unsafe) static var hasErrorPort = false

  static func prepare() {
    cpu_out8(port + 1, 0)
    cpu_out8(port + 3, 0x80)  // divisor
    cpu_out8(port, 1)
    cpu_out8(port + 1, 0)
    cpu_out8(port + 3, 3)  // 8 bits, no parity
    cpu_out8(port + 2, 0xc7)
    cpu_out8(port + 4, 0x0b)
    cpu_out8(port + 1, 1)  // interrupts when there is input
    // isa-debugcon answers a read with its own number.
    hasErrorPort = cpu_in8(errorPort) == 0xe9
  }

  static func write(_ stream: UInt64, _ bytes: UnsafeRawPointer, _ count: Int) {
    if stream == 2, hasErrorPort {
      cpu_out8_run(errorPort, bytes, UInt64(count))
      return
    }
    for i in 0..<count {
      while cpu_in8(port + 5) & 0x20 == 0 {}
      cpu_out8(port, bytes.load(fromByteOffset: i, as: UInt8.self))
    }
  }

  /// One byte of input, or nil.
  static func read() -> UInt8? { cpu_in8(port + 5) & 1 != 0 ? cpu_in8(port) : nil }
}

func say(_ text: StaticString) { Console.write(2, text.utf8Start, text.utf8CodeUnitCount) }

func say(hexadecimal value: UInt64) {
  say("0x")
  var shift: UInt64 = 64
  while shift > 0 {
    shift -= 4
    let nibble = UInt8((value >> shift) & 15)
    var digit = nibble < 10 ? 0x30 + nibble : 0x57 + nibble
    Console.write(2, &digit, 1)
  }
}

func say(decimal value: UInt64) {
  if value >= 10 { say(decimal: value / 10) }
  var digit = UInt8(0x30 + value % 10)
  Console.write(2, &digit, 1)
}

/// A broken invariant of the exokernel: says so and ends the machine with status 70 (sysexits EX_SOFTWARE).
func panic(_ text: StaticString) -> Never {
  say("swiftlet: exokernel panic: ")
  say(text)
  say("\n")
  PowerOff.end(status: 70)
}

/// The end of the machine.
enum PowerOff {
  /// Ends the machine; QEMU's isa-debug-exit at 0x501 tells the status (as `status << 1 | 1`) where it exists.
  static func end(status: UInt8) -> Never {
    cpu_out8(0x501, status)
    cpu_out16(0x604, 0x2000)  // ACPI PM1a control of QEMU's q35: S5
    device_store8(PhysicalMemory.direct + 0xfea0_0100, 0x34)  // microvm's ACPI sleep register: S5
    cpu_out8(0x64, 0xfe)  // keyboard controller: reset
    while true { cpu_halt() }
  }
}
