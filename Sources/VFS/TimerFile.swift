public import ABI
public import Tasks

/// timerfd_create(2): expirations of a clock, read as a count. Times are nanoseconds.
public final class TimerFile: OpenFile {
  private final class Alarm: Timer {
    unowned(unsafe) var file: TimerFile?
    override func fire(now: UInt64) { file?.expire(now) }
  }

  private let isRealtime: Bool
  private let alarm = Alarm()
  private let queue = WaitQueue()
  private var interval: UInt64 = 0
  private var expirations: UInt64 = 0

  /// `clock` as clock_gettime(2) numbers it (REALTIME, MONOTONIC, BOOTTIME and the alarm clocks); EINVAL otherwise.
  public init(clock: Int32, flags: UInt32) throws(Errno) {
    guard clock == 0 || clock == 1 || (7...9).contains(clock) else { throw .invalid }
    isRealtime = clock == 0 || clock == 8
    super.init(inode: PipeInodes.anonymous(mode: 0o600), flags: flags & 0o4000 | 2)
    alarm.file = self
  }

  deinit { alarm.disarm() }

  public override var anonymousName: StaticString { "[timerfd]" }
  public override var waitQueue: WaitQueue? { queue }
  public override func readiness() -> Readiness { expirations > 0 ? .readable : [] }

  /// timerfd_settime(2): `value` 0 disarms. Returns what `current` gave before.
  @discardableResult
  public func set(value: UInt64, interval: UInt64, isAbsolute: Bool) -> (value: UInt64, interval: UInt64) {
    let old = current
    alarm.disarm()
    expirations = 0
    self.interval = interval
    guard value > 0 else { return old }
    let now = host.monotonicNanoseconds
    if !isAbsolute {
      alarm.arm(saturatingSum(now, value))
    } else if isRealtime {
      let realtime = host.realtimeNanoseconds
      alarm.arm(value > realtime ? saturatingSum(now, value - realtime) : now)
    } else {
      alarm.arm(value)
    }
    if alarm.deadline <= now { Timers.run(now: now) }
    return old
  }

  /// timerfd_gettime(2): the time that is left, 0 if disarmed, and the interval.
  public var current: (value: UInt64, interval: UInt64) {
    guard alarm.isArmed else { return (0, interval) }
    let now = host.monotonicNanoseconds
    return (alarm.deadline > now ? alarm.deadline - now : 1, interval)
  }

  private func saturatingSum(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let (sum, overflow) = a.addingReportingOverflow(b)
    return overflow ? .max - 1 : sum
  }

  private func expire(_ now: UInt64) {
    expirations &+= 1
    if interval > 0 {
      // Expirations that were missed are counted together.
      let missed = now > alarm.deadline ? (now - alarm.deadline) / interval : 0
      expirations &+= missed
      alarm.arm(
        saturatingSum(alarm.deadline, (missed &+ 1).multipliedReportingOverflow(by: interval).partialValue))
    }
    if !queue.isEmpty { queue.wake(Readiness.readable.rawValue) }
  }

  public override func read(_ slice: UserSlice) throws(Errno) -> Int {
    guard slice.count >= 8 else { throw .invalid }
    while expirations == 0 {
      if isNonblocking { throw .again }
      try queue.sleep()
    }
    try UserSlice.store(expirations, at: slice.address)
    expirations = 0
    return 8
  }

  public override func released() { alarm.disarm() }
}
