// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
public import CMachine

/// A thread of a program, from the libOS's side: where it sleeps and what interrupts it.
///
/// `Processes` subclasses it with everything that Linux knows of a thread. Kernel lock held for every call.
open class Thread {
  public let block: UnsafeMutablePointer<thread_block>
  /// Set while a signal that is not blocked, or the end of the process, waits for the thread.
  public final var hasPendingInterrupt = false
  public final internal(set) var isParked = false
  /// A wake is on its way: another one would tell nothing new.
  private final var isWoken = false
  /// How well watching its own word before sleeping has served the thread; below zero it does not.
  private final var watchCredit = 0
  private final var sleepsUnwatched = 0
  /// What other processes want done in this thread's memory.
  final var visits: [Visit] = []
  public final var hasVisits: Bool { !visits.isEmpty }
  /// For `WaitQueue.sleep`, which needs one at a time.
  final var waiter: ThreadWaiter? = nil

  public init(block: UnsafeMutablePointer<thread_block>) { self.block = block }

  /// The thread that runs now.
  @inline(__always)
  public static var current: Thread {
    Unmanaged<Thread>.fromOpaque(machine_current_thread()!).takeUnretainedValue()
  }

  /// In `park_word`: the thread watches the word and needs no wake by the host. The other bits count wakes.
  static let watches: UInt32 = 1 << 31

  /// Gives up the kernel lock and sleeps until `unpark` or `deadline`; may return early. A thread that finds nobody
  /// watching the devices watches them itself.
  public final func park(deadline: UInt64) {
    // The lock is held, so nobody else changes the word; taking off the high bits keeps the count from them.
    let count = machine_load(&block.pointee.park_word) & 0x3fff_ffff
    let watching = mayWatch()
    machine_store(&block.pointee.park_word, watching ? count | Thread.watches : count)
    isParked = true
    isWoken = false
    let slept = Devices.sleep(thread: self, count: count, watching: watching, deadline: deadline)
    isParked = false
    if watching { watchCredit = slept ? max(watchCredit - 2, -2) : min(watchCredit + 1, 8) }
    if hasVisits { performVisits() }
  }

  /// Watching pays between threads that answer each other at once, and costs the others a processor.
  private final func mayWatch() -> Bool {
    guard Devices.processors > 1 else { return false }
    if watchCredit >= 0 { return true }
    sleepsUnwatched += 1
    guard sleepsUnwatched >= 32 else { return false }
    sleepsUnwatched = 0
    return true
  }

  /// Ends this thread's sleep, or the next one if it does not sleep.
  public final func unpark() {
    guard isParked else {
      _ = machine_add(&block.pointee.park_word, 1)
      return
    }
    Devices.noteWake(of: self)
    guard !isWoken else { return }
    isWoken = true
    let word = machine_add(&block.pointee.park_word, 1)
    // The poller may be waking itself: it looks at the word next.
    if word & Thread.watches != 0 || Thread.current === self { return }
    if Devices.poller === self { Devices.wakePoller(self) } else { wakeByHost() }
  }

  /// The host wakes the thread from its sleep on its word.
  final func wakeByHost() {
    withUnsafeMutablePointer(to: &block.pointee.park_word) { KernelLock.wakeAfterwards(UInt(bitPattern: $0)) }
  }

  /// Sends the thread through the slow way out of the libOS before its program goes on, without ending a wait.
  public final func attend() {
    machine_store(&block.pointee.attention, 1)
    if Thread.current !== self { host.kick(block) }
  }

  /// Makes the thread look at what is pending for it, wherever it is.
  public final func interrupt() {
    hasPendingInterrupt = true
    machine_store(&block.pointee.attention, 1)
    if isParked { unpark() } else if Thread.current !== self { host.kick(block) }
  }
}
