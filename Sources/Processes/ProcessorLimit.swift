/// RLIMIT_CPU (getrlimit(2)): SIGXCPU for every second of processor time from the soft limit on, SIGKILL at the hard one.
final class ProcessorLimit: ClockTimer {
  unowned(unsafe) let process: Process
  private static var second: UInt64 { 1_000_000_000 }

  init(process: Process) {
    self.process = process
    super.init(clock: .process(process.pid, userOnly: false))
  }

  override func expire(missed: UInt64) {
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
    watch()
  }

  func watch() {
    let limit = process.limits[ResourceLimit.processorTime]
    let (end, overflow) = min(limit.soft, limit.hard).multipliedReportingOverflow(by: ProcessorLimit.second)
    set(overflow ? nil : end)
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
    let limit = limits[ResourceLimit.processorTime]
    guard processorLimit != nil || limit.soft != .max || limit.hard != .max else { return }
    let watcher = processorLimit ?? ProcessorLimit(process: self)
    processorLimit = watcher
    watcher.watch()
  }
}
