import Tasks

/// RLIMIT_CPU (getrlimit(2)): SIGXCPU for every second of processor time from the soft limit on, SIGKILL at the hard one. No
/// host says when a process has used so much, so it is asked when that can have happened at the earliest.
final class ProcessorLimit: Timer {
  unowned(unsafe) let process: Process
  private static var second: UInt64 { 1_000_000_000 }
  /// A limit of seconds is not looked at more often than Linux looks at its own: at a tick.
  private static var tick: UInt64 { 4_000_000 }

  init(process: Process) {
    self.process = process
    super.init()
  }

  override func fire(now: UInt64) {
    let used = process.processorNanoseconds
    let limit = process.limits[ResourceLimit.processorTime]
    if used / ProcessorLimit.second >= limit.hard {
      // What the kernel sends reaches pid 1 too.
      process.notify(SignalInformation(Signal.kill, code: SignalInformation.kernel), fromOutside: true)
      return
    }
    if used / ProcessorLimit.second >= limit.soft {
      // getrlimit(2) shows the second of the next signal, as on Linux.
      process.limits[ResourceLimit.processorTime].soft = used / ProcessorLimit.second + 1
      process.notify(SignalInformation(Signal.processorLimit, code: SignalInformation.kernel))
    }
    look(after: used, now: now)
  }

  /// Threads may be running side by side, and new ones may come: not later than in a second.
  func look(after used: UInt64, now: UInt64) {
    let limit = process.limits[ResourceLimit.processorTime]
    let (end, overflow) = min(limit.soft, limit.hard).multipliedReportingOverflow(by: ProcessorLimit.second)
    guard !overflow else { return }
    let left = (end > used ? end - used : 0) / UInt64(max(1, process.threads.count))
    arm(now &+ min(max(left, ProcessorLimit.tick), ProcessorLimit.second))
  }
}

extension Process {
  /// setrlimit(2) and prlimit(2), after their checks.
  public func setLimit(_ which: Int, _ limit: ResourceLimit) {
    limits[which] = limit
    if which == ResourceLimit.processorTime { watchProcessorLimit() }
  }

  /// Looks from now on whether RLIMIT_CPU is reached, unless there is none: called for every new process and limit.
  func watchProcessorLimit() {
    processorLimit?.disarm()
    let limit = limits[ResourceLimit.processorTime]
    guard limit.soft != .max || limit.hard != .max else { return }
    let watch = processorLimit ?? ProcessorLimit(process: self)
    processorLimit = watch
    watch.look(after: processorNanoseconds, now: host.monotonicNanoseconds)
  }
}
