import ABI
import Processes
import Tasks
import VFS

/// POSIX message queues (mq_overview(7)).
extension SystemCall {
  private func queue(_ descriptor: Int32) throws(Errno) -> PosixQueueFile {
    guard let file = try file(descriptor) as? PosixQueueFile else { throw .badFileDescriptor }
    return file
  }

  func mq_open() throws(Errno) -> Int {
    let flags = unsigned(b)
    var attributes: PosixQueues.Attributes?
    if d != 0, flags & 0o100 != 0 {
      let record = try UserSlice.load(d, (Int64(0), Int64(0), Int64(0), Int64(0)))
      attributes = PosixQueues.Attributes(maximum: record.1, messageSize: record.2)
    }
    let context: FileSystemContext = process.fileSystem
    let file = try PosixQueues.open(
      try UserSlice.string(a), flags: flags, mode: unsigned(c) & ~context.mask, attributes: attributes,
      credentials: context.credentials)
    return try install(file, closes: true)
  }

  func mq_unlink() throws(Errno) -> Int {
    try PosixQueues.unlink(try UserSlice.string(a), credentials: process.fileSystem.credentials)
    return 0
  }

  /// An absolute time of the real-time clock as a monotonic one; `.max` without one.
  private func deadline(_ address: UInt) throws(Errno) -> UInt64 {
    address == 0 ? .max : Clock.monotonic(fromRealtime: try duration(address))
  }

  func mq_timedsend() throws(Errno) -> Int {
    guard unsigned(d) < 32768 else { throw .invalid }
    let deadline = try deadline(e)
    let queue = try queue(int(a))
    guard Int(bitPattern: c) >= 0 else { throw .messageTooLong }
    guard Int(bitPattern: c) <= 16 << 20 else { throw .messageTooLong }
    try queue.send(try UserSlice(b, Int(c)), priority: unsigned(d), deadline: deadline, process: process)
    return 0
  }

  func mq_timedreceive() throws(Errno) -> Int {
    let deadline = try deadline(e)
    let (count, priority) = try queue(int(a)).receive(b, Int(clamping: c), deadline: deadline)
    if d != 0 { try UserSlice.store(priority, at: d) }
    return count
  }

  /// struct sigevent: SIGEV_SIGNAL 0, SIGEV_NONE 1. SIGEV_THREAD (2) needs a netlink socket: EBADF.
  func mq_notify() throws(Errno) -> Int {
    guard b != 0 else {
      try queue(int(a)).notify(nil, process: process)
      return 0
    }
    let event = try UserSlice.load(b, (UInt64(0), Int32(0), Int32(0)))
    guard (0...2).contains(event.2) else { throw .invalid }
    if event.2 == 0, event.1 < 1 || event.1 > Signal.last { throw .invalid }
    if event.2 == 2 { throw .badFileDescriptor }
    // SI_MESGQ
    var information = SignalInformation(event.2 == 0 ? event.1 : 0, code: -3)
    information.value = event.0
    try queue(int(a)).notify(information, process: process)
    return 0
  }

  func mq_getsetattr() throws(Errno) -> Int {
    var wanted: Int64?
    if b != 0 {
      wanted = try UserSlice.load(b, (Int64(0), Int64(0), Int64(0), Int64(0))).0
      if let wanted, wanted & ~0o4000 != 0 { throw .invalid }
    }
    let file = try queue(int(a))
    let old = file.attributes
    if let wanted { file.flags = file.flags & ~0o4000 | UInt32(wanted) }
    if c != 0 {
      try UserSlice(c, 64).clear(64)
      try UserSlice.store(old, at: c)
    }
    return 0
  }
}
