import ABI
import CMachine
import Processes
import Tasks

/// A host in memory, for one test thread: time moves only by parking, and `whenParked` plays the other threads.
final class FakeHost: HostInterface {
  var now: UInt64 = 1_000
  /// Processor time of every process and thread.
  var used: UInt64 = 0
  /// Called at each sleep, kernel lock held by nobody else.
  var whenParked: [() -> Void] = []

  func map(address: UInt, length: UInt, protection: Protection, backing: Backing) throws(Errno) {}
  func unmap(address: UInt, length: UInt) throws(Errno) {}
  func protect(address: UInt, length: UInt, protection: Protection) throws(Errno) {}
  func move(from: UInt, length: UInt, to: UInt, newLength: UInt) throws(Errno) {}
  func discard(address: UInt, length: UInt) throws(Errno) {}
  func release(arenaOffset: UInt, length: UInt) {}
  func startThread(_ block: UnsafeMutablePointer<thread_block>) throws(Errno) {}
  func startProcess(_ block: UnsafeMutablePointer<thread_block>) throws(Errno) {}
  func endThread(clearing word: UnsafeMutablePointer<UInt32>) -> Never { fatalError("not in tests") }
  func park(word: UnsafeMutablePointer<UInt32>, expected: UInt32, deadline: UInt64) { step(deadline) }
  func unpark(word: UnsafeMutablePointer<UInt32>) {}
  func kick(_ block: UnsafeMutablePointer<thread_block>) {}
  func setThreadPointer(_ address: UInt) {}
  func adopt(_ block: UnsafeMutablePointer<thread_block>) {}
  func fail(_ text: StaticString, status: Int32) -> Never { fatalError("\(text)") }
  func seal() {}
  func yield() {}
  var monotonicNanoseconds: UInt64 { now }
  func processorNanoseconds(_ block: UnsafeMutablePointer<thread_block>, wholeProcess: Bool) -> UInt64 {
    used
  }
  var realtimeNanoseconds: UInt64 { now + 1_000_000 }
  func fillRandom(_ bytes: UnsafeMutableRawBufferPointer) {}
  func pollDevices(console: Bool, network: Bool, deadline: UInt64) -> DeviceEvents {
    step(deadline)
    return []
  }
  func wakePoller() {}
  func readConsole(_ bytes: UnsafeMutableRawBufferPointer) throws(Errno) -> Int { 0 }
  func writeConsole(_ stream: Int, _ bytes: UnsafeRawBufferPointer) throws(Errno) -> Int { bytes.count }
  func readFrame(_ bytes: UnsafeMutableRawBufferPointer) -> Int { 0 }
  func writeFrame(header: UnsafeRawBufferPointer, _ bytes: UnsafeRawBufferPointer) -> Int {
    header.count + bytes.count
  }
  func exit(status: Int32) -> Never { fatalError("not in tests") }

  private func step(_ deadline: UInt64) {
    if !whenParked.isEmpty {
      whenParked.removeFirst()()
    } else {
      precondition(deadline != .max, "a test sleeps for ever")
      now = max(now, deadline)
    }
  }
}

/// pid 1 and what tests create below it. One at a time: the libOS's tables are global.
final class World {
  let machine = FakeHost()
  let first: LinuxThread

  init() throws {
    host = machine
    // The test's thread is the libOS's: it gives the lock up when it parks. From the world before it holds it.
    _ = KernelLock.tryAcquire()
    ProcessTable.reset()
    first = try ProcessTable.createProcess(parent: nil, block: World.block())
    enter(first)
  }

  static func block() -> UnsafeMutablePointer<thread_block> {
    let block = UnsafeMutablePointer<thread_block>.allocate(capacity: 1)
    block.initialize(to: thread_block())
    return block
  }

  func enter(_ thread: LinuxThread) {
    machine_set_current_thread(Unmanaged.passUnretained(thread).toOpaque())
  }

  func child(of parent: LinuxThread) throws -> LinuxThread {
    try ProcessTable.createProcess(parent: parent.process, block: World.block())
  }

  func sibling(of thread: LinuxThread) throws -> LinuxThread {
    try ProcessTable.createThread(in: thread.process, block: World.block())
  }

  /// The thread passes its safe point with a frame that no handler may need.
  @discardableResult
  func safePoint(_ thread: LinuxThread) -> Bool {
    enter(thread)
    var frame = trap_frame()
    guard case .exit = thread.deliverSignals(frame: &frame, number: nil) else { return false }
    thread.exit()
    return true
  }
}

func code(_ body: () throws(Errno) -> Void) -> Int32 {
  do throws(Errno) {
    try body()
    return 0
  } catch { return error.rawValue }
}

func handler(_ address: UInt, flags: UInt64 = 0, mask: UInt64 = 0) -> SignalAction {
  var action = SignalAction()
  action.handler = address
  action.flags = flags | SignalAction.hasRestorer
  action.restorer = 0x5000
  action.mask = SignalSet(rawValue: mask)
  return action
}

/// A repeatable generator (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
