import CExokernel

/// The processor's interrupt controller (Intel SDM 3A, chapter 11): its timer, interrupts between processors; and the
/// I/O APICs, whose pins all count as one: "a device has something".
enum LocalAPIC {
  static let timerVector: UInt64 = 0x40
  static let flushVector: UInt64 = 0x41
  static let kickVector: UInt64 = 0x42
  static let deviceVector: UInt64 = 0x43
  static let spuriousVector: UInt64 = 0xff
  private static let base = PhysicalMemory.direct + 0xfee0_0000

  private static func store(_ register: UInt64, _ value: UInt32) { device_store(base + register, value) }

  /// The calling processor's.
  static func prepare() {
    store(0xf0, 0x100 | UInt32(spuriousVector))
    store(0x80, 0)
    store(0x3e0, 0xb)  // the timer counts the bus clock
    store(0x320, UInt32(timerVector))  // one shot
    store(0x350, 0x1_0000)
    store(0x360, 0x1_0000)
    store(0x370, 0x1_0000)
  }

  /// Silences the two old interrupt controllers (8259A): initialised to vectors 0x20 and 0x28, every line masked.
  static func silenceOldControllers() {
    cpu_out8(0x20, 0x11)
    cpu_out8(0xa0, 0x11)
    cpu_out8(0x21, 0x20)
    cpu_out8(0xa1, 0x28)
    cpu_out8(0x21, 4)
    cpu_out8(0xa1, 2)
    cpu_out8(0x21, 1)
    cpu_out8(0xa1, 1)
    cpu_out8(0x21, 0xff)
    cpu_out8(0xa1, 0xff)
  }

  static var identifier: UInt32 { device_load(base + 0x20) >> 24 }
  static func acknowledge() { store(0xb0, 0) }

  static func interrupt(_ target: UInt32, vector: UInt64) {
    while device_load(base + 0x300) & 0x1000 != 0 {}
    store(0x310, target << 24)
    store(0x300, UInt32(vector))
  }

  /// Starts processor `identifier` at `page << 12` (INIT, start-up, start-up; SDM 3A, 9.4.4.1).
  static func start(_ identifier: Int, page: UInt32) {
    store(0x310, UInt32(identifier) << 24)
    store(0x300, 0x4500)
    Clock.spin(nanoseconds: 200_000)
    for _ in 0..<2 {
      store(0x310, UInt32(identifier) << 24)
      store(0x300, 0x4600 | page)
      Clock.spin(nanoseconds: 100_000)
    }
  }

  /// Interrupts after `nanoseconds`; 0 never. The bus clock of every hypervisor's timer is 1 GHz.
  static func arm(_ nanoseconds: UInt64) {
    store(0x380, UInt32(truncatingIfNeeded: min(nanoseconds, 0xffff_ffff)))
  }

  static var timerCount: UInt32 { device_load(base + 0x390) }

  /// Lets devices interrupt processor 0: every pin but those of the old timer, keyboard and clock.
  static func openPins(_ controller: UInt64) {
    let base = PhysicalMemory.direct + controller
    func read(_ register: UInt32) -> UInt32 {
      device_store(base, register)
      return device_load(base + 0x10)
    }
    func write(_ register: UInt32, _ value: UInt32) {
      device_store(base, register)
      device_store(base + 0x10, value)
    }
    let version = read(1)
    guard version != 0, version != 0xffff_ffff else { return }
    let isFirst = controller & 0xffff == 0
    for pin in 0...min(version >> 16 & 0xff, 119) {
      let isOld = isFirst && (pin < 4 || pin == 8)
      write(0x11 + 2 * pin, Processors.at(0).pointee.apic_identifier << 24)
      write(0x10 + 2 * pin, isOld ? 0x1_0000 : UInt32(deviceVector))
    }
  }
}

/// Monotonic time: the time-stamp counter, which hypervisors keep alike on every processor.
enum Clock {
  nonisolated(unsafe) static var base: UInt64 = 0
  nonisolated(unsafe) static var multiplier: UInt64 = 1 << 32
  nonisolated(unsafe) static var realtimeBase: UInt64 = 0

  static var now: UInt64 {
    let product = (cpu_time_stamp() &- base).multipliedFullWidth(by: multiplier)
    return product.high << 32 | product.low >> 32
  }

  static func spin(nanoseconds: UInt64) {
    let end = now + nanoseconds
    while now < end { machine_pause() }
  }

  static func prepare() {
    var hertz = frequency()
    if hertz == 0 {
      LocalAPIC.arm(0xffff_ffff)
      let start = cpu_time_stamp()
      let first = LocalAPIC.timerCount
      while first - LocalAPIC.timerCount < 2_000_000 { machine_pause() }
      let last = LocalAPIC.timerCount
      let end = cpu_time_stamp()
      LocalAPIC.arm(0)
      hertz = (end - start) * 1_000_000_000 / UInt64(first - last)
    }
    if hertz < 1_000_000 { panic("the time-stamp counter stands still") }
    multiplier = (1_000_000_000 << 32) / hertz
    base = cpu_time_stamp()
    realtimeBase = RealTimeClock.seconds * 1_000_000_000
  }

  /// What the hypervisor says (CPUID 0x40000010, in kHz); 0 where it says nothing.
  private static func frequency() -> UInt64 {
    var leaf: [4 of UInt32] = .init(repeating: 0)
    identify(0x4000_0000, &leaf)
    guard leaf[0] >= 0x4000_0010, leaf[0] < 0x4000_1000 else { return 0 }
    identify(0x4000_0010, &leaf)
    return UInt64(leaf[0]) * 1000
  }
}

func identify(_ leaf: UInt32, _ out: inout [4 of UInt32]) {
  withUnsafeMutablePointer(to: &out) {
    $0.withMemoryRebound(to: UInt32.self, capacity: 4) { cpu_identify(leaf, 0, $0) }
  }
}

/// The battery clock of the PC (MC146818).
enum RealTimeClock {
  private static func read(_ register: UInt8) -> UInt64 {
    cpu_out8(0x70, register)
    let value = UInt64(cpu_in8(0x71))
    return (value >> 4) * 10 + (value & 15)
  }

  /// Seconds since 1970, in UTC; 0 without a clock.
  static var seconds: UInt64 {
    cpu_out8(0x70, 0x0a)
    if cpu_in8(0x71) == 0xff { return 0 }
    while true {
      cpu_out8(0x70, 0x0a)
      if cpu_in8(0x71) & 0x80 != 0 { continue }
      let second = read(0)
      let (minute, hour, day, month, year) = (read(2), read(4), read(7), read(8), read(9) + 2000)
      guard read(0) == second else { continue }
      return days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    }
  }

  /// Days since 1970-01-01 of a Gregorian date, counted in years that begin in March.
  private static func days(_ year: UInt64, _ month: UInt64, _ day: UInt64) -> UInt64 {
    let shifted = month > 2 ? year : year - 1
    let sinceMarch = (month + 9) % 12
    return shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + (sinceMarch * 153 + 2) / 5 + day
      - 1 - 719_468
  }
}
