import CMachine
import Tasks

extension LinuxThread {
  /// Tells the host how the thread is to be scheduled from now on.
  public func reschedule() {
    guard block.pointee.host_thread != 0 else { return }
    host.schedule(
      block, Schedule(policy: schedulingPolicy, priority: schedulingPriority, niceness: process.niceness))
  }
}

extension Process {
  /// The same for all its threads.
  public func reschedule() {
    for thread in threads { thread.reschedule() }
  }
}
