import ABI
import CMachine
import Tasks

// The frame that a handler finds on its stack: `struct rt_sigframe` of x86-64 Linux (arch/x86/include/asm/sigframe.h,
// asm/ucontext.h, asm/sigcontext.h). It is built in a buffer and copied, so that a bad stack is an error.

/// Offsets in the frame.
enum SignalFrameLayout {
  static var returnAddress: Int { 0 }
  static var flags: Int { 8 }
  static var stack: Int { 24 }
  /// r8 … r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags
  static var registers: Int { 48 }
  static var segments: Int { 192 }
  static var trapNumber: Int { 208 }
  static var oldMask: Int { 216 }
  static var faultAddress: Int { 224 }
  static var vectorPointer: Int { 232 }
  static var mask: Int { 304 }
  static var information: Int { 312 }
  static var size: Int { 440 }
  static var contextOffset: Int { 8 }
  /// UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS
  static var contextFlags: UInt64 { 7 }
}

/// Little-endian fields of a buffer.
extension [UInt8] {
  func field64(_ offset: Int) -> UInt64 {
    var value: UInt64 = 0
    for index in 0..<8 { value |= UInt64(self[offset + index]) << UInt64(8 * index) }
    return value
  }

  func field32(_ offset: Int) -> UInt32 {
    var value: UInt32 = 0
    for index in 0..<4 { value |= UInt32(self[offset + index]) << UInt32(8 * index) }
    return value
  }

  mutating func setField(_ offset: Int, _ value: UInt64) {
    for index in 0..<8 { self[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
  }

  mutating func setField(_ offset: Int, _ value: UInt32) {
    for index in 0..<4 { self[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index)) }
  }
}

extension SignalInformation {
  /// `siginfo_t` as sigaction(2) shows it, 128 bytes.
  public func encoded() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 128)
    bytes.setField(0, UInt32(bitPattern: signal))
    bytes.setField(4, UInt32(bitPattern: error))
    bytes.setField(8, UInt32(bitPattern: code))
    if isFault {
      bytes.setField(16, UInt64(address))
      return bytes
    }
    bytes.setField(16, UInt32(bitPattern: pid))
    bytes.setField(20, uid)
    if signal == Signal.child, code > 0 {
      bytes.setField(24, UInt32(bitPattern: status))
    } else {
      bytes.setField(24, value)
    }
    return bytes
  }

  /// What rt_sigqueueinfo(2) or PTRACE_SETSIGINFO was given, 128 bytes: of `signal`, or of the one that they say.
  public init(signal: Int32? = nil, encoded bytes: [UInt8]) {
    self.init(signal ?? Int32(bitPattern: bytes.field32(0)), code: Int32(bitPattern: bytes.field32(8)))
    error = Int32(bitPattern: bytes.field32(4))
    address = UInt(bytes.field64(16))
    pid = Int32(bitPattern: bytes.field32(16))
    uid = bytes.field32(20)
    status = Int32(bitPattern: bytes.field32(24))
    value = bytes.field64(24)
  }

  private var isFault: Bool { code > 0 && SignalSet.synchronous.has(signal) }
}

/// The vector registers in a frame: an XSAVE area with the marks that Linux puts in its software bytes.
enum VectorState {
  static var magic1: UInt32 { 0x4650_5853 }
  static var magic2: UInt32 { 0x4650_5845 }
  static var softwareBytes: Int { 464 }
  static var headerOffset: Int { 512 }

  static var size: Int { Int(machine_vector_state_size()) }
  /// With the mark behind it.
  static var extendedSize: Int { size > 512 ? size + 4 : size }

  /// The current state, as it goes to the program.
  static func save() -> [UInt8] {
    let size = self.size
    var scratch = [UInt8](repeating: 0, count: size + 64)
    let start = scratch.withUnsafeMutableBytes { buffer -> Int in
      guard let base = buffer.baseAddress else { return 0 }
      let start = Int((64 - UInt(bitPattern: base) % 64) % 64)
      machine_save_vector_state(base + start)
      return start
    }
    var state = [UInt8](scratch[start..<(start + size)])
    guard size > 512 else { return state }
    state.setField(softwareBytes, magic1)
    state.setField(softwareBytes + 4, UInt32(size + 4))
    state.setField(softwareBytes + 8, machine_vector_state_features())
    state.setField(softwareBytes + 16, UInt32(size))
    for offset in (softwareBytes + 20)..<headerOffset { state[offset] = 0 }
    state.append(contentsOf: [0, 0, 0, 0])
    state.setField(size, magic2)
    return state
  }

  /// Reads the program's area, and makes it one that the processor accepts. EFAULT, EINVAL.
  static func read(_ address: UInt) throws(Errno) -> [UInt8] {
    let size = self.size
    var state = [UInt8](repeating: 0, count: size)
    guard address != 0 else {
      // No area: the initial state.
      state.setField(0, UInt32(0x37f))
      state.setField(24, UInt32(0x1f80))
      return state
    }
    let legacy = try UserSlice(address, 512).bytes()
    state.replaceSubrange(0..<512, with: legacy)
    // Reserved MXCSR bits would fault.
    state.setField(24, state.field32(24) & 0xffff)
    guard size >= 576 else { return state }
    if try isExtended(legacy, address) {
      let rest = try UserSlice(address &+ 512, size - 512).bytes()
      state.replaceSubrange(512..<size, with: rest)
      for offset in 520..<576 where state[offset] != 0 { throw .invalid }
      state.setField(headerOffset, state.field64(headerOffset) & machine_vector_state_features())
    } else {
      // Only what FXSAVE knows: x87 and SSE.
      state.setField(headerOffset, UInt64(3) & machine_vector_state_features())
    }
    return state
  }

  private static func isExtended(_ legacy: [UInt8], _ address: UInt) throws(Errno) -> Bool {
    guard legacy.field32(softwareBytes) == magic1, legacy.field32(softwareBytes + 4) == UInt32(size + 4),
      legacy.field32(softwareBytes + 16) == UInt32(size)
    else { return false }
    return try UserSlice.load(address &+ UInt(size), UInt32(0)) == magic2
  }

  /// Makes `state`, from `read`, the thread's.
  static func restore(_ state: [UInt8]) {
    var scratch = [UInt8](repeating: 0, count: state.count + 64)
    scratch.withUnsafeMutableBytes { buffer in
      guard let base = buffer.baseAddress else { return }
      let start = Int((64 - UInt(bitPattern: base) % 64) % 64)
      for index in state.indices { buffer[start + index] = state[index] }
      machine_restore_vector_state(base + start)
    }
  }
}

extension trap_frame {
  /// In the order of `struct sigcontext`.
  var contextRegisters: [UInt64] {
    [r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags]
  }

  /// Flags that a program may set; without the single-step flag, which would stop inside the libOS.
  static var settableFlags: UInt64 { 0x5_0cd5 }

  /// Takes over the registers of a frame; segment registers are the program's only ones and stay. EINVAL for addresses
  /// that are no program's.
  mutating func load(context bytes: [UInt8]) throws(Errno) {
    func register(_ index: Int) -> UInt64 { bytes.field64(SignalFrameLayout.registers + 8 * index) }
    let newInstruction = register(16)
    let newStack = register(15)
    guard trap_frame.isProgramAddress(newInstruction), newStack <= 0x7fff_ffff_ffff else { throw .invalid }
    r8 = register(0)
    r9 = register(1)
    r10 = register(2)
    r11 = register(3)
    r12 = register(4)
    r13 = register(5)
    r14 = register(6)
    r15 = register(7)
    rdi = register(8)
    rsi = register(9)
    rbp = register(10)
    rbx = register(11)
    rdx = register(12)
    rax = register(13)
    rcx = register(14)
    rsp = newStack
    rip = newInstruction
    rflags = (rflags & ~trap_frame.settableFlags) | (register(17) & trap_frame.settableFlags)
  }

  /// Whether a program may be at the address: its own memory, or the host's vDSO.
  static func isProgramAddress(_ address: UInt64) -> Bool {
    let address = UInt(address)
    // A signal may have come while the program read a clock.
    return address < UserSlice.limit && !UserSlice.reserved.contains(address)
      || host.virtualSharedObject.contains(address)
  }
}
