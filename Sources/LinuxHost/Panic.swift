// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CHostCore
import CLinuxHost
import CMachine
import HostCore

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
    if let symbol = Symbols(image)?.name(of: address) {
      say(" ")
      sayNames(symbol)
      say(" ")
      sayText(symbol, Symbols.length(symbol))
    }
    say("\n")
  }

  /// The names in a mangled Swift symbol, dotted: module, type, function. What is abbreviated in it is left out.
  private static func sayNames(_ symbol: UnsafePointer<UInt8>) {
    guard symbol[0] == 0x24, symbol[1] == 0x65 || symbol[1] == 0x73 else { return }
    var position = 2
    var isFirst = true
    while symbol[position] >= 0x31, symbol[position] <= 0x39 {
      var length = 0
      while symbol[position] >= 0x30, symbol[position] <= 0x39, length < 1000 {
        length = length * 10 + Int(symbol[position] - 0x30)
        position += 1
      }
      for i in 0..<length where symbol[position + i] == 0 { return }
      // Of what is private to a file the mangling has the file's hash.
      if length != 33 || symbol[position] != 0x5f {
        if !isFirst { say(".") }
        isFirst = false
        sayText(symbol + position, length)
      }
      position += length
      // One-letter kinds of the names before: class, structure, enumeration, protocol.
      while [0x43, 0x56, 0x4f, 0x50].contains(symbol[position]) { position += 1 }
    }
  }

  private static func sayText(_ text: UnsafePointer<UInt8>, _ count: Int) {
    _ = LinuxCall.raw(LinuxCall.write, 2, Int(bitPattern: text), count)
  }
}

/// The symbol table of an ELF file in memory (elf(5)).
struct Symbols {
  private let table: UnsafeRawBufferPointer
  private let names: UnsafeRawBufferPointer

  init?(_ file: UnsafeRawBufferPointer) {
    guard file.count > 64, file[0] == 0x7f else { return nil }
    let sections = Int(file.loadUnaligned(fromByteOffset: 40, as: UInt64.self))
    let count = Int(file.loadUnaligned(fromByteOffset: 60, as: UInt16.self))
    guard sections > 0, sections + 64 * count <= file.count else { return nil }
    func section(_ index: Int) -> UnsafeRawBufferPointer {
      let header = sections + 64 * index
      let offset = Int(file.loadUnaligned(fromByteOffset: header + 24, as: UInt64.self))
      let size = Int(file.loadUnaligned(fromByteOffset: header + 32, as: UInt64.self))
      guard offset >= 0, size >= 0, offset <= file.count, size <= file.count - offset else {
        return UnsafeRawBufferPointer(start: nil, count: 0)
      }
      return UnsafeRawBufferPointer(rebasing: file[offset..<offset + size])
    }
    for index in 0..<count {
      let header = sections + 64 * index
      // SHT_SYMTAB
      guard file.loadUnaligned(fromByteOffset: header + 4, as: UInt32.self) == 2 else { continue }
      let link = Int(file.loadUnaligned(fromByteOffset: header + 40, as: UInt32.self))
      guard link < count else { return nil }
      table = section(index)
      names = section(link)
      return
    }
    return nil
  }

  /// The symbol that `address` lies behind or at.
  func name(of address: UInt64) -> UnsafePointer<UInt8>? {
    var best: UInt64 = 0
    var found: Int?
    var at = 0
    while at + 24 <= table.count {
      let value = table.loadUnaligned(fromByteOffset: at + 8, as: UInt64.self)
      let kind = table[at + 4] & 15
      if value <= address, value >= best, kind < 3 {
        best = value
        found = Int(table.loadUnaligned(fromByteOffset: at, as: UInt32.self))
      }
      at += 24
    }
    guard let found, found < names.count, names[names.count - 1] == 0 else { return nil }
    return names.baseAddress!.assumingMemoryBound(to: UInt8.self) + found
  }

  static func length(_ name: UnsafePointer<UInt8>) -> Int {
    var count = 0
    while name[count] != 0 { count += 1 }
    return count
  }
}
