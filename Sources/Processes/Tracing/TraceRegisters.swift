// A thread that is stopped has a frame.
// swift-format-ignore-file: NeverForceUnwrap
public import ABI
import CMachine
import Tasks

// Registers of a stopped thread as its tracer reads and writes them: what is written is checked as a signal's frame is.

/// `struct user_regs_struct` (sys/user.h) as words.
public enum UserRegisters {
  public static var count: Int { 27 }
  static var systemCall: Int { 15 }
}

extension LinuxThread {
  public var userRegisters: [UInt64] {
    let frame = block.pointee.frame.pointee
    let isGate = frame.kind == UInt64(TRAP_NONE)
    return [
      frame.r15, frame.r14, frame.r13, frame.r12, frame.rbp, frame.rbx, isGate ? frame.rflags : frame.r11,
      frame.r10, frame.r9, frame.r8, frame.rax, frame.rcx, frame.rdx, frame.rsi, frame.rdi,
      callNumber ?? .max, frame.rip, 0x33, frame.rflags, frame.rsp, 0x2b, UInt64(threadPointer), 0, 0, 0, 0,
      0,
    ]
  }

  /// EIO for what a program could not have: addresses of the libOS, other segments, a GS base.
  public func setUserRegisters(_ words: [UInt64]) throws(Errno) {
    guard words.count == UserRegisters.count, trap_frame.isProgramAddress(words[16]),
      words[19] <= 0x7fff_ffff_ffff, words[17] == 0x33, words[20] == 0x2b,
      words[21] < UInt64(UserSlice.limit),
      words[22] == 0, words[23..<27].allSatisfy({ $0 == 0 || $0 == 0x2b })
    else { throw .inputOutput }
    if UInt(words[21]) != threadPointer {
      try visitRegisters { host.setThreadPointer(UInt(words[21])) }
      threadPointer = UInt(words[21])
    }
    let frame = block.pointee.frame!
    frame.pointee.makeComplete()
    frame.pointee.load(user: words)
    callNumber =
      Int64(bitPattern: words[UserRegisters.systemCall]) < 0 ? nil : words[UserRegisters.systemCall]
  }

  // MARK: Vector registers

  /// An XSAVE area as PTRACE_GETREGSET gives it; its first 512 bytes are `struct user_fpregs_struct`.
  public func vectorRegisters() throws(Errno) -> [UInt8] {
    var state: [UInt8] = []
    try visitRegisters { state = VectorState.save() }
    state.removeLast(state.count - VectorState.size)
    for offset in VectorState.softwareBytes..<VectorState.headerOffset { state[offset] = 0 }
    // Where debuggers look for XCR0.
    if state.count > 512 { state.setField(VectorState.softwareBytes, machine_vector_state_features()) }
    return state
  }

  public static var vectorSize: Int { VectorState.size }

  /// Sets them from a whole area, or from its first 512 bytes. EINVAL for reserved bits.
  public func setVectorRegisters(_ bytes: [UInt8]) throws(Errno) {
    guard bytes.field32(24) & ~0xffff == 0 else { throw .invalid }
    var state = bytes
    if bytes.count < VectorState.size {
      state = try vectorRegisters()
      state.replaceSubrange(0..<bytes.count, with: bytes)
      if state.count > 512 {
        state.setField(VectorState.headerOffset, state.field64(VectorState.headerOffset) | 3)
      }
    }
    if state.count > 512 {
      guard state.field64(VectorState.headerOffset) & ~machine_vector_state_features() == 0,
        state[520..<576].allSatisfy({ $0 == 0 })
      else { throw .invalid }
    }
    try visitRegisters { VectorState.restore(state) }
  }

  /// Does `work` on the thread's host thread, which has the registers that no frame holds. ESRCH.
  private func visitRegisters(_ work: @escaping () -> Void) throws(Errno) {
    var holder = self
    while let other = holder.borrower { holder = other }
    var isDone = false
    try holder.receive(
      Visit {
        work()
        isDone = true
      })
    if !isDone { throw .noSuchProcess }
  }
}

extension trap_frame {
  /// Takes over checked registers of a tracer.
  fileprivate mutating func load(user words: [UInt64]) {
    (r15, r14, r13, r12) = (words[0], words[1], words[2], words[3])
    (rbp, rbx, r11, r10) = (words[4], words[5], words[6], words[7])
    (r9, r8, rax, rcx) = (words[8], words[9], words[10], words[11])
    (rdx, rsi, rdi, rip) = (words[12], words[13], words[14], words[16])
    rflags = (rflags & ~trap_frame.settableFlags) | (words[18] & trap_frame.settableFlags)
    rsp = words[19]
  }
}
