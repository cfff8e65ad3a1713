import ABI
import CMachine
import Processes
import Tasks

extension SystemCall {
  /// Serves the call. ENOSYS for what is missing.
  func dispatch() throws(Errno) -> Int {
    if let result = try dispatchFile() { return result }
    if let result = try dispatchSocket() { return result }
    if let result = try dispatchProcess() { return result }
    if let result = try dispatchAsynchronous() { return result }
    if let result = try dispatchMountObjects() { return result }
    if let result = try dispatchKeys() { return result }
    if let result = try dispatchProcessMemory() { return result }
    switch number {
    case 9: return try mmap()
    case 10: return try mprotect()
    case 11: return try munmap()
    case 12: return try brk()
    case 15: return rt_sigreturn()
    case 25: return try mremap()
    case 26: return try msync()
    case 27: return try mincore()
    case 28: return try madvise()
    case 56: return try clone()
    case 57: return try fork()
    case 58: return try vfork()
    case 59: return try execve()
    case 272: return try unshare()
    case 322: return try execveat()
    case 60:
      thread.exitCode = int(a)
      thread.depart(.end)
      return 0
    case 149, 150, 151, 152, 325: return try mlock()
    case 158: return try archPrctl()
    case 231:
      thread.exitGroup(code: int(a))
      thread.depart(.end)
      return 0
    case 435: return try clone3()
    case 240: return try mq_open()
    case 241: return try mq_unlink()
    case 242: return try mq_timedsend()
    case 243: return try mq_timedreceive()
    case 244: return try mq_notify()
    case 245: return try mq_getsetattr()
    default:
      Trace.missing(self)
      throw .notImplemented
    }
  }

  private func rt_sigreturn() -> Int {
    thread.callNumber = nil
    _ = thread.returnFromSignal(frame: frame)
    frame.pointee.kind = UInt64(TRAP_RETURN)
    machine_store(&thread.block.pointee.attention, 1)
    return 0
  }

  /// What an interrupted wait means for the call (signal(7)): most start again if SA_RESTART says so, ppoll(2),
  /// select(2) and pselect(2) only if no handler ran, so that a stop does not show; others tell the program.
  var interruption: Errno {
    switch number {
    case 0, 1, 16, 17, 242, 243, 18, 19, 20, 42, 43, 44, 45, 46, 47, 61, 72, 73, 202, 247, 257, 2, 288, 295,
      296, 299,
      307, 327,
      328, 40, 275, 276:
      .restartSystem
    case 23, 270, 271: .restartNoHandler
    default: .interrupted
    }
  }

  /// Calls that make the libOS keep something for the program: refused when only its reserve of memory is left.
  var keepsMemory: Bool {
    switch number {
    case 2, 9, 22, 25, 41, 43, 53, 56, 57, 58, 59, 82, 83, 85, 86, 88, 133, 213, 222, 233, 253, 254, 257, 258,
      259,
      264, 265, 266, 282, 283, 284, 288, 289, 290, 291, 293, 294, 316, 319, 322, 435, 437:
      true
    default: false
    }
  }

  /// Writing where nobody reads raises SIGPIPE, unless MSG_NOSIGNAL says not to.
  var raisesBrokenPipe: Bool {
    switch number {
    case 1, 18, 20, 40, 275, 276, 278, 296, 328: true
    case 44: d & 0x4000 == 0
    case 46: c & 0x4000 == 0
    case 307: d & 0x4000 == 0
    default: false
    }
  }
}
