import ABI
import CMachine
import Processes
import Tasks

/// ptrace(2): requests, and the structures of the tracer's that they read and write (sys/ptrace.h, linux/ptrace.h).
extension SystemCall {
  func ptrace() throws(Errno) -> Int {
    switch a {
    case 0:  // PTRACE_TRACEME
      try thread.askForTracing()
      return 0
    case 16: try attach(isSeized: false, options: [])
    case 0x4206:  // PTRACE_SEIZE
      guard c == 0 else { throw .inputOutput }
      try attach(isSeized: true, options: try traceOptions(.inputOutput))
    case 8:  // PTRACE_KILL
      try thread.tracee(int(b)).kill()
    case 0x4207:  // PTRACE_INTERRUPT
      try thread.tracee(int(b)).interrupt()
    default: return try requestOfStopped(try thread.stoppedTracee(int(b)))
    }
    return 0
  }

  private func attach(isSeized: Bool, options: TraceOptions) throws(Errno) {
    guard let target = ProcessTable.thread(int(b)) else { throw .noSuchProcess }
    if target.process === process { throw .notPermitted }
    try checkAttachment(to: target.process)
    try thread.trace(target, isSeized: isSeized, options: options)
  }

  private func traceOptions(_ error: Errno) throws(Errno) -> TraceOptions {
    guard d & ~UInt(TraceOptions.known.rawValue) == 0 else { throw error }
    return TraceOptions(rawValue: unsigned(d))
  }

  private func requestOfStopped(_ tracee: Tracing) throws(Errno) -> Int {
    switch a {
    case 7: try tracee.resume(.run, signal: d)
    case 9: try tracee.resume(.step, signal: d)
    case 24: try tracee.resume(.untilCall, signal: d)
    case 31: try tracee.resume(.untilEmulatedCall, signal: d)
    case 32: try tracee.resume(.emulatedStep, signal: d)
    case 17: try tracee.detach(signal: d)
    case 0x4208: try tracee.startListening()
    case 0x4200: tracee.options = try traceOptions(.invalid)
    case 0x4201: try UserSlice.store(tracee.message, at: d)
    case 1, 2: try UserSlice.store(try tracedWord(tracee, at: c), at: d)
    case 4, 5:
      guard (try? tracee.thread.process.writeMemory(littleEndian(UInt64(d)), at: c, isForced: true)) == 8
      else {
        throw .inputOutput
      }
    case 0x420e: return try callInformation(tracee)
    default: return try signalRequest(tracee)
    }
    return 0
  }

  private func littleEndian(_ word: UInt64) -> [UInt8] {
    (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) }
  }

  private func tracedWord(_ tracee: Tracing, at address: UInt) throws(Errno) -> UInt64 {
    guard let bytes = try? tracee.thread.process.readMemory(at: address, count: 8, isForced: true),
      bytes.count == 8
    else { throw .inputOutput }
    var word: UInt64 = 0
    for byte in bytes.reversed() { word = word << 8 | UInt64(byte) }
    return word
  }

  private func signalRequest(_ tracee: Tracing) throws(Errno) -> Int {
    switch a {
    case 0x4202:
      guard let information = tracee.information else { throw .invalid }
      try UserSlice(d, 128).store(information.encoded())
    case 0x4203:
      guard tracee.information != nil else { throw .invalid }
      let bytes = try UserSlice(d, 128).bytes()
      tracee.information = SignalInformation(encoded: bytes)
    case 0x420a:
      guard c == 8 else { throw .invalid }
      try UserSlice.store(tracee.thread.mask, at: d)
    case 0x420b:
      guard c == 8 else { throw .invalid }
      tracee.thread.setMask(try UserSlice.load(d, SignalSet(rawValue: 0)))
    default: return try registerRequest(tracee.thread, tracee)
    }
    return 0
  }

  // MARK: Registers

  private func registerRequest(_ target: LinuxThread, _ tracee: Tracing) throws(Errno) -> Int {
    switch a {
    case 3: try UserSlice.store(try userWord(target, tracee), at: d)
    case 6: try storeUserWord(target, tracee)
    case 12: try storeWords(target.userRegisters, at: d)
    case 13: try target.setUserRegisters(try words(at: d, UserRegisters.count))
    case 14: try UserSlice(d, 512).store(Array(try target.vectorRegisters().prefix(512)))
    case 15: try target.setVectorRegisters(try UserSlice(d, 512).bytes())
    case 30:  // PTRACE_ARCH_PRCTL: ARCH_GET_FS, ARCH_GET_GS
      switch d {
      case 0x1003: try UserSlice.store(UInt64(target.threadPointer), at: c)
      case 0x1004: try UserSlice.store(UInt64(0), at: c)
      default: throw .invalid
      }
    case 0x4204: try registerSet(target, writes: false)
    case 0x4205: try registerSet(target, writes: true)
    default: throw .inputOutput
    }
    return 0
  }

  private func storeWords(_ words: [UInt64], at address: UInt) throws(Errno) {
    var bytes: [UInt8] = []
    for word in words { bytes += littleEndian(word) }
    try UserSlice(address, bytes.count).store(bytes)
  }

  private func words(at address: UInt, _ count: Int) throws(Errno) -> [UInt64] {
    var result: [UInt64] = []
    for index in 0..<count { result.append(try UserSlice.load(address &+ UInt(8 * index), 0)) }
    return result
  }

  /// Offset of u_debugreg in `struct user` (sys/user.h), and the structure's size.
  private static var debugRegisters: UInt { 848 }
  private static var userSize: UInt { 912 }

  /// PTRACE_PEEKUSER: what is neither a register nor a debug register reads as 0.
  private func userWord(_ target: LinuxThread, _ tracee: Tracing) throws(Errno) -> UInt64 {
    guard c & 7 == 0, c < SystemCall.userSize else { throw .inputOutput }
    let index = Int(c / 8)
    if index < UserRegisters.count { return target.userRegisters[index] }
    guard c >= SystemCall.debugRegisters else { return 0 }
    return tracee.watchpoints[Int(c - SystemCall.debugRegisters) / 8]
  }

  private func storeUserWord(_ target: LinuxThread, _ tracee: Tracing) throws(Errno) {
    guard c & 7 == 0, c < SystemCall.userSize else { throw .inputOutput }
    let index = Int(c / 8)
    if index < UserRegisters.count {
      var words = target.userRegisters
      words[index] = UInt64(d)
      return try target.setUserRegisters(words)
    }
    guard c >= SystemCall.debugRegisters else { throw .inputOutput }
    try tracee.watchpoints.set(Int(c - SystemCall.debugRegisters) / 8, UInt64(d))
  }

  /// PTRACE_GETREGSET, PTRACE_SETREGSET of NT_PRSTATUS, NT_PRFPREG, NT_X86_XSTATE (elf.h). EINVAL for others.
  private func registerSet(_ target: LinuxThread, writes: Bool) throws(Errno) {
    let size: Int
    switch c {
    case 1: size = 8 * UserRegisters.count
    case 2: size = 512
    case 0x202: size = LinuxThread.vectorSize
    default: throw .invalid
    }
    let (base, length): (UInt, UInt) = try UserSlice.load(d, (0, 0))
    guard length & 7 == 0 else { throw .invalid }
    let count = Int(min(length, UInt(size)))
    if writes {
      try storeRegisterSet(target, base, count, size)
    } else if c == 1 {
      try storeWords(Array(target.userRegisters.prefix(count / 8)), at: base)
    } else {
      try UserSlice(base, count).store(Array(try target.vectorRegisters().prefix(count)))
    }
    try UserSlice.store(UInt(count), at: d &+ 8)
  }

  private func storeRegisterSet(_ target: LinuxThread, _ base: UInt, _ count: Int, _ size: Int) throws(Errno)
  {
    if c == 1 {
      var all = target.userRegisters
      all.replaceSubrange(0..<count / 8, with: try words(at: base, count / 8))
      return try target.setUserRegisters(all)
    }
    guard count == size else { throw .badAddress }
    try target.setVectorRegisters(try UserSlice(base, count).bytes())
  }

  /// PTRACE_GET_SYSCALL_INFO: `struct ptrace_syscall_info`, of which as much is stored as there is room; its size.
  private func callInformation(_ tracee: Tracing) throws(Errno) -> Int {
    let registers = tracee.thread.userRegisters
    let native: UInt64 = 0xc000_003e  // AUDIT_ARCH_X86_64
    var bytes: [UInt8]
    switch tracee.stop?.kind {
    case .callEntry:
      bytes = littleEndian(1 | native << 32) + littleEndian(registers[16]) + littleEndian(registers[19])
      // orig_rax, and rdi, rsi, rdx, r10, r8, r9
      for index in [15, 14, 13, 12, 7, 9, 8] { bytes += littleEndian(registers[index]) }
    case .callExit:
      bytes = littleEndian(2 | native << 32) + littleEndian(registers[16]) + littleEndian(registers[19])
      let isError = Int64(bitPattern: registers[10]) < 0 && Int64(bitPattern: registers[10]) >= -4095
      bytes += littleEndian(registers[10]) + [isError ? 1 : 0]
    default:
      bytes = littleEndian(native << 32) + littleEndian(registers[16]) + littleEndian(registers[19])
    }
    let count = min(Int(min(c, 4096)), bytes.count)
    try UserSlice(d, count).store(Array(bytes.prefix(count)))
    return bytes.count
  }
}
