public import ABI
public import Tasks

/// An interval timer of a process (setitimer(2)).
public final class IntervalTimer: ClockTimer {
  unowned(unsafe) let process: Process
  let signal: Int32

  init(process: Process, clock: TimerClock, signal: Int32) {
    self.process = process
    self.signal = signal
    super.init(clock: clock)
  }

  /// Missed expirations collapse into one signal.
  override func expire(missed: UInt64) {
    process.notify(SignalInformation(signal, code: SignalInformation.kernel))
  }
}

/// A POSIX timer (timer_create(2)).
public final class PosixTimer: ClockTimer {
  public let identifier: Int32
  unowned(unsafe) let process: Process
  /// SIGEV_THREAD_ID's thread; 0 for the process.
  let tid: Int32
  /// 0 for SIGEV_NONE.
  let signal: Int32
  let value: UInt64
  var overrun: Int32 = 0
  /// Overruns of the last delivered signal (timer_getoverrun(2)).
  var reportedOverrun: Int32 = 0

  init(identifier: Int32, process: Process, clock: TimerClock, tid: Int32, signal: Int32, value: UInt64) {
    self.identifier = identifier
    self.process = process
    self.tid = tid
    self.signal = signal
    self.value = value
    super.init(clock: clock)
  }

  override func expire(missed: UInt64) {
    overrun = Int32(clamping: UInt64(overrun) &+ missed)
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
    return TimerSetting(value: timer?.remaining ?? 0, interval: timer?.interval ?? 0)
  }

  /// setitimer(2), alarm(2): the old setting. Nanoseconds.
  public func setIntervalTimer(_ which: Int32, _ setting: TimerSetting) throws(Errno) -> TimerSetting {
    let old = try intervalTimer(which)
    guard let timer = try intervalTimerSlot(which, create: true) else { throw .invalid }
    timer.interval = setting.interval
    if setting.value > 0 { timer.set(after: setting.value) } else { timer.set(nil) }
    return old
  }

  private func intervalTimerSlot(_ which: Int32, create: Bool) throws(Errno) -> IntervalTimer? {
    switch which {
    case 0:
      if create, realTimer == nil {
        realTimer = IntervalTimer(process: self, clock: .monotonic, signal: Signal.alarm)
      }
      return realTimer
    case 1:
      if create, virtualTimer == nil {
        virtualTimer = IntervalTimer(
          process: self, clock: .process(pid, userOnly: true), signal: Signal.virtualAlarm)
      }
      return virtualTimer
    case 2:
      if create, profilingTimer == nil {
        profilingTimer = IntervalTimer(
          process: self, clock: .process(pid, userOnly: false), signal: Signal.profiling)
      }
      return profilingTimer
    default: throw .invalid
    }
  }

  /// timer_create(2): the new timer's id. `notification` is SIGEV_SIGNAL 0, NONE 1 or THREAD_ID 4 (THREAD 2 is the C
  /// library's). EINVAL for bad numbers, EAGAIN past 1024 timers. `value` nil: the timer's id.
  public func createTimer(
    clock: TimerClock, notification: Int32, signal: Int32, value: UInt64?, tid: Int32
  ) throws(Errno) -> Int32 {
    guard [0, 1, 2, 4].contains(notification) else { throw .invalid }
    if notification != 1, signal < 1 || signal > Signal.last { throw .invalid }
    if notification == 4, ProcessTable.thread(tid)?.process !== self { throw .invalid }
    guard posixTimers.count < 1024 else { throw .again }
    let identifier = nextTimerIdentifier
    nextTimerIdentifier = identifier == .max ? 0 : identifier + 1
    posixTimers.append(
      PosixTimer(
        identifier: identifier, process: self, clock: clock, tid: notification == 4 ? tid : 0,
        signal: notification == 1 ? 0 : signal, value: value ?? UInt64(identifier)))
    return identifier
  }

  func posixTimer(_ identifier: Int32) throws(Errno) -> PosixTimer {
    for timer in posixTimers where timer.identifier == identifier { return timer }
    throw .invalid
  }

  /// timer_gettime(2)
  public func timerSetting(_ identifier: Int32) throws(Errno) -> TimerSetting {
    let timer = try posixTimer(identifier)
    return TimerSetting(value: timer.remaining, interval: timer.interval)
  }

  /// timer_settime(2): the old setting. `isAbsolute` (TIMER_ABSTIME) times are of the timer's clock.
  public func setTimer(
    _ identifier: Int32, _ setting: TimerSetting, isAbsolute: Bool
  ) throws(Errno) -> TimerSetting {
    let timer = try posixTimer(identifier)
    let old = try timerSetting(identifier)
    timer.interval = setting.interval
    timer.overrun = 0
    if setting.value == 0 {
      timer.set(nil)
    } else if !isAbsolute {
      timer.set(after: setting.value)
    } else {
      timer.set(timer.clock == .realtime ? Clock.monotonic(fromRealtime: setting.value) : setting.value)
    }
    return old
  }

  /// timer_delete(2)
  public func deleteTimer(_ identifier: Int32) throws(Errno) {
    let timer = try posixTimer(identifier)
    timer.set(nil)
    posixTimers.removeAll { $0 === timer }
  }

  /// timer_getoverrun(2)
  public func timerOverrun(_ identifier: Int32) throws(Errno) -> Int32 {
    try posixTimer(identifier).reportedOverrun
  }

  /// The end.
  func disarmTimers() {
    for timer in [realTimer, virtualTimer, profilingTimer, processorLimit] as [ClockTimer?] {
      timer?.set(nil)
    }
    deletePosixTimers()
  }

  /// execve(2) deletes POSIX timers and keeps interval timers.
  public func deletePosixTimers() {
    for timer in posixTimers { timer.set(nil) }
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
