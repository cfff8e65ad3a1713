import ABI
import Tasks

/// Code that is not as the program has it: `original` lies at `address` in the program's eyes.
public struct RewrittenCode {
  let address: UInt
  let original: [UInt8]
  /// Where the instruction is carried out, if a breakpoint leads there; 0 otherwise.
  let detour: UInt

  var end: UInt { address + UInt(original.count) }
}

// What is forbidden, and cannot be told from data by its bytes, is rewritten so that both readings stay right: whoever
// executes the page finds an instruction that leads to a copy elsewhere, in which the forbidden bytes do not occur;
// whoever reads it finds it unchanged, but not executable (`mend`). The forbidden instruction itself becomes one that
// traps; an XRSTOR becomes one that dies if its mask has PKRU.
//
// Most are none: three bytes within a displacement, or a constant and the next instruction. Kernel lock held.
extension AddressSpace {
  func isRewritten(_ start: UInt, _ end: UInt) -> Bool {
    rewritten.contains { $0.address < end && $0.end > start }
  }

  /// Where a program goes on that has met a breakpoint of ours at `address`; nil for one of its own.
  public func detour(at address: UInt) -> UInt? {
    rewritten.first { $0.address == address && $0.detour != 0 }?.detour
  }

  /// Puts the program's own bytes back. The range is not executable, or becomes so before anybody runs.
  func restoreCode(_ start: UInt, _ end: UInt) throws(Errno) {
    guard isRewritten(start, end) else { return }
    for code in rewritten where code.address < end && code.end > start {
      try place(code.original, at: code.address)
    }
    rewritten.removeAll { $0.address < end && $0.end > start }
  }

  /// EPERM when the code around cannot be understood.
  func rewrite(_ target: UInt) throws(Errno) {
    let low = max(AddressSpace.lowest, target - 96)
    let bytes = code(low, target + 32)
    let offset = Int(target - low)
    guard let (start, instruction) = Instruction.around(offset, in: bytes, from: 0) else {
      throw .notPermitted
    }
    let origin = low + UInt(start)
    let code = Array(bytes[start..<start + instruction.length])
    let end = origin + UInt(code.count)
    guard self.bytes(in: origin, end, { $0.protection.contains(.execute) && !$0.isShared }) == end - origin
    else {
      throw .notPermitted
    }
    if start + instruction.opcodeOffset == offset { return try disarm(code, instruction, at: origin) }
    if let stub = try detour(around: code, instruction, at: origin, isChecked: false) {
      return try lead(code, at: origin, to: stub)
    }
    // A constant that is the forbidden instruction goes along wherever it is moved: who comes here gets SIGILL.
    let trap = [0x0f, 0x0b] + [UInt8](repeating: 0xcc, count: code.count - 2)
    guard isHarmless(trap, at: origin) else { throw .notPermitted }
    rewritten.append(RewrittenCode(address: origin, original: code, detour: 0))
    try place(trap, at: origin)
  }

  /// The instruction that is forbidden itself.
  private func disarm(_ code: [UInt8], _ instruction: Instruction, at origin: UInt) throws(Errno) {
    let isRestore = code[instruction.opcodeOffset + 1] == 0xae && instruction.modRM < 0xc0
    if isRestore, let stub = try detour(around: code, instruction, at: origin, isChecked: true) {
      return try lead(code, at: origin, to: stub)
    }
    var trap = code
    trap[instruction.opcodeOffset + 1] = 0x0b  // ud2
    rewritten.append(RewrittenCode(address: origin, original: code, detour: 0))
    try place(trap, at: origin)
  }

  /// A copy of the instruction, and the way back; nil where it cannot be moved.
  private func detour(
    around code: [UInt8], _ instruction: Instruction, at origin: UInt, isChecked: Bool
  ) throws(Errno) -> UInt? {
    // Another place has other distances in it: one of a few is harmless.
    for _ in 0..<4 {
      guard let stub = trampolineRoom(near: origin, bytes: TrampolinePages.entryBytes),
        var moved = instruction.moved(code, from: origin, to: stub)
      else { return nil }
      let jumpPlace = stub + UInt(moved.count) + (isChecked ? 7 : 0)
      guard let back = Instruction.encode(origin + UInt(code.count), from: jumpPlace + 5) else { return nil }
      let jump: [UInt8] = [0xe9] + back
      moved += isChecked ? ForbiddenInstructions.checkedRestoreTail(jump: jump) : jump
      if CodeGuard.forbidden.first(in: moved + [0xcc, 0xcc], from: 0) == nil, let area = area(at: stub) {
        write(moved, at: stub, in: area)
        return stub
      }
    }
    return nil
  }

  /// A jump, or where there is no room for one a breakpoint, instead of `code`.
  private func lead(_ code: [UInt8], at origin: UInt, to stub: UInt) throws(Errno) {
    var new = [UInt8](repeating: 0xcc, count: code.count)
    if code.count >= 5 {
      guard let distance = Instruction.encode(stub, from: origin + 5) else { throw .notPermitted }
      new.replaceSubrange(0..<5, with: [0xe9] + distance)
      if !isHarmless(new, at: origin) { new[0...4] = [0xcc, 0xcc, 0xcc, 0xcc, 0xcc] }
    }
    guard isHarmless(new, at: origin) else { throw .notPermitted }
    rewritten.append(
      RewrittenCode(address: origin, original: code, detour: new[0] == 0xcc ? stub : 0))
    try place(new, at: origin)
  }

  /// Whether nothing forbidden would lie at `address`, or across its ends, with `code` there.
  func isHarmless(_ code: [UInt8], at address: UInt) -> Bool {
    let before = ForbiddenInstructions.before
    let low = address - UInt(before)
    var bytes = self.code(low, address + UInt(code.count) + 32)
    bytes.replaceSubrange(before..<before + code.count, with: code)
    let first = CodeGuard.forbidden.first(in: bytes, from: before - ForbiddenInstructions.after)
    return first.map { $0 >= before + code.count } ?? true
  }

  /// Writes into code while the program can neither read, write nor execute it.
  private func place(_ code: [UInt8], at address: UInt) throws(Errno) {
    let start = address & ~4095
    let length = ((address + UInt(code.count) + 4095) & ~4095) - start
    try host.protect(address: start, length: length, protection: [.read, .write, .guarded])
    try UserSlice(address, code.count).store(code)
    try host.protect(address: start, length: length, protection: .read)
  }
}
