import ABI
import Processes
import Tasks
import VFS

/// `struct iocb` (linux/aio_abi.h).
struct InputOutputControl: BitwiseCopyable {
  var data: UInt64 = 0
  var key: UInt32 = 0
  var flags: UInt32 = 0
  var operation: UInt16 = 0
  var priority: Int16 = 0
  var descriptor: UInt32 = 0
  var buffer: UInt64 = 0
  var count: UInt64 = 0
  var offset: Int64 = 0
  var reserved: UInt64 = 0
  /// IOCB_FLAG_RESFD 1, IOCB_FLAG_IOPRIO 2
  var options: UInt32 = 0
  var eventDescriptor: UInt32 = 0
}

/// Linux's asynchronous input and output (io_submit(2)). What is submitted is done at once, as Linux does for files
/// whose contents are in memory; the results wait in the context.
extension SystemCall {
  /// /proc/sys/fs/aio-max-nr
  private static var maximumEvents: UInt32 { 65536 }

  func dispatchAsynchronous() throws(Errno) -> Int? {
    switch number {
    case 206: return try io_setup()
    case 207: return try io_destroy()
    case 208: return try collect(deadline: try eventDeadline())
    case 209: return try io_submit()
    case 210: return try io_cancel()
    case 333: return try io_pgetevents()
    default: return nil
    }
  }

  /// The context is named by the address of a page, which Linux shows the results in; here it stays empty, so that
  /// C libraries make the call.
  private func io_setup() throws(Errno) -> Int {
    let old = try UserSlice.load(b, UInt64(0))
    // As many events as a ring of 256 MiB would hold.
    guard old == 0, unsigned(a) > 0, unsigned(a) <= 8_388_608 else { throw .invalid }
    guard unsigned(a) <= SystemCall.maximumEvents else { throw .again }
    let space = process.addressSpace
    let address = try space.findFree(4096)
    try space.map(
      VirtualMemoryArea(
        start: address, end: address + 4096, protection: [.read, .write], isShared: false, inode: nil))
    process.completions[address] = CompletionContext()
    do throws(Errno) { try UserSlice.store(UInt64(address), at: b) } catch {
      process.completions[address] = nil
      try space.unmap(address, address + 4096)
      throw error
    }
    return 0
  }

  private func context() throws(Errno) -> CompletionContext {
    guard let context = process.completions[a] else { throw .invalid }
    return context
  }

  private func io_destroy() throws(Errno) -> Int {
    let context = try context()
    process.completions[a] = nil
    context.queue.wake()
    try process.addressSpace.unmap(a, a + 4096)
    return 0
  }

  /// The number of operations begun; an error only for the first.
  private func io_submit() throws(Errno) -> Int {
    let context = try context()
    let count = Int(bitPattern: b)
    guard count >= 0 else { throw .invalid }
    for index in 0..<min(count, 65536) {
      do throws(Errno) {
        let address: UInt = try UserSlice.load(c &+ UInt(8 * index), 0)
        try submit(address, to: context)
      } catch {
        if index > 0 { return index }
        throw error
      }
    }
    return min(count, 65536)
  }

  private func submit(_ address: UInt, to context: CompletionContext) throws(Errno) {
    let control = try UserSlice.load(address, InputOutputControl())
    guard control.reserved == 0, control.options & ~3 == 0, control.count <= UInt64(Int.max) else {
      throw .invalid
    }
    let file = try file(Int32(bitPattern: control.descriptor))
    var signalled: EventFile?
    if control.options & 1 != 0 {
      guard let event = try self.file(Int32(bitPattern: control.eventDescriptor)) as? EventFile else {
        throw .invalid
      }
      signalled = event
    }
    try UserSlice.store(UInt32(0), at: address &+ 8)
    var result: Int
    do throws(Errno) { result = try perform(control, file) } catch {
      // What can be seen at once refuses the submission.
      if error == .badFileDescriptor || error == .invalid || error == .illegalSeek { throw error }
      result = -Int(error.rawValue)
    }
    context.events.append(
      CompletionContext.Event(data: control.data, control: UInt64(address), result: Int64(result)))
    context.queue.wake()
    if let signalled { try signalled.add(1) }
  }

  /// PREAD 0, PWRITE 1, FSYNC 2, FDSYNC 3, NOOP 6, PREADV 7, PWRITEV 8.
  private func perform(_ control: InputOutputControl, _ file: OpenFile) throws(Errno) -> Int {
    let isWriting = control.operation == 1 || control.operation == 8
    switch control.operation {
    case 0, 1, 7, 8:
      guard isWriting ? file.isWritable : file.isReadable else { throw .badFileDescriptor }
      guard control.offset >= 0 else { throw .invalid }
      let isStream = file.inode.type == 0o010000 || file.inode.type == 0o140000 || file is EventFile
      let offset: Int64? = isStream ? nil : control.offset
      let slices: [UserSlice]
      if control.operation > 1 {
        slices = try vector(UInt(control.buffer), UInt(control.count))
      } else {
        slices = [try UserSlice(UInt(control.buffer), min(Int(control.count), SystemCall.largestTransfer))]
      }
      let done = try transfer(file, slices, offset, writes: isWriting)
      if isWriting { wasWritten(file, done) } else { wasRead(file, done) }
      return done
    case 2, 3:
      try file.synchronize()
      return 0
    default: throw .invalid
    }
  }

  /// Nothing is ever under way.
  private func io_cancel() throws(Errno) -> Int {
    _ = try UserSlice.load(b &+ 8, UInt32(0))
    _ = try context()
    throw .invalid
  }

  private func eventDeadline() throws(Errno) -> UInt64 {
    e == 0 ? .max : host.monotonicNanoseconds &+ (try duration(e))
  }

  /// io_getevents(2): at least b, at most c results at d.
  private func collect(deadline: UInt64) throws(Errno) -> Int {
    let context = try context()
    let (least, most) = (Int(bitPattern: b), Int(bitPattern: c))
    guard least >= 0, most >= 0, least <= most else { throw .invalid }
    while context.events.count < least {
      do throws(Errno) { try context.queue.sleep(deadline: deadline) } catch {
        if error == .timedOut { break }
        throw error
      }
      guard process.completions[a] === context else { throw .invalid }
    }
    let count = min(most, context.events.count)
    for index in 0..<count {
      let event = context.events[index]
      try UserSlice.store((event.data, event.control, event.result, Int64(0)), at: d &+ UInt(32 * index))
    }
    context.events.removeFirst(count)
    return count
  }

  /// io_pgetevents(2): with a signal mask while it waits (struct __aio_sigset at f).
  private func io_pgetevents() throws(Errno) -> Int {
    let deadline = try eventDeadline()
    var mask: UInt = 0
    if f != 0 {
      let set = try UserSlice.load(f, (UInt(0), UInt(0)))
      if set.0 != 0, set.1 != 8 { throw .invalid }
      mask = set.0
    }
    guard mask != 0 else { return try collect(deadline: deadline) }
    thread.setTemporaryMask(try UserSlice.load(mask, SignalSet(rawValue: 0)))
    let count: Int
    do throws(Errno) { count = try collect(deadline: deadline) } catch {
      if error != .interrupted { thread.restoreMask() }
      throw error
    }
    thread.restoreMask()
    return count
  }
}
