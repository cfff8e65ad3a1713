public import ABI
import CMachine
import Tasks

/// The debug registers of a traced thread (Intel SDM 3B, 18.2; ptrace(2), PTRACE_POKEUSER), carried out without the
/// processor's: while one is set, the thread runs one instruction at a time, and what it watches is compared after each.
///
/// So a store of the value that was there already is not noticed, and reads cannot be.
public struct Watchpoints {
  private var registers: [8 of UInt64] = .init(repeating: 0)
  /// What was there before the instruction.
  private var values: [4 of UInt64] = .init(repeating: 0)

  public init() {}

  static var control: Int { 7 }
  static var status: Int { 6 }

  /// One of the four is enabled, for its task or for all.
  public var areSet: Bool { registers[Watchpoints.control] & 0xff != 0 }

  public subscript(index: Int) -> UInt64 { registers[index] }

  /// EINVAL for what cannot be watched, EIO for registers that are none.
  public mutating func set(_ index: Int, _ value: UInt64) throws(Errno) {
    switch index {
    case 0...3: guard value < UInt64(UserSlice.limit) else { throw .invalid }
    case Watchpoints.status: break
    case Watchpoints.control:
      for number in 0..<4 where value >> UInt64(2 * number) & 3 != 0 {
        // Bits of each: 0 execution, 1 writes, 2 input and output, 3 reads and writes.
        guard value >> UInt64(16 + 4 * number) & 3 < 2 else { throw .invalid }
      }
    default: throw .inputOutput
    }
    registers[index] = value
  }

  private func isEnabled(_ number: Int) -> Bool {
    registers[Watchpoints.control] >> UInt64(2 * number) & 3 != 0
  }

  private func isExecution(_ number: Int) -> Bool {
    registers[Watchpoints.control] >> UInt64(16 + 4 * number) & 3 == 0
  }

  /// In the thread's memory; 0 where nothing is.
  private func value(_ number: Int) -> UInt64 {
    let address = UInt(registers[number])
    let code = registers[Watchpoints.control] >> UInt64(18 + 4 * number) & 3
    let length = code == 2 ? 8 : Int(code) + 1
    guard let bytes = try? UserSlice(address, length).bytes() else { return 0 }
    var value: UInt64 = 0
    for byte in bytes.reversed() { value = value << 8 | UInt64(byte) }
    return value
  }

  /// Before an instruction; in the thread.
  mutating func sample() {
    for number in 0..<4 where isEnabled(number) && !isExecution(number) { values[number] = value(number) }
  }

  /// After an instruction, with the thread at `place`: whether one was met. The status register tells which.
  mutating func check(at place: UInt64) -> Bool {
    var isMet = false
    for number in 0..<4 where isEnabled(number) {
      let meets = isExecution(number) ? registers[number] == place : value(number) != values[number]
      guard meets else { continue }
      isMet = true
      registers[Watchpoints.status] |= 1 << UInt64(number)
    }
    return isMet
  }
}

extension LinuxThread {
  /// A step of a traced thread has ended. False: only watchpoints wanted it, and none was met.
  public func endStep(_ frame: UnsafeMutablePointer<trap_frame>) -> Bool {
    guard let tracing, tracing.watchpoints.areSet else { return true }
    let isMet = tracing.watchpoints.check(at: frame.pointee.rip)
    guard isMet || tracing.resumption.steps else {
      machine_store(&block.pointee.attention, 1)
      return false
    }
    if isMet { block.pointee.trap_detail = UInt64(SignalInformation.trapHardware) }
    return true
  }
}
