public import ABI
import CHostCore
import CLinuxHost
public import CMachine
import HostCore
public import Tasks

/// The host interface over Linux: one host process per application process, one host thread per application thread.
public final class LinuxHost: HostInterface {
  let arenaDescriptor: Int
  var imageDescriptor = -1
  var networkDescriptor = -1
  var wakeDescriptor = -1
  /// Descriptors of the standard streams as programs use them: opened anew, without waiting, where that was possible.
  var streams: [3 of Int] = [0, 1, 2]
  var disks: [LinuxDisk] = []
  /// Where tests want to have written what disks do; -1: nowhere.
  public var diskLog = -1
  /// Bit N: standard stream N may make a call wait, and is asked before.
  var waitingStreams = 0
  let clockFunction: UInt64
  let hasFSGSBase: Bool
  /// Linux's own vDSO: it stays mapped in every host process, and its clocks are those of the libOS.
  public let virtualSharedObject: Range<UInt>
  public let processorCount: Int
  /// Host process that waits for the others; they die with it.
  nonisolated(unsafe) static var supervisor = 0
  nonisolated(unsafe) static var meter: LinuxMemoryMeter! = nil
  nonisolated(unsafe) static var exitStatus: Int32 = 0
  nonisolated(unsafe) static var hasExited: UInt32 = 0

  init(arenaDescriptor: Int, clockFunction: UInt64, hasFSGSBase: Bool, virtualSharedObject: Range<UInt>) {
    processorCount = LinuxHost.countProcessors()
    self.arenaDescriptor = arenaDescriptor
    self.clockFunction = clockFunction
    self.hasFSGSBase = hasFSGSBase
    self.virtualSharedObject = virtualSharedObject
  }

  // MARK: Memory

  public func map(address: UInt, length: UInt, protection: Protection, backing: Backing) throws(Errno) {
    let fixed = 0x10
    var flags = fixed
    var descriptor = -1
    var offset: UInt = 0
    switch backing {
    case .anonymous: flags |= 0x22 | 0x4000  // MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE
    case .shared(let arenaOffset):
      flags |= 0x01
      descriptor = arenaDescriptor
      offset = arenaOffset
    case .copyOnWrite(let arenaOffset):
      flags |= 0x02 | 0x4000
      descriptor = arenaDescriptor
      offset = arenaOffset
    case .image(let imageOffset):
      flags |= 0x02 | 0x4000
      descriptor = imageDescriptor
      offset = imageOffset
    }
    _ = try LinuxCall.check(
      LinuxCall.raw(
        LinuxCall.mmap, Int(bitPattern: address), Int(bitPattern: length), Int(protection.rawValue & 7),
        flags,
        descriptor, Int(bitPattern: offset)))
  }

  public func unmap(address: UInt, length: UInt) throws(Errno) {
    _ = try LinuxCall.check(
      LinuxCall.raw(LinuxCall.munmap, Int(bitPattern: address), Int(bitPattern: length)))
  }

  public func protect(address: UInt, length: UInt, protection: Protection) throws(Errno) {
    _ = try LinuxCall.check(
      LinuxCall.raw(
        LinuxHost.hasKeys ? LinuxCall.pkeyMprotect : LinuxCall.mprotect, Int(bitPattern: address),
        Int(bitPattern: length), Int(protection.rawValue & 7), protection.contains(.guarded) ? 1 : 0))
  }

  public func move(from: UInt, length: UInt, to: UInt, newLength: UInt) throws(Errno) {
    _ = try LinuxCall.check(
      LinuxCall.raw(
        LinuxCall.mremap, Int(bitPattern: from), Int(bitPattern: length), Int(bitPattern: newLength), 3,
        Int(bitPattern: to)))
  }

  public func discard(address: UInt, length: UInt) throws(Errno) {
    _ = try LinuxCall.check(
      LinuxCall.raw(LinuxCall.madvise, Int(bitPattern: address), Int(bitPattern: length), 4))
  }

  public func release(arenaOffset: UInt, length: UInt) {
    // FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    _ = LinuxCall.raw(
      LinuxCall.fallocate, arenaDescriptor, 3, Int(bitPattern: arenaOffset), Int(bitPattern: length))
  }

  /// Where the launch record is mapped while it is read.
  public static let launchRecordAddress = 0x2e00_0000_0000
  /// Page behind the stack that Linux gave to the first process.
  var initialStackEnd = 0

  // MARK: Threads

  // CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM
  static let threadFlags = 0x0005_0f00
  // CLONE_PARENT, FS, FILES: every host process is a child of the supervisor, which looks for ended ones at its every turn. A signal
  // at every end would cost a processor more than the end itself.
  static let processFlags = 0x8600

  public func startThread(_ block: UnsafeMutablePointer<thread_block>) throws(Errno) {
    block.pointee.host_process = machine_current_block()?.pointee.host_process ?? 0
    try start(block, flags: LinuxHost.threadFlags)
  }

  public func startProcess(_ block: UnsafeMutablePointer<thread_block>) throws(Errno) {
    block.pointee.host_process = 0
    try start(block, flags: LinuxHost.processFlags)
  }

  /// CPU clocks of other threads and processes have numbers made of their ids (linux/posix-timers.h).
  public func processorNanoseconds(
    _ block: UnsafeMutablePointer<thread_block>, wholeProcess: Bool
  ) -> UInt64 {
    let id = wholeProcess ? block.pointee.host_process : block.pointee.host_thread
    guard id != 0 else { return 0 }
    var time = host_timespec()
    _ = withUnsafeMutablePointer(to: &time) {
      LinuxCall.raw(
        LinuxCall.clockGettime, Int(~UInt32(id) << 3 | (wholeProcess ? 2 : 6)), Int(bitPattern: $0))
    }
    return UInt64(bitPattern: time.seconds) &* 1_000_000_000 &+ UInt64(bitPattern: time.nanoseconds)
  }

  /// ru_maxrss of getrusage(2), in KiB, behind two times.
  public var peakResidentBytes: UInt64 {
    var usage: [18 of UInt64] = .init(repeating: 0)
    _ = withUnsafeMutablePointer(to: &usage) { LinuxCall.raw(LinuxCall.getrusage, 0, Int(bitPattern: $0)) }
    return usage[4] << 10
  }

  private func start(_ block: UnsafeMutablePointer<thread_block>, flags: Int) throws(Errno) {
    block.pointee.host_thread = 0
    _ = try LinuxCall.check(host_clone(flags, block.pointee.frame, block))
  }

  /// A new host thread's first call, still without GS.
  func started(_ block: UnsafeMutablePointer<thread_block>) {
    _ = LinuxCall.raw(LinuxCall.archPrctl, 0x1001, Int(bitPattern: block))
    if block.pointee.fs_base != 0 { setThreadPointer(UInt(block.pointee.fs_base)) }
    _ = LinuxCall.raw(LinuxCall.prctl, 1, 9)  // PR_SET_PDEATHSIG, SIGKILL
    // The supervisor may have died before: nobody would end this host process then.
    if LinuxHost.supervisor != 0, LinuxCall.raw(LinuxCall.getppid) != LinuxHost.supervisor {
      LinuxHost.endEverything(status: 137)
    }
    showSignalStack(block)
    var stack = signalStack(block)
    _ = withUnsafePointer(to: &stack) { LinuxCall.raw(LinuxCall.sigaltstack, Int(bitPattern: $0), 0) }
    guardStack(block)
    block.pointee.host_thread = UInt64(LinuxCall.raw(LinuxCall.gettid))
    if block.pointee.host_process == 0 {
      block.pointee.host_process = block.pointee.host_thread
    }
  }

  /// A stack that overflows faults in its guard page instead of writing over the signal stack.
  func guardStack(_ block: UnsafeMutablePointer<thread_block>) {
    let place = Int(ThreadStack.base(block)) + ThreadStack.guardOffset
    _ = LinuxCall.raw(LinuxCall.mprotect, place, 4096, 0)
  }

  public func endThread(clearing word: UnsafeMutablePointer<UInt32>) -> Never { host_exit_thread(word) }

  public func park(word: UnsafeMutablePointer<UInt32>, expected: UInt32, deadline: UInt64) {
    let address = Int(bitPattern: word)
    // FUTEX_WAIT_BITSET takes an absolute monotonic time.
    if deadline == .max {
      _ = LinuxCall.raw(LinuxCall.futex, address, 9, Int(expected), 0, 0, 0xffff_ffff)
    } else {
      var time = host_timespec(
        seconds: Int64(deadline / 1_000_000_000), nanoseconds: Int64(deadline % 1_000_000_000))
      _ = withUnsafePointer(to: &time) {
        LinuxCall.raw(LinuxCall.futex, address, 9, Int(expected), Int(bitPattern: $0), 0, 0xffff_ffff)
      }
    }
  }

  public func unpark(word: UnsafeMutablePointer<UInt32>) {
    _ = LinuxCall.raw(LinuxCall.futex, Int(bitPattern: word), 1, 1)
  }

  public func kick(_ block: UnsafeMutablePointer<thread_block>) {
    let thread = block.pointee.host_thread
    if thread != 0 { _ = LinuxCall.raw(LinuxCall.tkill, Int(thread), Signals.kick) }
  }

  public func setThreadPointer(_ address: UInt) {
    if hasFSGSBase {
      host_write_fs_base(UInt64(address))
    } else {
      _ = LinuxCall.raw(LinuxCall.archPrctl, 0x1002, Int(bitPattern: address))
    }
  }

  public func adopt(_ block: UnsafeMutablePointer<thread_block>) {
    if LinuxHost.hasKeys { return adoptWithKeys(block) }
    _ = LinuxCall.raw(LinuxCall.archPrctl, 0x1001, Int(bitPattern: block))
  }

  public func yield() { _ = LinuxCall.raw(LinuxCall.schedYield) }

  // MARK: Time and entropy

  private func clock(_ id: Int) -> UInt64 {
    var time = host_timespec()
    if clockFunction == 0 || host_call_clock(clockFunction, id, &time) != 0 {
      _ = withUnsafeMutablePointer(to: &time) {
        LinuxCall.raw(LinuxCall.clockGettime, id, Int(bitPattern: $0))
      }
    }
    return UInt64(bitPattern: time.seconds) &* 1_000_000_000 &+ UInt64(bitPattern: time.nanoseconds)
  }

  public var monotonicNanoseconds: UInt64 { clock(1) }
  public var realtimeNanoseconds: UInt64 { clock(0) }
  public func fillRandom(_ bytes: UnsafeMutableRawBufferPointer) { LinuxCall.getrandom(bytes) }

  // MARK: Processors

  /// As sched_getaffinity(2) has it, before the seal.
  private static func countProcessors() -> Int {
    var mask: [128 of UInt64] = .init(repeating: 0)
    let size = withUnsafeMutablePointer(to: &mask) {
      LinuxCall.raw(LinuxCall.schedGetAffinity, 0, 1024, Int(bitPattern: $0))
    }
    var count = 0
    for i in 0..<max(0, min(size / 8, 128)) { count += mask[i].nonzeroBitCount }
    return max(count, 1)
  }

  // MARK: Devices

  public func pollDevices(console: Bool, network: Bool, deadline: UInt64) -> DeviceEvents {
    var set: [3 of host_pollfd] = .init(repeating: host_pollfd(fd: -1, events: 1, revents: 0))
    set[0].fd = Int32(wakeDescriptor)
    if console { set[1].fd = Int32(streams[0]) }
    if network {
      set[2].fd = Int32(networkDescriptor)
      if Devices.wantsNetworkOutput { set[2].events = 5 }  // POLLIN | POLLOUT
    }
    var time = host_timespec()
    if deadline != .max {
      let now = monotonicNanoseconds
      let left = deadline > now ? deadline - now : 0
      time = host_timespec(seconds: Int64(left / 1_000_000_000), nanoseconds: Int64(left % 1_000_000_000))
    }
    let found = withUnsafeMutablePointer(to: &set) { set in
      withUnsafePointer(to: &time) { time in
        LinuxCall.raw(
          LinuxCall.ppoll, Int(bitPattern: set), 3, deadline == .max ? 0 : Int(bitPattern: time), 0, 8)
      }
    }
    guard found > 0 else { return [] }
    var events: DeviceEvents = []
    if set[0].revents != 0 {
      var count: UInt64 = 0
      _ = withUnsafeMutablePointer(to: &count) {
        LinuxCall.raw(LinuxCall.read, wakeDescriptor, Int(bitPattern: $0), 8)
      }
    }
    if set[1].revents != 0 { events.insert(.console) }
    if set[2].revents != 0 { events.insert(.network) }
    return events
  }

  public func wakePoller() {
    var one: UInt64 = 1
    _ = withUnsafePointer(to: &one) { LinuxCall.raw(LinuxCall.write, wakeDescriptor, Int(bitPattern: $0), 8) }
  }

  public func readConsole(_ bytes: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
    if waitingStreams & 1 != 0, !isReady(streams[0], events: 1) { throw .again }
    return try LinuxCall.check(
      LinuxCall.raw(LinuxCall.read, streams[0], Int(bitPattern: bytes.baseAddress), bytes.count))
  }

  public func writeConsole(_ stream: Int, _ bytes: UnsafeRawBufferPointer) throws(Errno) -> Int {
    var count = bytes.count
    if waitingStreams & 1 << stream != 0 {
      guard isReady(streams[stream], events: 4) else { throw .again }
      count = min(count, 4096)  // PIPE_BUF: what poll(2) promises to take at once
    }
    return try LinuxCall.check(
      LinuxCall.raw(LinuxCall.write, streams[stream], Int(bitPattern: bytes.baseAddress), count))
  }

  /// Whether a call on the descriptor would not wait: the kernel lock is held.
  private func isReady(_ descriptor: Int, events: Int16) -> Bool {
    var entry = host_pollfd(fd: Int32(descriptor), events: events, revents: 0)
    var time = host_timespec()
    return withUnsafeMutablePointer(to: &entry) { entry in
      withUnsafeMutablePointer(to: &time) { time in
        LinuxCall.raw(LinuxCall.ppoll, Int(bitPattern: entry), 1, Int(bitPattern: time), 0, 8)
      }
    } > 0
  }

  public func readFrame(_ bytes: UnsafeMutableRawBufferPointer) -> Int {
    LinuxCall.raw(LinuxCall.read, networkDescriptor, Int(bitPattern: bytes.baseAddress), bytes.count)
  }

  public func writeFrame(header: UnsafeRawBufferPointer, _ bytes: UnsafeRawBufferPointer) -> Int {
    var vectors: [2 of host_iovec] = [
      host_iovec(base: UInt64(UInt(bitPattern: header.baseAddress)), length: UInt64(header.count)),
      host_iovec(base: UInt64(UInt(bitPattern: bytes.baseAddress)), length: UInt64(bytes.count)),
    ]
    return withUnsafePointer(to: &vectors) {
      LinuxCall.raw(LinuxCall.writev, networkDescriptor, Int(bitPattern: $0), 2)
    }
  }

  // MARK: End

  public func exit(status: Int32) -> Never { LinuxHost.endEverything(status: status) }

  public func fail(_ text: StaticString, status: Int32) -> Never {
    if status == 70 { panic(text) }
    LinuxHost.fail(text, status: status)
  }

  public func seal() {
    leaveStart()
    Seal.install()
  }

  /// What only start-up used would be copied at every fork: the stack that Linux gave, the launch record, the image's
  /// exokernel.
  private func leaveStart() {
    _ = LinuxCall.raw(LinuxCall.munmap, initialStackEnd - (1 << 20), 1 << 20)
    _ = LinuxCall.raw(LinuxCall.munmap, LinuxHost.launchRecordAddress, 1 << 30)
    _ = LinuxCall.raw(LinuxCall.munmap, 0x1800_0000_0000, 1 << 30)
  }

  /// Tells the supervisor, which ends every host process with itself.
  static func endEverything(status: Int32) -> Never {
    if machine_exchange(&hasExited, 1) == 0 { exitStatus = status }
    // The supervisor hears of the end of the first process only.
    if supervisor != 0 { _ = LinuxCall.raw(LinuxCall.tkill, supervisor, 17) }
    _ = LinuxCall.raw(LinuxCall.exitGroup, Int(status))
    while true {}
  }
}

@c(host_thread_started)
public func hostThreadStarted(_ block: UnsafeMutablePointer<thread_block>) {
  LinuxHost.shared.started(block)
}

extension LinuxHost {
  nonisolated(unsafe) public internal(set) static var shared: LinuxHost! = nil
}
