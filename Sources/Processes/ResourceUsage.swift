import CMachine
public import Tasks

// What processes have used (getrusage(2)). The host measures processor time; what ended processes have used is kept here.

/// Processor time in nanoseconds, and the largest resident set in bytes.
public struct ResourceUsage: BitwiseCopyable {
  public var user: UInt64 = 0
  public var system: UInt64 = 0
  public var peakResident: UInt64 = 0
  public init() {}

  public var total: UInt64 { user &+ system }

  mutating func add(_ other: ResourceUsage) {
    user &+= other.user
    system &+= other.system
    peakResident = max(peakResident, other.peakResident)
  }
}

extension Process {
  /// What all threads of the process have used, ended ones too, in nanoseconds.
  public var processorNanoseconds: UInt64 {
    guard let thread = threads.first(where: { !$0.isBorrowing }) else { return usage.total }
    return endedHostNanoseconds &+ host.processorNanoseconds(thread.block, wholeProcess: true)
  }

  /// The same with its parts. The host tells no call of the libOS from the program: calls are sampled (`systemSampling`),
  /// and as in Linux (cputime_adjust) neither part ever goes back.
  public var currentUsage: ResourceUsage {
    if !threads.isEmpty, LinuxThread.running.process.addressSpace === addressSpace {
      usage.peakResident = max(usage.peakResident, host.peakResidentBytes)
    }
    share()
    return usage
  }

  /// What its programs have used without their calls, in nanoseconds. Timers ask on threads that are no program's, too.
  var userNanoseconds: UInt64 {
    share()
    return usage.user
  }

  private func share() {
    if !threads.isEmpty { share(processorNanoseconds) }
  }

  private func share(_ total: UInt64) {
    guard total > usage.total else { return }
    usage.system = max(usage.system, min(sampledSystemNanoseconds, total - usage.user))
    usage.user = total - usage.system
  }

  /// One call of so many is measured, and counts for all of them.
  public static var systemSampling: UInt64 { 128 }
  /// What a call takes beyond this is its own: a single long one says nothing of others.
  private static var usualCall: UInt64 { 10_000 }

  /// A measured call has taken this long.
  public func addSystemSample(_ nanoseconds: UInt64) {
    let usual = min(nanoseconds, Process.usualCall)
    sampledSystemNanoseconds &+= usual &* Process.systemSampling &+ (nanoseconds - usual)
  }

  /// The last thread goes: its host process and what that knows end with it. A borrowed thread's time is its lender's.
  func keepUsage(of last: LinuxThread) {
    guard !last.isBorrowing else { return }
    endedHostNanoseconds &+= host.processorNanoseconds(last.block, wholeProcess: true)
    share(endedHostNanoseconds)
    usage.peakResident = max(usage.peakResident, host.peakResidentBytes)
    ProcessTable.endedProcessorNanoseconds &+= usage.total
  }
}

extension LinuxThread {
  /// What this thread has used, in nanoseconds; 0 for a thread of another process.
  public var processorNanoseconds: UInt64 { host.processorNanoseconds(block, wholeProcess: false) }

  /// The thread's share of its process's parts.
  public var currentUsage: ResourceUsage {
    var own = ResourceUsage()
    own.peakResident = process.currentUsage.peakResident
    own.user = userNanoseconds
    own.system = max(processorNanoseconds, own.user) - own.user
    return own
  }

  /// See `Process.userNanoseconds`.
  var userNanoseconds: UInt64 {
    let user = process.userNanoseconds
    let total = process.usage.total
    let used = processorNanoseconds
    // In parts per 1024: nothing overflows before a process has used half a year.
    return total == 0 ? used : min(used / 1024 &* (user / max(1, total / 1024)), used)
  }
}
