import CMachine

/// Something that wants to know of device events: the network stack, the console.
public protocol DeviceDriver: AnyObject {
  /// Kernel lock held.
  func handleInput()
}

/// Who watches the outside: run to completion, no thread of its own.
///
/// A thread that goes to sleep while nobody polls becomes the poller: it waits for the devices and the next timer
/// instead of for its own word, handles what arrives, and leaves when it is unparked. Nobody is woken to follow it:
/// mostly it comes back at once, and the host's standby thread calls `Devices.stand` about every millisecond while
/// the role is vacant. A poller that only ever wakes others hands the role to one of those, for which devices then
/// need no wake at all.
///
/// References are counted without atomic operations: between giving up the kernel lock and having it again, nothing
/// may touch an object. What happens there stands in functions of its own that take addresses only.
public enum Devices {
  nonisolated(unsafe) public internal(set) static var poller: Thread? = nil
  nonisolated(unsafe) public static var network: (any DeviceDriver)? = nil
  nonisolated(unsafe) public static var console: (any DeviceDriver)? = nil
  /// Frames wait for room at the host: `network` is told (by `handleInput`) when there is some.
  nonisolated(unsafe) public static var wantsNetworkOutput = false
  /// How many want console input; the console is not polled without.
  nonisolated(unsafe) public static var consoleReaders = 0
  /// Processors that the host gives the unikernel.
  nonisolated(unsafe) public static var processors = 1

  /// The sleeping thread that is to have the role next.
  nonisolated(unsafe) private static var successor: Thread? = nil
  /// Other threads woken since the poller last woke itself.
  nonisolated(unsafe) private static var strangers = 0
  private static let mostStrangers = 32
  nonisolated(unsafe) private static var networkIsBusy = false
  /// Nothing to poll: the poller sleeps on its own word until the next timer.
  nonisolated(unsafe) private static var pollerSleeps = false
  /// Looks at the own word before sleeping: a microsecond or two, what a wake by the host costs.
  private static let watchTurns = 40

  /// Sleeps while the count of `thread`'s word is `count`. False if it was woken before it really slept.
  static func sleep(thread: Thread, count: UInt32, watching: Bool, deadline: UInt64) -> Bool {
    let block = thread.block
    if poller == nil {
      poller = thread
      strangers = 0
    } else if strangers >= mostStrangers, successor == nil {
      successor = thread
      if let poller { wakePoller(poller) }
    }
    var slept = false
    if !watching || !watch(block, count) {
      slept = true
      while machine_load(&block.pointee.park_word) == count {
        if deadline != .max, host.monotonicNanoseconds >= deadline { break }
        if poller === thread { turn(block, count, deadline) } else { wait(block, count, deadline) }
      }
    }
    if poller === thread { poller = nil }
    if successor === thread { successor = nil }
    return slept
  }

  /// Watches the word without the lock. True when it changed; else the thread is to sleep, and is marked so.
  @inline(never)
  private static func watch(_ block: UnsafeMutablePointer<thread_block>, _ count: UInt32) -> Bool {
    let expected = count | Thread.watches
    KernelLock.release()
    var turns = watchTurns
    while turns > 0, machine_load(&block.pointee.park_word) == expected {
      machine_pause()
      turns -= 1
    }
    let changed = machine_compare_exchange(&block.pointee.park_word, expected, count) == 0
    KernelLock.acquire()
    return changed
  }

  @inline(never)
  private static func wait(_ block: UnsafeMutablePointer<thread_block>, _ count: UInt32, _ deadline: UInt64) {
    KernelLock.release()
    host.park(word: &block.pointee.park_word, expected: count, deadline: deadline)
    KernelLock.acquire()
  }

  /// One turn of the poller: timers, then devices until the next deadline.
  private static func turn(_ block: UnsafeMutablePointer<thread_block>, _ count: UInt32, _ deadline: UInt64) {
    Timers.run(now: host.monotonicNanoseconds)
    if networkIsBusy { lookAtNetwork() }
    if machine_load(&block.pointee.park_word) == count { waitForDevices(block, count, deadline) }
    guard let next = successor else { return }
    // The word must change: the successor may be about to sleep. It comes back at once, and finds the role vacant.
    successor = nil
    poller = nil
    strangers = 0
    _ = machine_add(&next.block.pointee.park_word, 1)
    next.wakeByHost()
  }

  /// While frames keep coming, reading costs less than asking whether there is something to read.
  private static func lookAtNetwork() {
    let before = IncomingFrames.received
    if IncomingFrames.isUsed { readFrames() }
    network?.handleInput()
    networkIsBusy = IncomingFrames.received != before
  }

  @inline(never)
  private static func readFrames() {
    KernelLock.release()
    IncomingFrames.read()
    KernelLock.acquire()
  }

  private static func waitForDevices(
    _ block: UnsafeMutablePointer<thread_block>, _ count: UInt32, _ deadline: UInt64
  ) {
    let until = min(deadline, Timers.nextDeadline)
    if network == nil, consoleReaders == 0 {
      pollerSleeps = true
      wait(block, count, until)
      pollerSleeps = false
    } else {
      let events = poll(console: consoleReaders > 0, network: network != nil, until)
      if events.contains(.network) {
        networkIsBusy = true
        network?.handleInput()
      }
      if events.contains(.console) { console?.handleInput() }
    }
  }

  @inline(never)
  private static func poll(console: Bool, network: Bool, _ deadline: UInt64) -> DeviceEvents {
    KernelLock.release()
    let events = host.pollDevices(console: console, network: network, deadline: deadline)
    if events.contains(.network), IncomingFrames.isUsed { IncomingFrames.read() }
    KernelLock.acquire()
    return events
  }

  /// Has `poller` end its wait: early, when it sleeps on its word.
  static func wakePoller(_ poller: Thread) {
    guard pollerSleeps else { return KernelLock.wakeAfterwards(0) }
    _ = machine_add(&poller.block.pointee.park_word, 1)
    poller.wakeByHost()
  }

  static func noteWake(of thread: Thread) {
    guard let poller else { return }
    if poller === thread { strangers = 0 } else if poller === Thread.current { strangers += 1 }
  }

  /// Makes the poller look again at what there is to watch, and when the next timer is due.
  public static func devicesChanged() {
    if let poller, poller !== Thread.current { wakePoller(poller) }
  }

  /// True while nobody watches the devices.
  public static var isVacant: Bool { poller == nil }

  /// The standby thread's turn while nobody polls: what is due is done, without sleeping.
  public static func stand() {
    guard KernelLock.tryAcquire() else { return }
    standIn()
    KernelLock.release()
  }

  @inline(never)
  private static func standIn() {
    guard poller == nil else { return }
    Timers.run(now: host.monotonicNanoseconds)
    network?.handleInput()
    if consoleReaders > 0 { console?.handleInput() }
  }
}
