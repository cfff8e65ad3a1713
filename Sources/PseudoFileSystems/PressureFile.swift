import ABI
import Tasks
import VFS

/// /proc/pressure/memory: how long memory was short, and triggers that tell when it is (PSI, Linux's
/// Documentation/accounting/psi.rst). What counts as stalled is the time in which the host waits for frames that it
/// has revoked, and in which threads give up caches for memory.
final class PressureFile: Inode {
  /// Averages over 10, 60 and 300 seconds, in millionths.
  private var some: [3 of UInt64] = .init(repeating: 0)
  private var full: [3 of UInt64] = .init(repeating: 0)
  private var last = MemoryPressure.Stalled()
  private var lastTime: UInt64 = 0
  private var triggers: [PressureTrigger] = []
  /// Of 2048: what remains of an average after two seconds.
  private static let decay: [3 of UInt64] = [1677, 1981, 2034]
  private static let period: UInt64 = 2_000_000_000

  init(device: UInt64) {
    super.init(status: PseudoFileSystem.status(mode: 0o100666, device: device))
    lastTime = host.monotonicNanoseconds
    // The file is there as long as the system.
    MemoryPressure.began = { [unowned(unsafe) self] in
      for trigger in self.triggers { trigger.watch() }
    }
  }

  override func open(flags: UInt32) throws(Errno) -> OpenFile { OpenPressureFile(self, flags: flags) }
  override func truncate(_ size: Int64) throws(Errno) {}

  func add(_ trigger: PressureTrigger) { triggers.append(trigger) }
  func remove(_ trigger: PressureTrigger) { triggers.removeAll { $0 === trigger } }

  /// Brings the averages up to date: the time since the last look counts as evenly stalled.
  private func update() -> MemoryPressure.Stalled {
    let now = host.monotonicNanoseconds
    let stalled = MemoryPressure.stalled(now: now)
    let passed = now &- lastTime
    guard passed >= PressureFile.period else { return stalled }
    let shareOfSome = (stalled.some &- last.some) &* 1_000_000 / passed
    let shareOfFull = (stalled.full &- last.full) &* 1_000_000 / passed
    for _ in 0..<min(passed / PressureFile.period, 1000) {
      for i in 0..<3 {
        let rest = PressureFile.decay[i]
        some[i] = (some[i] * rest + min(shareOfSome, 1_000_000) * (2048 - rest)) / 2048
        full[i] = (full[i] * rest + min(shareOfFull, 1_000_000) * (2048 - rest)) / 2048
      }
    }
    lastTime = now
    last = stalled
    return stalled
  }

  func content() -> [UInt8] {
    let stalled = update()
    var text = Text()
    func line(_ name: StaticString, _ averages: [3 of UInt64], _ total: UInt64) {
      text.add(name)
      for (i, label) in ([" avg10=", " avg60=", " avg300="] as [StaticString]).enumerated() {
        text.add(label)
        text.add(hundredths: averages[i] / 100)
      }
      text.add(" total=")
      text.add(total / 1000)
      text.endLine()
    }
    line("some", some, stalled.some)
    line("full", full, stalled.full)
    return text.bytes
  }
}

/// The file in use: what is written to it makes a trigger, for which poll(2) then says POLLPRI.
final class OpenPressureFile: OpenFile {
  private let file: PressureFile
  private var trigger: PressureTrigger?
  private var text: [UInt8] = []

  init(_ file: PressureFile, flags: UInt32) {
    self.file = file
    super.init(inode: file, flags: flags)
  }

  override func read(_ slice: UserSlice) throws(Errno) -> Int {
    advance(by: try read(slice, at: offset))
  }

  override func read(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    guard offset >= 0 else { throw .invalid }
    if offset == 0 { text = file.content() }
    return try slice.store(text, from: offset)
  }

  override func seek(_ offset: Int64, whence: Int32) throws(Errno) -> Int64 { try move(offset, whence) }

  /// `some STALLED WINDOW` or `full STALLED WINDOW`, in microseconds. EBUSY for a second trigger.
  override func write(_ slice: UserSlice) throws(Errno) -> Int {
    guard slice.count > 0, slice.count <= 31 else { throw .invalid }
    let text = try slice.bytes()
    guard trigger == nil else { throw .busy }
    guard let made = PressureTrigger(parsing: text) else { throw .invalid }
    trigger = made
    file.add(made)
    made.watch()
    return slice.count
  }

  override var waitQueue: WaitQueue? { trigger?.queue }

  override func readiness() -> Readiness {
    guard let trigger else { return [.readable, .writable, .error, .priority] }
    return trigger.takeEvent() ? [.readable, .writable, .priority] : [.readable, .writable]
  }

  override func released() {
    guard let trigger else { return }
    file.remove(trigger)
    trigger.disarm()
    self.trigger = nil
  }
}

/// Says when memory was short for so long within a window, once a window at most.
final class PressureTrigger: Timer {
  let queue = WaitQueue()
  private let isFull: Bool
  private let threshold: UInt64
  private let window: UInt64
  private var start: (time: UInt64, stalled: UInt64) = (0, 0)
  private var lastEvent: UInt64?
  private var hasEvent = false

  /// As written to the file, a NUL or line's end behind it allowed; nil when it is not understood. The window is
  /// 500 ms to 10 s.
  init?(parsing text: [UInt8]) {
    var words: [[UInt8]] = [[]]
    for byte in text {
      if byte == 0 || byte == 0x0a { break }
      if byte == 0x20 { words.append([]) } else { words[words.count - 1].append(byte) }
    }
    guard words.count == 3, words[0] == bytes("some") || words[0] == bytes("full"),
      let stalled = PressureTrigger.number(words[1]), let span = PressureTrigger.number(words[2]),
      (500_000...10_000_000).contains(span), stalled > 0, stalled <= span
    else { return nil }
    isFull = words[0] == bytes("full")
    threshold = stalled * 1000
    window = span * 1000
    super.init()
  }

  private static func number(_ text: [UInt8]) -> UInt64? {
    guard !text.isEmpty, text.count < 10 else { return nil }
    var value: UInt64 = 0
    for byte in text {
      guard byte >= 0x30, byte <= 0x39 else { return nil }
      value = value * 10 + UInt64(byte - 0x30)
    }
    return value
  }

  private func stalled(_ now: UInt64) -> UInt64 {
    let sum = MemoryPressure.stalled(now: now)
    return isFull ? sum.full : sum.some
  }

  /// Begins to look: ten times a window, as long as memory is short.
  func watch() {
    let now = host.monotonicNanoseconds
    start = (now, stalled(now))
    if MemoryPressure.isOn, !isArmed { arm(now &+ window / 10) }
  }

  override func fire(now: UInt64) {
    let sum = stalled(now)
    let mayTell = lastEvent.map { now >= $0 &+ window } ?? true
    if sum &- start.stalled >= threshold, mayTell {
      lastEvent = now
      hasEvent = true
      queue.wake(Readiness.priority.rawValue)
    }
    if now &- start.time >= window { start = (now, sum) }
    if MemoryPressure.isOn { arm(now &+ window / 10) }
  }

  /// Whether there was an event that nobody has been told of; it is told now.
  func takeEvent() -> Bool {
    defer { hasEvent = false }
    return hasEvent
  }
}
