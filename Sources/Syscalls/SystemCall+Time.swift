import ABI
import Processes
import Tasks

/// Clocks, sleeping and interval timers (time(7)).
extension SystemCall {
  func dispatchTime() throws(Errno) -> Int? {
    switch number {
    case 35: return try sleep(until: host.monotonicNanoseconds &+ (try duration(a)), remainder: b)
    case 230: return try clock_nanosleep()
    case 228:
      try storeTime(try clock(int(a)), at: b)
      return 0
    case 229:
      _ = try clock(int(a))
      if b != 0 { try UserSlice.store((Int64(0), Int64(1)), at: b) }
      return 0
    case 96:
      let now = host.realtimeNanoseconds
      if a != 0 {
        try UserSlice.store((Int64(now / 1_000_000_000), Int64(now % 1_000_000_000 / 1000)), at: a)
      }
      if b != 0 { try UserSlice.store((Int32(0), Int32(0)), at: b) }
      return 0
    case 201:
      let now = Int(host.realtimeNanoseconds / 1_000_000_000)
      if a != 0 { try UserSlice.store(now, at: a) }
      return now
    case 100:
      // struct tms, in hundredths of a second
      let tick: UInt64 = 10_000_000
      if a != 0 {
        let (own, children) = (process.currentUsage, process.childrenUsage)
        try UserSlice.store(
          (own.user / tick, own.system / tick, children.user / tick, children.system / tick), at: a)
      }
      return Int(host.monotonicNanoseconds / 10_000_000)
    case 37:
      let old = try process.setIntervalTimer(
        0, TimerSetting(value: UInt64(unsigned(a)) * 1_000_000_000, interval: 0))
      return Int((old.value + 999_999_999) / 1_000_000_000)
    case 36:
      try storeSetting(try process.intervalTimer(int(a)), at: b)
      return 0
    case 38:
      let setting = try loadSetting(b)
      let old = try process.setIntervalTimer(int(a), setting)
      if c != 0 { try storeSetting(old, at: c) }
      return 0
    case 164, 227: throw .notPermitted
    case 159: return try adjtime(a)
    case 305: return try adjtime(b)
    case 222: return try timer_create()
    case 223: return try timer_settime()
    case 224:
      try storeTimerSetting(try process.timerSetting(int(a)), at: b)
      return 0
    case 225: return Int(try process.timerOverrun(int(a)))
    case 226:
      try process.deleteTimer(int(a))
      return 0
    default: return nil
    }
  }

  private func clock(_ identifier: Int32) throws(Errno) -> UInt64 {
    guard let reading = try TimerClock(identifier, for: thread).reading else { throw .invalid }
    return reading
  }

  /// adjtimex(2): the clock is the host's; it can be read only.
  private func adjtime(_ address: UInt) throws(Errno) -> Int {
    let modes = try UserSlice.load(address, UInt32(0))
    guard modes == 0 else { throw .notPermitted }
    try UserSlice(address, 208).clear(208)
    try UserSlice.store(Int64(10000), at: address + 88)  // tick, microseconds
    let now = host.realtimeNanoseconds
    try UserSlice.store(
      (Int64(now / 1_000_000_000), Int64(now % 1_000_000_000 / 1000)), at: address + 72)
    return 0
  }

  // MARK: POSIX timers

  private func timer_create() throws(Errno) -> Int {
    // struct sigevent: value, signal, notification, thread. Without one: SIGALRM with the timer's id.
    var event: (UInt64, Int32, Int32, Int32) = (0, Signal.alarm, 0, 0)
    if b != 0 { event = try UserSlice.load(b, event) }
    // The coarse clocks and the raw one have no timers.
    if [4, 5, 6].contains(int(a)) { throw .notSupported }
    let identifier = try process.createTimer(
      clock: try TimerClock(int(a), for: thread), notification: event.2, signal: event.1,
      value: b == 0 ? nil : event.0, tid: event.3)
    do throws(Errno) { try UserSlice.store(identifier, at: c) } catch {
      try process.deleteTimer(identifier)
      throw error
    }
    return 0
  }

  private func timer_settime() throws(Errno) -> Int {
    guard c != 0 else { throw .invalid }
    let setting = TimerSetting(value: try duration(c &+ 16), interval: try duration(c))
    let old = try process.setTimer(int(a), setting, isAbsolute: b & 1 != 0)
    if d != 0 { try storeTimerSetting(old, at: d) }
    return 0
  }

  private func storeTimerSetting(_ setting: TimerSetting, at address: UInt) throws(Errno) {
    try storeTime(setting.interval, at: address)
    try storeTime(setting.value, at: address &+ 16)
  }

  private func storeTime(_ nanoseconds: UInt64, at address: UInt) throws(Errno) {
    try UserSlice.store(
      (Int64(nanoseconds / 1_000_000_000), Int64(nanoseconds % 1_000_000_000)), at: address)
  }

  private func loadSetting(_ address: UInt) throws(Errno) -> TimerSetting {
    let raw: (Int64, Int64, Int64, Int64) = try UserSlice.load(address, (0, 0, 0, 0))
    guard raw.0 >= 0, raw.2 >= 0, raw.1 >= 0, raw.1 < 1_000_000, raw.3 >= 0, raw.3 < 1_000_000,
      raw.0 < 1 << 33, raw.2 < 1 << 33
    else { throw .invalid }
    return TimerSetting(
      value: UInt64(raw.2) * 1_000_000_000 + UInt64(raw.3) * 1000,
      interval: UInt64(raw.0) * 1_000_000_000 + UInt64(raw.1) * 1000)
  }

  private func storeSetting(_ setting: TimerSetting, at address: UInt) throws(Errno) {
    try UserSlice.store(
      (
        Int64(setting.interval / 1_000_000_000), Int64(setting.interval % 1_000_000_000 / 1000),
        Int64(setting.value / 1_000_000_000), Int64(setting.value % 1_000_000_000 / 1000)
      ), at: address)
  }

  private func clock_nanosleep() throws(Errno) -> Int {
    let wanted = try duration(c)
    let clock = try TimerClock(int(a), for: thread)
    guard let now = clock.reading else { throw .invalid }
    let isAbsolute = b & 1 != 0
    if clock.isProcessorTime { return try sleep(on: clock, until: isAbsolute ? wanted : now &+ wanted) }
    guard isAbsolute else { return try sleep(until: host.monotonicNanoseconds &+ wanted, remainder: d) }
    let left = wanted > now ? wanted - now : 0
    return try sleep(until: host.monotonicNanoseconds &+ left, remainder: 0)
  }

  private func sleep(on clock: TimerClock, until computed: UInt64) throws(Errno) -> Int {
    // Nobody uses processor time while he sleeps.
    if case .thread = clock { throw .notSupported }
    let time = thread.takeRestartDeadline(computed)
    do throws(Errno) { try ClockSleep(clock: clock).sleep(until: time) } catch {
      if b & 1 == 0, d != 0 {
        let now = clock.reading ?? time
        try storeTime(time > now ? time - now : 0, at: d)
      }
      thread.keepRestartDeadline(time)
      throw .restartBlock
    }
    return 0
  }

  private func sleep(until computed: UInt64, remainder: UInt) throws(Errno) -> Int {
    let deadline = thread.takeRestartDeadline(computed)
    let queue = WaitQueue()
    while true {
      do throws(Errno) { try queue.sleep(deadline: deadline) } catch {
        if error == .timedOut { return 0 }
        let now = host.monotonicNanoseconds
        if remainder != 0 { try storeTime(deadline > now ? deadline - now : 0, at: remainder) }
        thread.keepRestartDeadline(deadline)
        throw .restartBlock
      }
    }
  }
}
