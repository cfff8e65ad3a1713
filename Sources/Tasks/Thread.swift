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

  public init(block: UnsafeMutablePointer<thread_block>) { self.block = block }

  /// The thread that runs now.
  @inline(__always)
  public static var current: Thread {
    Unmanaged<Thread>.fromOpaque(machine_current_thread()!).takeUnretainedValue()
  }

  /// Gives up the kernel lock and sleeps until `unpark` or `deadline`; may return early. A thread that finds nobody
  /// watching the devices watches them itself.
  public final func park(deadline: UInt64) {
    let word = machine_load(&block.pointee.park_word)
    isParked = true
    Devices.sleep(thread: self, word: word, deadline: deadline)
    isParked = false
  }

  /// Ends this thread's sleep, or the next one if it does not sleep.
  public final func unpark() {
    _ = machine_add(&block.pointee.park_word, 1)
    guard isParked else { return }
    if Devices.poller === self { host.wakePoller() } else { host.unpark(word: &block.pointee.park_word) }
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
