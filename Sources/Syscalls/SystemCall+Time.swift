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
      return 0
    case 201:
      let now = Int(host.realtimeNanoseconds / 1_000_000_000)
      if a != 0 { try UserSlice.store(now, at: a) }
      return now
    case 100:
      if a != 0 { try UserSlice(a, 32).clear(32) }
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
    case 227: throw .notPermitted
    default: return nil
    }
  }

  private func clock(_ identifier: Int32) throws(Errno) -> UInt64 {
    switch identifier {
    case 0, 5, 8, 11: return host.realtimeNanoseconds
    case 1, 4, 6, 7, 9: return host.monotonicNanoseconds
    case 2, 3: return host.monotonicNanoseconds &- process.startTime
    default:
      if identifier < 0 { return host.monotonicNanoseconds &- process.startTime }
      throw .invalid
    }
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
    guard b & 1 != 0 else { return try sleep(until: host.monotonicNanoseconds &+ wanted, remainder: d) }
    let now = try clock(int(a))
    let left = wanted > now ? wanted - now : 0
    return try sleep(until: host.monotonicNanoseconds &+ left, remainder: 0)
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
