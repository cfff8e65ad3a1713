public import ABI
public import Tasks

/// What clock_gettime(2) and timers count. Kernel lock held for every call.
public enum TimerClock: Equatable {
  case realtime
  case monotonic
  /// Processor time of a process; of its programs alone where `userOnly`.
  case process(Int32, userOnly: Bool)
  case thread(Int32, userOnly: Bool)

  /// The clock that a call of `caller` names. EINVAL where there is none, or none that the caller may read.
  public init(_ identifier: Int32, for caller: LinuxThread) throws(Errno) {
    switch identifier {
    case 0, 5, 8, 11: self = .realtime
    case 1, 4, 6, 7, 9: self = .monotonic
    case 2: self = .process(caller.process.pid, userOnly: false)
    case 3: self = .thread(caller.tid, userOnly: false)
    default: self = try TimerClock.processor(identifier, for: caller)
    }
  }

  /// CPU clocks of processes and threads: the id inverted above three bits that say which (clock_getcpuclockid(3)).
  private static func processor(_ identifier: Int32, for caller: LinuxThread) throws(Errno) -> TimerClock {
    guard identifier < 0, identifier & 3 != 3 else { throw .invalid }
    let number = ~(identifier >> 3)
    let userOnly = identifier & 3 == 1
    if identifier & 4 != 0 {
      guard number != 0 else { return .thread(caller.tid, userOnly: userOnly) }
      guard ProcessTable.thread(number)?.process === caller.process else { throw .invalid }
      return .thread(number, userOnly: userOnly)
    }
    guard number != 0 else { return .process(caller.process.pid, userOnly: userOnly) }
    guard ProcessTable.process(number) != nil else { throw .invalid }
    return .process(number, userOnly: userOnly)
  }

  /// Nanoseconds; nil when the process or thread has ended.
  public var reading: UInt64? {
    switch self {
    case .realtime: return host.realtimeNanoseconds
    case .monotonic: return host.monotonicNanoseconds
    case .process(let pid, let userOnly):
      guard let process = ProcessTable.process(pid) else { return nil }
      return userOnly ? process.userNanoseconds : process.processorNanoseconds
    case .thread(let tid, let userOnly):
      guard let thread = ProcessTable.thread(tid) else { return nil }
      return userOnly ? thread.userNanoseconds : thread.processorNanoseconds
    }
  }

  /// It counts what processors do for somebody, and stands while he sleeps.
  public var isProcessorTime: Bool { self != .realtime && self != .monotonic }

  /// How much faster than time itself it can go.
  fileprivate var speed: Int {
    guard case .process(let pid, _) = self else { return 1 }
    return max(1, ProcessTable.process(pid)?.threads.count ?? 1)
  }
}

/// A timer on any of the clocks. No host says when a process has used so much processor time: such a clock is looked at
/// when it can have come so far at the earliest.
public class ClockTimer: Timer {
  let clock: TimerClock
  /// Nanoseconds between expirations, 0 for a single one.
  var interval: UInt64 = 0
  /// When it expires next, nil while it is not set: by its own clock, or by the monotonic one for the real-time clock.
  private(set) var expiration: UInt64?
  private var lastReading: UInt64 = 0
  private var lastWait: UInt64 = 0
  /// Linux looks at processor time at its ticks.
  private static var tick: UInt64 { 4_000_000 }
  /// Who uses no processor time is looked at ever more seldom, at least this often (nanoseconds).
  private static var longestWait: UInt64 { 64_000_000 }

  init(clock: TimerClock) {
    self.clock = clock
    super.init()
  }

  /// It has expired, and `missed` times more that nobody was told of. May set it anew.
  func expire(missed: UInt64) {}

  /// What `expiration` is compared with.
  private final var time: UInt64 { clock.isProcessorTime ? clock.reading ?? 0 : host.monotonicNanoseconds }

  /// Has it expire in so many nanoseconds.
  final func set(after nanoseconds: UInt64) {
    let (sum, overflow) = time.addingReportingOverflow(nanoseconds)
    set(overflow ? .max - 1 : sum)
  }

  /// Has it expire at `expiration`, or never.
  final func set(_ expiration: UInt64?) {
    disarm()
    self.expiration = expiration
    guard let expiration else { return }
    guard clock.isProcessorTime else { return arm(expiration) }
    lastWait = 0
    look(time, host.monotonicNanoseconds)
  }

  /// Nanoseconds until it expires; 0 while it is not set.
  final var remaining: UInt64 {
    guard let expiration else { return 0 }
    let now = time
    // Never 0 for one that is set.
    return expiration > now ? expiration - now : 1
  }

  public final override func fire(now: UInt64) {
    if case .thread(let tid, _) = clock, let thread = ProcessTable.thread(tid), thread !== Thread.current {
      // A thread's time is known to itself on every host. One that sleeps uses none.
      if thread.isParked { look(lastReading, now) } else { thread.accept(Visit { self.read(now: now) }) }
    } else {
      read(now: now)
    }
  }

  private func read(now: UInt64) {
    guard let expiration, let reading = clock.isProcessorTime ? clock.reading : now else { return }
    guard reading >= expiration else { return look(reading, now) }
    let missed = interval > 0 ? (reading - expiration) / interval : 0
    set(interval > 0 ? expiration &+ (missed &+ 1) &* interval : nil)
    expire(missed: missed)
  }

  private func look(_ reading: UInt64, _ now: UInt64) {
    guard let expiration else { return }
    let left = max((expiration > reading ? expiration - reading : 0) / UInt64(clock.speed), ClockTimer.tick)
    // Threads may come, so a process is not left alone for long.
    var wait = min(left, 1_000_000_000)
    if reading == lastReading { wait = max(wait, min(2 &* lastWait, ClockTimer.longestWait)) }
    (lastReading, lastWait) = (reading, wait)
    arm(now &+ wait)
  }
}

/// A sleep by processor time (clock_nanosleep(2)).
public final class ClockSleep: ClockTimer {
  private let queue = WaitQueue()

  public override init(clock: TimerClock) { super.init(clock: clock) }

  override func expire(missed: UInt64) { queue.wake() }

  /// Sleeps until the clock shows `time`. EINTR.
  public func sleep(until time: UInt64) throws(Errno) {
    set(time)
    defer { set(nil) }
    while expiration != nil { try queue.sleep() }
  }
}
