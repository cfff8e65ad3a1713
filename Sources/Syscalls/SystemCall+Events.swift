import ABI
import Processes
import Tasks
import VFS

/// Pipes, event files, timers, and waiting for several files: epoll(7), poll(2), select(2).
extension SystemCall {
  private var closes: UInt32 { SystemCall.closesOnExecution }

  private func makePipe(_ flags: UInt32) throws(Errno) -> Int {
    // O_NONBLOCK, O_DIRECT, O_CLOEXEC
    guard flags & ~0o2044000 == 0 else { throw .invalid }
    let (reader, writer) = Pipe.make(flags: flags & SystemCall.isNonblocking)
    let isClosed = flags & closes != 0
    let first = Int32(try install(reader, closes: isClosed))
    do throws(Errno) {
      let second = Int32(try install(writer, closes: isClosed))
      do throws(Errno) { try UserSlice.store((first, second), at: a) } catch {
        try process.descriptors.close(second)
        throw error
      }
    } catch {
      try process.descriptors.close(first)
      throw error
    }
    return 0
  }

  func pipe() throws(Errno) -> Int { try makePipe(0) }
  func pipe2() throws(Errno) -> Int { try makePipe(unsigned(b)) }

  func eventfd() throws(Errno) -> Int {
    try install(EventFile(initial: unsigned(a), flags: 0), closes: false)
  }
  func eventfd2() throws(Errno) -> Int {
    guard unsigned(b) & ~0o2004001 == 0 else { throw .invalid }
    return try install(EventFile(initial: unsigned(a), flags: unsigned(b)), closes: unsigned(b) & closes != 0)
  }

  func memfd_create() throws(Errno) -> Int {
    // MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL, MFD_EXEC
    guard unsigned(b) & ~0x1b == 0 else { throw .invalid }
    let name = try UserSlice.string(a)
    guard name.count <= 249 else { throw .invalid }
    let context: FileSystemContext = process.fileSystem
    let file = try MemoryFile.make(
      name: name, root: context.root, user: context.credentials.user, group: context.credentials.group,
      seals: unsigned(b) & 8 != 0 ? 0x20 : unsigned(b) & 2 != 0 ? 0 : 1)
    return try install(file, closes: unsigned(b) & 1 != 0)
  }

  // MARK: Times

  /// Nanoseconds of a timespec or timeval (`unit`: nanoseconds a fraction). EINVAL.
  private func duration(_ address: UInt, unit: Int64 = 1) throws(Errno) -> UInt64 {
    let time = try UserSlice.load(address, (Int64(0), Int64(0)))
    guard time.0 >= 0, time.1 >= 0, time.1 < 1_000_000_000 / unit else { throw .invalid }
    return UInt64(min(time.0, 9_000_000_000)) * 1_000_000_000 + UInt64(time.1 * unit)
  }

  /// The moment `duration` from now; 0 for no wait at all.
  private func deadline(_ duration: UInt64) -> UInt64 {
    guard duration > 0 else { return 0 }
    let (sum, overflow) = host.monotonicNanoseconds.addingReportingOverflow(duration)
    return overflow ? .max : sum
  }

  private func deadline(milliseconds: Int32) -> UInt64 {
    milliseconds < 0 ? .max : deadline(UInt64(milliseconds) * 1_000_000)
  }

  /// Stores what is left of a wait, as select(2) and the raw ppoll(2) do.
  private func storeRest(_ deadline: UInt64, at address: UInt, unit: UInt64 = 1) {
    guard address != 0 else { return }
    let now = host.monotonicNanoseconds
    let left = deadline > now ? deadline - now : 0
    // A time-out in read-only memory is no error.
    do throws(Errno) {
      try UserSlice.store((Int64(left / 1_000_000_000), Int64(left % 1_000_000_000 / unit)), at: address)
    } catch {}
  }

  /// Installs the mask that a program gave (0 for none); true when there is one to restore.
  private func setMask(_ address: UInt, _ size: UInt) throws(Errno) -> Bool {
    guard address != 0 else { return false }
    guard size == 8 else { throw .invalid }
    thread.setTemporaryMask(SignalSet(rawValue: try UserSlice.load(address, UInt64(0))))
    return true
  }

  // MARK: epoll(7)

  func epoll_create() throws(Errno) -> Int {
    guard int(a) > 0 else { throw .invalid }
    return try install(Epoll(), closes: false)
  }
  func epoll_create1() throws(Errno) -> Int {
    guard unsigned(a) & ~closes == 0 else { throw .invalid }
    return try install(Epoll(), closes: unsigned(a) != 0)
  }

  func epoll_ctl() throws(Errno) -> Int {
    let (epollFile, target) = (try file(int(a)), try file(int(c)))
    guard let epoll = epollFile as? Epoll else { throw .invalid }
    try epoll.change(int(b), int(c), target, event: d)
    return 0
  }

  private func waitForEpoll(deadline: UInt64) throws(Errno) -> Int {
    guard let epoll = try file(int(a)) as? Epoll else { throw .invalid }
    let maximum = Int(int(c))
    guard maximum > 0, maximum <= Int(Int32.max) / 12 else { throw .invalid }
    return try epoll.wait(try UserSlice(b, maximum * 12), maximum: maximum, deadline: deadline)
  }

  func epoll_wait() throws(Errno) -> Int { try waitForEpoll(deadline: deadline(milliseconds: int(d))) }

  private func waitForEpollMasked(deadline: UInt64) throws(Errno) -> Int {
    guard try setMask(e, f) else { return try waitForEpoll(deadline: deadline) }
    do throws(Errno) {
      let found = try waitForEpoll(deadline: deadline)
      thread.restoreMask()
      return found
    } catch {
      if error != .interrupted { thread.restoreMask() }
      throw error
    }
  }

  func epoll_pwait() throws(Errno) -> Int { try waitForEpollMasked(deadline: deadline(milliseconds: int(d))) }
  func epoll_pwait2() throws(Errno) -> Int {
    try waitForEpollMasked(deadline: d == 0 ? .max : deadline(try duration(d)))
  }

  // MARK: poll(2)

  private func poll(deadline: UInt64) throws(Errno) -> Int {
    guard unsigned(b) <= UInt32(clamping: process.limits[ResourceLimit.openFiles].soft) else {
      throw .invalid
    }
    let table = process.descriptors
    return try Poll.poll(try UserSlice(a, Int(unsigned(b)) * 8), deadline: deadline) { table.find($0) }
  }

  /// Goes on after a stop until its first deadline, as Linux does (ERESTART_RESTARTBLOCK).
  func poll() throws(Errno) -> Int {
    let end = thread.takeRestartDeadline(deadline(milliseconds: int(c)))
    do throws(Errno) { return try poll(deadline: end) } catch {
      guard error == .interrupted else { throw error }
      thread.keepRestartDeadline(end)
      throw .restartBlock
    }
  }

  func ppoll() throws(Errno) -> Int {
    let end = c == 0 ? UInt64.max : deadline(try duration(c))
    let isMasked = try setMask(d, e)
    defer { storeRest(end, at: c) }
    do throws(Errno) {
      let found = try poll(deadline: end)
      if isMasked { thread.restoreMask() }
      return found
    } catch {
      if isMasked, error != .interrupted { thread.restoreMask() }
      throw error
    }
  }

  private func select(deadline: UInt64) throws(Errno) -> Int {
    let table = process.descriptors
    return try Poll.select(count: Int(int(a)), read: b, write: c, except: d, deadline: deadline) {
      table.find($0)
    }
  }

  func select() throws(Errno) -> Int {
    // timeval: fractions are microseconds.
    let end = e == 0 ? UInt64.max : deadline(try duration(e, unit: 1000))
    defer { storeRest(end, at: e, unit: 1000) }
    return try select(deadline: end)
  }

  func pselect6() throws(Errno) -> Int {
    let end = e == 0 ? UInt64.max : deadline(try duration(e))
    let mask = f == 0 ? (UInt(0), UInt(8)) : try UserSlice.load(f, (UInt(0), UInt(0)))
    let isMasked = try setMask(mask.0, mask.1)
    defer { storeRest(end, at: e) }
    do throws(Errno) {
      let found = try select(deadline: end)
      if isMasked { thread.restoreMask() }
      return found
    } catch {
      if isMasked, error != .interrupted { thread.restoreMask() }
      throw error
    }
  }

  // MARK: timerfd_create(2)

  func timerfd_create() throws(Errno) -> Int {
    guard unsigned(b) & ~0o2004000 == 0 else { throw .invalid }
    return try install(try TimerFile(clock: int(a), flags: unsigned(b)), closes: unsigned(b) & closes != 0)
  }

  private func store(_ state: (value: UInt64, interval: UInt64), at address: UInt) throws(Errno) {
    let billion: UInt64 = 1_000_000_000
    let content = (
      state.interval / billion, state.interval % billion, state.value / billion, state.value % billion
    )
    try UserSlice.store(content, at: address)
  }

  func timerfd_settime() throws(Errno) -> Int {
    guard unsigned(b) & ~3 == 0 else { throw .invalid }
    let (interval, value) = (try duration(c), try duration(c &+ 16))
    guard let timer = try file(int(a)) as? TimerFile else { throw .invalid }
    let old = timer.set(value: value, interval: interval, isAbsolute: unsigned(b) & 1 != 0)
    if d != 0 { try store(old, at: d) }
    return 0
  }

  func timerfd_gettime() throws(Errno) -> Int {
    guard let timer = try file(int(a)) as? TimerFile else { throw .invalid }
    try store(timer.current, at: b)
    return 0
  }
}
