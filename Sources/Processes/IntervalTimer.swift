public import ABI
public import Tasks

/// An interval timer of a process (setitimer(2)). All three kinds run on the monotonic clock: the libOS does not
/// account CPU time, so ITIMER_VIRTUAL and ITIMER_PROF count real time, which is exact for a busy thread only.
public final class IntervalTimer: Timer {
  unowned(unsafe) let process: Process
  let signal: Int32
  /// Nanoseconds between expirations, 0 for a single one.
  var interval: UInt64 = 0

  init(process: Process, signal: Int32) {
    self.process = process
    self.signal = signal
    super.init()
  }

  public override func fire(now: UInt64) {
    if interval > 0 {
      // Missed expirations collapse into one signal.
      let missed = (now &- deadline) / interval
      arm(deadline &+ (missed &+ 1) &* interval)
    }
    process.notify(SignalInformation(signal, code: SignalInformation.kernel))
  }
}

/// A POSIX timer (timer_create(2)).
public final class PosixTimer: Timer {
  public let identifier: Int32
  unowned(unsafe) let process: Process
  /// SIGEV_THREAD_ID's thread; 0 for the process.
  let tid: Int32
  /// 0 for SIGEV_NONE.
  let signal: Int32
  let value: UInt64
  let isRealtime: Bool
  var interval: UInt64 = 0
  var overrun: Int32 = 0
  /// Overruns of the last delivered signal (timer_getoverrun(2)).
  var reportedOverrun: Int32 = 0

  init(identifier: Int32, process: Process, tid: Int32, signal: Int32, value: UInt64, isRealtime: Bool) {
    self.identifier = identifier
    self.process = process
    self.tid = tid
    self.signal = signal
    self.value = value
    self.isRealtime = isRealtime
    super.init()
  }

  public override func fire(now: UInt64) {
    var extra: UInt64 = 0
    if interval > 0 {
      extra = (now &- deadline) / interval
      arm(deadline &+ (extra &+ 1) &* interval)
    }
    overrun = Int32(clamping: UInt64(overrun) &+ extra)
    guard signal != 0 else { return }
    // A signal of this timer that still waits counts the expiration as an overrun instead of queueing again.
    if isQueued {
      overrun = overrun == .max ? .max : overrun + 1
      return
    }
    var information = SignalInformation(signal, code: SignalInformation.timer)
    information.pid = identifier
    information.value = value
    do throws(Errno) {
      if tid == 0 { try process.send(information) } else { try ProcessTable.thread(tid)?.send(information) }
    } catch {}
  }

  /// Looked up, since the signal may have been discarded by an action that ignores it.
  private var isQueued: Bool {
    if tid == 0 { return process.pending.hasTimer(identifier) }
    return ProcessTable.thread(tid)?.pending.hasTimer(identifier) ?? false
  }

  /// The signal is being delivered: what it reports as overruns.
  func delivered() -> Int32 {
    reportedOverrun = overrun
    overrun = 0
    return reportedOverrun
  }
}

/// Remaining time and interval in nanoseconds.
public struct TimerSetting {
  public var value: UInt64
  public var interval: UInt64
  public init(value: UInt64, interval: UInt64) {
    self.value = value
    self.interval = interval
  }
}

extension Process {
  /// getitimer(2): `which` is ITIMER_REAL 0, VIRTUAL 1, PROF 2. EINVAL for others.
  public func intervalTimer(_ which: Int32) throws(Errno) -> TimerSetting {
    let timer = try intervalTimerSlot(which, create: false)
    guard let timer, timer.isArmed else { return TimerSetting(value: 0, interval: timer?.interval ?? 0) }
    return TimerSetting(value: remaining(timer), interval: timer.interval)
  }

  /// setitimer(2), alarm(2): the old setting. Nanoseconds.
  public func setIntervalTimer(_ which: Int32, _ setting: TimerSetting) throws(Errno) -> TimerSetting {
    let old = try intervalTimer(which)
    guard let timer = try intervalTimerSlot(which, create: true) else { throw .invalid }
    timer.disarm()
    timer.interval = setting.interval
    if setting.value > 0 { timer.arm(deadline(after: setting.value)) }
    return old
  }

  private func intervalTimerSlot(_ which: Int32, create: Bool) throws(Errno) -> IntervalTimer? {
    switch which {
    case 0:
      if create, realTimer == nil { realTimer = IntervalTimer(process: self, signal: Signal.alarm) }
      return realTimer
    case 1:
      if create, virtualTimer == nil {
        virtualTimer = IntervalTimer(process: self, signal: Signal.virtualAlarm)
      }
      return virtualTimer
    case 2:
      if create, profilingTimer == nil {
        profilingTimer = IntervalTimer(process: self, signal: Signal.profiling)
      }
      return profilingTimer
    default: throw .invalid
    }
  }

  private func remaining(_ timer: Timer) -> UInt64 {
    let now = host.monotonicNanoseconds
    // Never 0 for a timer that is armed.
    return timer.deadline > now ? timer.deadline - now : 1
  }

  private func deadline(after nanoseconds: UInt64) -> UInt64 {
    let (sum, overflow) = host.monotonicNanoseconds.addingReportingOverflow(nanoseconds)
    return overflow ? .max - 1 : sum
  }

  /// timer_create(2): the new timer's id. `notification` is SIGEV_SIGNAL 0, NONE 1 or THREAD_ID 4 (THREAD 2 is the C
  /// library's). EINVAL for bad numbers, EAGAIN past 1024 timers. `value` nil: the timer's id.
  public func createTimer(
    clock: Int32, notification: Int32, signal: Int32, value: UInt64?, tid: Int32
  ) throws(Errno) -> Int32 {
    guard [0, 1, 2, 3, 7, 8, 9, 11].contains(clock) else { throw .invalid }
    guard [0, 1, 2, 4].contains(notification) else { throw .invalid }
    if notification != 1, signal < 1 || signal > Signal.last { throw .invalid }
    if notification == 4, ProcessTable.thread(tid)?.process !== self { throw .invalid }
    guard posixTimers.count < 1024 else { throw .again }
    let identifier = nextTimerIdentifier
    nextTimerIdentifier = identifier == .max ? 0 : identifier + 1
    posixTimers.append(
      PosixTimer(
        identifier: identifier, process: self, tid: notification == 4 ? tid : 0,
        signal: notification == 1 ? 0 : signal, value: value ?? UInt64(identifier),
        isRealtime: clock == 0 || clock == 8 || clock == 11))
    return identifier
  }

  func posixTimer(_ identifier: Int32) throws(Errno) -> PosixTimer {
    for timer in posixTimers where timer.identifier == identifier { return timer }
    throw .invalid
  }

  /// timer_gettime(2)
  public func timerSetting(_ identifier: Int32) throws(Errno) -> TimerSetting {
    let timer = try posixTimer(identifier)
    return TimerSetting(value: timer.isArmed ? remaining(timer) : 0, interval: timer.interval)
  }

  /// timer_settime(2): the old setting. `isAbsolute` (TIMER_ABSTIME) times are of the timer's clock.
  public func setTimer(
    _ identifier: Int32, _ setting: TimerSetting, isAbsolute: Bool
  ) throws(Errno) -> TimerSetting {
    let timer = try posixTimer(identifier)
    let old = try timerSetting(identifier)
    timer.disarm()
    timer.interval = setting.interval
    timer.overrun = 0
    guard setting.value > 0 else { return old }
    if !isAbsolute {
      timer.arm(deadline(after: setting.value))
    } else if timer.isRealtime {
      timer.arm(Clock.monotonic(fromRealtime: setting.value))
    } else {
      timer.arm(setting.value)
    }
    return old
  }

  /// timer_delete(2)
  public func deleteTimer(_ identifier: Int32) throws(Errno) {
    let timer = try posixTimer(identifier)
    timer.disarm()
    posixTimers.removeAll { $0 === timer }
  }

  /// timer_getoverrun(2)
  public func timerOverrun(_ identifier: Int32) throws(Errno) -> Int32 {
    try posixTimer(identifier).reportedOverrun
  }

  /// The end.
  func disarmTimers() {
    realTimer?.disarm()
    virtualTimer?.disarm()
    profilingTimer?.disarm()
    processorLimit?.disarm()
    deletePosixTimers()
  }

  /// execve(2) deletes POSIX timers and keeps interval timers.
  public func deletePosixTimers() {
    for timer in posixTimers { timer.disarm() }
    posixTimers = []
  }
}

/// Conversion between the clocks.
public enum Clock {
  /// The monotonic time at which the real-time clock will show `realtime`; the past gives now.
  public static func monotonic(fromRealtime realtime: UInt64) -> UInt64 {
    let now = host.monotonicNanoseconds
    let realtimeNow = host.realtimeNanoseconds
    if realtime <= realtimeNow { return now }
    let (sum, overflow) = now.addingReportingOverflow(realtime - realtimeNow)
    return overflow ? .max - 1 : sum
  }
}
