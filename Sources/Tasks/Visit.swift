public import ABI

/// Work in the memory of a process, done by one of its own threads: only they have it mapped.
///
/// Whoever wants another process's memory hands the work to a thread of it (`Thread.accept`), which does it on its way
/// through the libOS, or when it is woken from its sleep for it and goes on sleeping. Kernel lock held throughout, so
/// the work must not wait.
public final class Visit {
  private let work: () -> Void
  let queue = WaitQueue()
  /// The work was done, or never will be: the thread has ended.
  fileprivate(set) var isOver = false

  public init(_ work: @escaping () -> Void) { self.work = work }

  fileprivate func perform() {
    work()
    end()
  }

  fileprivate func end() {
    isOver = true
    queue.wake()
  }
}

extension Thread {
  /// Has this thread do the work soon, unless it ends before.
  public final func accept(_ visit: Visit) {
    visits.append(visit)
    if isParked { unpark() } else { attend() }
  }

  /// Has this thread do the work, and waits until it has, or has ended. EINTR, but for a thread that sleeps: it does the
  /// work at once.
  public final func receive(_ visit: Visit) throws(Errno) {
    let sleeps = isParked
    accept(visit)
    do throws(Errno) {
      while !visit.isOver { try visit.queue.sleep(interruptible: !sleeps) }
    } catch {
      visits.removeAll { $0 === visit }
      throw error
    }
  }

  /// Does what other processes wait for.
  public final func performVisits() {
    while let visit = visits.first {
      visits.removeFirst()
      visit.perform()
    }
  }

  /// The thread ends: nobody is to wait for it any longer.
  public final func refuseVisits() {
    let refused = visits
    visits = []
    for visit in refused { visit.end() }
  }
}
