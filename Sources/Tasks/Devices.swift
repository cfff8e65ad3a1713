import CMachine

/// Something that wants to know of device events: the network stack, the console.
public protocol DeviceDriver: AnyObject {
  /// Kernel lock held.
  func handleInput()
}

/// Who watches the outside: run to completion, no thread of its own.
///
/// A thread that goes to sleep while nobody polls becomes the poller: it waits for the devices and the next timer
/// instead of for its own word, handles what arrives, and leaves when it is unparked. Whoever leaves hands the role
/// to a sleeping thread lazily: the host's standby thread calls `Devices.stand` about every millisecond while the
/// role is vacant.
public enum Devices {
  nonisolated(unsafe) public internal(set) static var poller: Thread? = nil
  nonisolated(unsafe) public static var network: (any DeviceDriver)? = nil
  nonisolated(unsafe) public static var console: (any DeviceDriver)? = nil
  /// Frames wait for room at the host: `network` is told (by `handleInput`) when there is some.
  nonisolated(unsafe) public static var wantsNetworkOutput = false
  /// How many want console input; the console is not polled without.
  nonisolated(unsafe) public static var consoleReaders = 0

  static func sleep(thread: Thread, word: UInt32, deadline: UInt64) {
    if poller == nil {
      poller = thread
      poll(thread: thread, word: word, deadline: deadline)
      poller = nil
      return
    }
    KernelLock.release()
    host.park(word: &thread.block.pointee.park_word, expected: word, deadline: deadline)
    KernelLock.acquire()
  }

  private static func poll(thread: Thread, word: UInt32, deadline: UInt64) {
    while machine_load(&thread.block.pointee.park_word) == word {
      if deadline != .max, host.monotonicNanoseconds >= deadline { return }
      turn(deadline: deadline)
    }
  }

  /// One turn of the poller: timers, then devices until the next deadline.
  static func turn(deadline: UInt64) {
    Timers.run(now: host.monotonicNanoseconds)
    let until = min(deadline, Timers.nextDeadline)
    let wantsConsole = consoleReaders > 0
    let wantsNetwork = network != nil
    KernelLock.release()
    let events = host.pollDevices(console: wantsConsole, network: wantsNetwork, deadline: until)
    KernelLock.acquire()
    if events.contains(.network) { network?.handleInput() }
    if events.contains(.console) { console?.handleInput() }
  }

  /// Makes the poller look again at what there is to watch.
  public static func devicesChanged() {
    if let poller, poller !== Thread.current { host.wakePoller() }
  }

  /// True while nobody watches the devices.
  public static var isVacant: Bool { poller == nil }

  /// The standby thread's turn while nobody polls: what is due is done, without sleeping.
  public static func stand() {
    guard KernelLock.tryAcquire() else { return }
    if poller == nil {
      Timers.run(now: host.monotonicNanoseconds)
      network?.handleInput()
      if consoleReaders > 0 { console?.handleInput() }
    }
    KernelLock.release()
  }
}
