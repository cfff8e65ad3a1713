// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CHostCore
import CLinuxHost
import CMachine
import HostCore
import Image

/// The end of a libOS that has found itself broken: what it was doing goes to standard error, then the unikernel ends
/// with status 70 (sysexits(3), EX_SOFTWARE). Nothing here uses the heap, which may be what broke.
public enum Panic {
  /// Prints what the libOS knows of the running thread; set at start.
  nonisolated(unsafe) public static var describeThread: (() -> Void)? = nil
  /// The image's executable, for its symbols.
  nonisolated(unsafe) static var image = UnsafeRawBufferPointer(start: nil, count: 0)
  nonisolated(unsafe) private static var hasBegun: UInt32 = 0

  static func begin() {
    // A second panic, of this one's own doing or of another process.
    if machine_exchange(&hasBegun, 1) != 0 { LinuxHost.endEverything(status: 70) }
    say("swiftlet: panic: ")
  }

  /// A signal in the libOS's own code.
  static func trap(
    _ signal: Int32, _ context: UnsafeMutablePointer<host_ucontext>,
    _ information: UnsafePointer<host_siginfo>
  ) -> Never {
    begin()
    let address = information.pointee.address
    let stack = machine_current_block().map { UInt64(ThreadStack.base($0)) } ?? 0
    switch signal {
    case 4, 5: say("a check failed in the libOS")
    case 31: say("a system call that the seal refuses, number ")
    case 11 where address &- stack &- UInt64(ThreadStack.guardOffset) < 4096:
      say("the libOS's stack overflowed")
    case 11, 7:
      say("a fault in the libOS, address ")
      sayHexadecimal(address)
    default:
      say("in the libOS, signal ")
      sayDecimal(Int(signal))
    }
    if signal == 31 { sayDecimal(Int(information.pointee.system_call)) }
    say("\n")
    registers(context.pointee)
    frame(0, context.pointee.rip)
    // The function that faulted may not have made its frame yet: the word on top of the stack is then its caller.
    walk(context.pointee.rbp)
    finish()
  }

  /// The thread, then the end.
  static func finish() -> Never {
    if machine_current_block() != nil { describeThread?() }
    say("swiftlet: this is a bug in the libOS; the unikernel ends with status 70\n")
    LinuxHost.endEverything(status: 70)
  }

  private static func registers(_ context: host_ucontext) {
    register("  rip ", context.rip)
    register(" rsp ", context.rsp)
    register(" rbp ", context.rbp)
    register("\n  rax ", context.rax)
    register(" rdi ", context.rdi)
    register(" rsi ", context.rsi)
    register("\n  rdx ", context.rdx)
    register(" rcx ", context.rcx)
    register(" rbx ", context.rbx)
    say("\n")
  }

  private static func register(_ name: StaticString, _ value: UInt64) {
    say(name)
    sayHexadecimal(value)
  }

  /// Follows the chain of frame pointers through the libOS's stack.
  static func walk(_ start: UInt64) {
    var pointer = start
    var number = 1
    let arena = UInt64(Arena.address)
    while number < 40, pointer & 7 == 0, pointer >= arena, pointer < arena + 1 << 44 {
      let words = UnsafePointer<UInt64>(bitPattern: UInt(pointer))!
      let (next, back) = (words[0], words[1])
      guard back >= address_of_image_start(), back < address_of_data_start() else { return }
      frame(number, back)
      guard next > pointer, next - pointer < 65536 else { return }
      pointer = next
      number += 1
    }
  }

  private static func frame(_ number: Int, _ address: UInt64) {
    say("  #")
    sayDecimal(number)
    say(" ")
    sayHexadecimal(address)
    if let symbol = SymbolTable(image)?.name(of: address) {
      say(" ")
      var isFirst = true
      symbol.forEachPart { text, count in
        if !isFirst { say(".") }
        isFirst = false
        sayText(text, count)
      }
      say(" ")
      sayText(symbol.text, symbol.count)
    }
    say("\n")
  }

  private static func sayText(_ text: UnsafePointer<UInt8>, _ count: Int) {
    _ = LinuxCall.raw(LinuxCall.write, 2, Int(bitPattern: text), count)
  }
}
