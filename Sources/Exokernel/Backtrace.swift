// Stacks have addresses, never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CExokernel

/// Return addresses for panics, a line each. `swiftlet run`, at whose standard error they arrive, puts the names of the
/// libOS's functions behind them.
enum Backtrace {
  /// Prints what looks like return addresses of the exokernel, innermost first.
  static func exokernel(_ stack: UInt64, _ end: UInt64) {
    var at = stack
    var printed = 0
    while at < end, printed < 24 {
      let value = UnsafePointer<UInt64>(bitPattern: UInt(at))!.pointee
      if value >= address_of_exokernel_text_start(), value < address_of_exokernel_text_end() {
        line(printed, value)
        printed += 1
      }
      at += 8
    }
  }

  /// Follows the libOS's chain of frame pointers.
  static func libOS(_ registers: exokernel_registers) {
    line(0, registers.rip)
    var pointer = registers.rbp
    var number = 1
    while number < 40, pointer & 7 == 0 {
      let place = LibOS.readable(pointer)
      guard place != 0, place & 4095 <= 4096 - 16 else { return }
      let (next, back) = (PhysicalMemory.words(place)[0], PhysicalMemory.words(place)[1])
      guard LibOS.isCode(back) else { return }
      line(number, back)
      guard next > pointer, next - pointer < 65536 else { return }
      pointer = next
      number += 1
    }
  }

  private static func line(_ number: Int, _ address: UInt64) {
    say("  #")
    say(decimal: UInt64(number))
    say(" ")
    say(hexadecimal: address)
    say("\n")
  }
}
