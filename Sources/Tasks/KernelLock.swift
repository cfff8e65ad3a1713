import CMachine

/// The one lock of the libOS: held by a thread from the gate until it leaves or sleeps.
///
/// One lock, because every object of the libOS is then plain Swift with no data races, and because the calls are
/// short; calls that touch no shared state (the clock, ids) never take it. It is shared between host processes:
/// spin briefly, then park. 0 free, 1 held, 2 held and somebody sleeps.
public struct KernelLock {
  nonisolated(unsafe) static var word: UInt32 = 0
  static let spins = 100
  /// Words whose sleepers are to be woken, 0 for the poller: once the lock is free, or they would run into it at once.
  nonisolated(unsafe) private static var wakes: [8 of UInt] = .init(repeating: 0)
  nonisolated(unsafe) private static var wakeCount = 0

  public static func acquire() {
    if machine_compare_exchange(&word, 0, 1) != 0 { return }
    for _ in 0..<spins {
      machine_pause()
      if machine_load(&word) == 0, machine_compare_exchange(&word, 0, 1) != 0 { return }
    }
    while machine_exchange(&word, 2) != 0 {
      host.park(word: &word, expected: 2, deadline: .max)
    }
  }

  /// Takes the lock if it is free: for who must not wait for a holder that may be dead (the supervisor).
  public static func tryAcquire() -> Bool { machine_compare_exchange(&word, 0, 1) != 0 }

  public static func release() {
    if wakeCount > 0 { return releaseAndWake() }
    let send = !OutgoingFrames.isEmpty
    if machine_exchange(&word, 0) == 2 { host.unpark(word: &word) }
    if send { OutgoingFrames.drain() }
  }

  @inline(never)
  private static func releaseAndWake() {
    let words = wakes
    let count = wakeCount
    wakeCount = 0
    if machine_exchange(&word, 0) == 2 { host.unpark(word: &word) }
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
    guard machine_load(&word) != 0, wakeCount < 8 else { return wakeNow(address) }
    wakes[wakeCount] = address
    wakeCount += 1
  }
}
