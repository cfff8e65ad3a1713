import CMachine

/// The one lock of the libOS: held by a thread from the gate until it leaves or sleeps.
///
/// One lock, because every object of the libOS is then plain Swift with no data races, and because the calls are
/// short; calls that touch no shared state (the clock, ids) never take it. It is shared between host processes.
///
/// It is held for microseconds, and waking a sleeper takes several: who finds it held spins for longer than nearly
/// every holder takes, and sleeps when the holder has probably lost its processor. Who comes by takes a free lock
/// before those who sleep; one of them at a time is woken, and until that one has looked nobody wakes another.
public struct KernelLock {
  private static let held: UInt32 = 1
  /// A sleeper has been woken and has not looked yet.
  private static let woken: UInt32 = 2
  /// One sleeper: the bits above count them.
  private static let sleeper: UInt32 = 4
  nonisolated(unsafe) private static var word: UInt32 = 0
  /// Counts wakes: what sleepers sleep on.
  nonisolated(unsafe) private static var wakeups: UInt32 = 0
  /// About twenty microseconds.
  private static let spins = 400
  /// Words whose sleepers are to be woken, 0 for the poller: once the lock is free, or they would run into it at once.
  nonisolated(unsafe) private static var wakes: [8 of UInt] = .init(repeating: 0)
  nonisolated(unsafe) private static var wakeCount = 0

  public static func acquire() {
    if !tryAcquire() { acquireHeld() }
  }

  /// Takes the lock if it is free: for who must not wait for a holder that may be dead (the supervisor).
  public static func tryAcquire() -> Bool {
    let state = machine_load(&word)
    return state & held == 0 && machine_compare_exchange(&word, state, state | held) != 0
  }

  @inline(never)
  private static func acquireHeld() {
    if spin(tryAcquire) { return }
    // First the look at the count, then what lets others count on this thread: a wake in between does not let it sleep.
    var seen = machine_load(&wakeups)
    _ = machine_add(&word, sleeper)
    while !acquireAsSleeper() {
      host.park(word: &wakeups, expected: seen, deadline: .max)
      if spin(acquireAsSleeper) { return }
      seen = machine_load(&wakeups)
      forgetWake()
    }
  }

  /// With one processor the holder runs only when this thread does not.
  @inline(__always)
  private static func spin(_ acquire: () -> Bool) -> Bool {
    guard Devices.processors > 1 else { return false }
    for _ in 0..<spins {
      machine_pause()
      if acquire() { return true }
    }
    return false
  }

  /// As `tryAcquire`, for a thread that is counted as a sleeper, and then is no more.
  private static func acquireAsSleeper() -> Bool {
    var state = machine_load(&word)
    while state & held == 0 {
      if machine_compare_exchange(&word, state, (state &- sleeper) & ~woken | held) != 0 { return true }
      state = machine_load(&word)
    }
    return false
  }

  private static func forgetWake() {
    var state = machine_load(&word)
    while state & woken != 0, machine_compare_exchange(&word, state, state & ~woken) == 0 {
      state = machine_load(&word)
    }
  }

  public static func release() {
    if wakeCount > 0 { return releaseAndWake() }
    let send = !OutgoingFrames.isEmpty
    unlock()
    if send { OutgoingFrames.drain() }
  }

  @inline(__always)
  private static func unlock() {
    assert(machine_load(&word) & held != 0, "the kernel lock is not held")
    if machine_add(&word, 0 &- held) >= sleeper { wakeSleeper() }
  }

  /// Unless somebody has taken the lock, or has been woken, who will see to it.
  @inline(never)
  private static func wakeSleeper() {
    var state = machine_load(&word)
    while state >= sleeper, state & (held | woken) == 0 {
      if machine_compare_exchange(&word, state, state | woken) != 0 {
        _ = machine_add(&wakeups, 1)
        return host.unpark(word: &wakeups)
      }
      state = machine_load(&word)
    }
  }

  @inline(never)
  private static func releaseAndWake() {
    let words = wakes
    let count = wakeCount
    wakeCount = 0
    unlock()
    for i in 0..<count { wakeNow(words[i]) }
    OutgoingFrames.drain()
  }

  private static func wakeNow(_ address: UInt) {
    if let word = UnsafeMutablePointer<UInt32>(bitPattern: address) {
      host.unpark(word: word)
    } else {
      host.wakePoller()
    }
  }

  /// Wakes who sleeps on the word at `address`, or with 0 the poller, when the lock is given up.
  static func wakeAfterwards(_ address: UInt) {
    guard machine_load(&word) & held != 0, wakeCount < 8 else { return wakeNow(address) }
    wakes[wakeCount] = address
    wakeCount += 1
  }
}
