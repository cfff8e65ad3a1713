import ABI
import Processes
import Tasks
import VFS

/// System V IPC (sysvipc(7)), signal and process descriptors.
extension SystemCall {
  func dispatchInterprocess() throws(Errno) -> Int? {
    switch number {
    case 29:
      return Int(try SharedMemory.get(key: int(a), size: UInt64(b), flags: unsigned(c), process: process))
    case 30: return Int(try SharedMemory.attach(int(a), at: b, flags: unsigned(c), process: process))
    case 31: return try SharedMemory.control(int(a), int(b), c, process: process)
    case 67:
      try SharedMemory.detach(a, process: process)
      return 0
    case 64: return Int(try Semaphores.get(key: int(a), count: int(b), flags: unsigned(c), process: process))
    case 65: return try semop(deadline: .max)
    case 66: return try Semaphores.control(int(a), int(b), int(c), d, process: process)
    case 220:
      return try semop(deadline: d == 0 ? .max : host.monotonicNanoseconds &+ (try duration(d)))
    case 68: return Int(try MessageQueues.get(key: int(a), flags: unsigned(b), process: process))
    case 69:
      try MessageQueues.send(int(a), b, Int(bitPattern: c), flags: unsigned(d), process: process)
      return 0
    case 70:
      return try MessageQueues.receive(
        int(a), b, Int(bitPattern: c), type: Int64(Int(bitPattern: d)), flags: unsigned(e), process: process)
    case 71: return try MessageQueues.control(int(a), int(b), c, process: process)
    case 282: return try signalfd(flags: 0)
    case 289: return try signalfd(flags: unsigned(d))
    case 434: return try pidfd_open()
    case 424: return try pidfd_send_signal()
    case 438: return try pidfd_getfd()
    default: return nil
    }
  }

  private func semop(deadline: UInt64) throws(Errno) -> Int {
    guard c <= 500 else { throw .argumentListTooLong }
    var operations: [SemaphoreOperation] = []
    for i in 0..<c { operations.append(try UserSlice.load(b &+ 6 * i, SemaphoreOperation())) }
    try Semaphores.operate(int(a), operations, deadline: deadline, thread: thread)
    return 0
  }

  private func signalfd(flags: UInt32) throws(Errno) -> Int {
    guard c == 8, flags & ~0o2004000 == 0 else { throw .invalid }
    let mask = SignalSet(rawValue: try UserSlice.load(b, UInt64(0)))
    if int(a) == -1 {
      return try install(
        SignalFile(mask: mask, flags: flags, owner: process),
        closes: flags & SystemCall.closesOnExecution != 0)
    }
    guard let file = try file(int(a)) as? SignalFile else { throw .invalid }
    file.mask = mask.subtracting(.unblockable)
    process.signalQueue.wake()
    return Int(int(a))
  }

  private func pidfd_open() throws(Errno) -> Int {
    guard unsigned(b) & ~0o4000 == 0, int(a) > 0 else { throw .invalid }
    guard let target = ProcessTable.process(int(a)) else {
      throw ProcessTable.thread(int(a)) == nil ? .noSuchProcess : .invalid
    }
    return try install(ProcessFile(target, flags: unsigned(b)), closes: true)
  }

  private func pidfd_send_signal() throws(Errno) -> Int {
    let file = try file(int(a))
    guard d == 0 else { throw .invalid }
    let number = try processNumber(of: file)
    if c != 0 {
      // EINVAL: what the information says it is.
      let information = SignalInformation(encoded: try UserSlice(c, 128).bytes())
      guard information.signal == int(b) else { throw .invalid }
      try thread.queue(information, process: number)
    } else {
      try thread.kill(number, int(b))
    }
    return 0
  }

  /// The process that a descriptor of pidfd_open(2) or of a directory /proc/PID means. EBADF, ESRCH.
  private func processNumber(of file: OpenFile) throws(Errno) -> Int32 {
    if let file = file as? ProcessFile {
      guard ProcessTable.process(file.process.pid) === file.process else { throw .noSuchProcess }
      return file.process.pid
    }
    return try file.inode.processNumber()
  }

  private func pidfd_getfd() throws(Errno) -> Int {
    guard let file = try file(int(a)) as? ProcessFile else { throw .badFileDescriptor }
    guard c == 0 else { throw .invalid }
    guard ProcessTable.process(file.process.pid) === file.process, !file.process.isZombie else {
      throw .noSuchProcess
    }
    guard owner(of: file.process) else { throw .notPermitted }
    return try install(try file.process.descriptors.file(int(b)), closes: true)
  }
}
