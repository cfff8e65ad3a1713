public import ABI

/// Somebody who wants to hear of a change: a sleeping thread, or an epoll item.
///
/// Links are owned by the queue; a waiter is in one queue at most.
open class Waiter {
  unowned(unsafe) var previous: Waiter?
  unowned(unsafe) var next: Waiter?
  unowned(unsafe) public internal(set) var queue: WaitQueue?
  /// Exclusive waiters are woken one at a time (EPOLLEXCLUSIVE, accept, a lock's sleepers).
  public var isExclusive = false

  public init() {}

  /// Called with the kernel lock held. Must not add to or remove from the queue that calls, other waiters apart.
  /// `events` are EPOLL bits that changed, 0 if not known. True: an exclusive waiter took the event.
  open func notify(_ events: UInt32) -> Bool { true }
}

/// The waiters of one condition. Kernel lock held for every call; `sleep` gives it up while it waits.
public final class WaitQueue {
  unowned(unsafe) var first: Waiter?
  unowned(unsafe) var last: Waiter?

  public init() {}

  public var isEmpty: Bool { first == nil }

  /// The caller keeps `waiter` alive until it has removed it.
  public func add(_ waiter: Waiter) {
    precondition(waiter.queue == nil, "a waiter is in one queue at most")
    waiter.queue = self
    waiter.previous = last
    waiter.next = nil
    if let last { last.next = waiter } else { first = waiter }
    last = waiter
  }

  public func remove(_ waiter: Waiter) {
    guard waiter.queue === self else { return }
    if let previous = waiter.previous { previous.next = waiter.next } else { first = waiter.next }
    if let next = waiter.next { next.previous = waiter.previous } else { last = waiter.previous }
    waiter.previous = nil
    waiter.next = nil
    waiter.queue = nil
  }

  /// Wakes everybody that is not exclusive, and exclusive ones until `exclusive` of them took the event.
  public func wake(_ events: UInt32 = 0, exclusive: Int = .max) {
    var left = exclusive
    var waiter = first
    while let current = waiter {
      waiter = current.next
      if current.isExclusive {
        if left > 0, current.notify(events) { left -= 1 }
      } else {
        _ = current.notify(events)
      }
    }
  }

  /// Sleeps until `wake`. The caller checks its condition again. `EINTR` when a signal or the end of the process is
  /// pending, `ETIMEDOUT` when `deadline` (monotonic nanoseconds) has passed.
  public func sleep(deadline: UInt64 = .max, exclusive: Bool = false, interruptible: Bool = true)
    throws(Errno)
  {
    let waiter = Thread.current.takeWaiter()
    waiter.isExclusive = exclusive
    add(waiter)
    defer {
      remove(waiter)
      Thread.current.waiter = waiter
    }
    try waiter.wait(deadline: deadline, interruptible: interruptible)
  }
}

/// A thread that sleeps, on one queue or (one waiter each, sharing the thread) on several.
public final class ThreadWaiter: Waiter {
  /// The thread outlives its own sleep.
  unowned(unsafe) public let thread: Thread
  public fileprivate(set) var wasNotified = false

  public init(_ thread: Thread) { self.thread = thread }

  public override func notify(_ events: UInt32) -> Bool {
    let first = !wasNotified
    wasNotified = true
    thread.unpark()
    return first
  }

  /// Sleeps until this waiter is notified.
  public func wait(deadline: UInt64 = .max, interruptible: Bool = true) throws(Errno) {
    while !wasNotified {
      if interruptible, thread.hasPendingInterrupt { throw .interrupted }
      if deadline != .max, host.monotonicNanoseconds >= deadline { throw .timedOut }
      thread.park(deadline: deadline)
    }
  }
}

extension Thread {
  /// The thread's own waiter, or a new one if it is in use.
  fileprivate final func takeWaiter() -> ThreadWaiter {
    guard let waiter else { return ThreadWaiter(self) }
    self.waiter = nil
    waiter.wasNotified = false
    return waiter
  }
}
