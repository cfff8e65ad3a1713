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
    guard !threads.isEmpty else { return usage }
    let total = processorNanoseconds
    if total > usage.total {
      usage.system = max(usage.system, min(sampledSystemNanoseconds, total - usage.user))
      usage.user = total - usage.system
    }
    if LinuxThread.running.process.addressSpace === addressSpace {
      usage.peakResident = max(usage.peakResident, host.peakResidentBytes)
    }
    return usage
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
    let before = usage.total
    endedHostNanoseconds &+= host.processorNanoseconds(last.block, wholeProcess: true)
    let total = max(endedHostNanoseconds, before)
    usage.system = max(usage.system, min(sampledSystemNanoseconds, total - usage.user))
    usage.user = total - usage.system
    usage.peakResident = max(usage.peakResident, host.peakResidentBytes)
    ProcessTable.endedProcessorNanoseconds &+= total
  }
}

extension LinuxThread {
  /// What this thread has used, in nanoseconds; 0 for a thread of another process.
  public var processorNanoseconds: UInt64 { host.processorNanoseconds(block, wholeProcess: false) }

  /// The thread's share of its process's parts.
  public var currentUsage: ResourceUsage {
    let whole = process.currentUsage
    var own = ResourceUsage()
    let used = processorNanoseconds
    // In parts per 1024: nothing overflows before a process has used half a year.
    own.system = whole.total == 0 ? 0 : used / 1024 &* (whole.system / max(1, whole.total / 1024))
    own.system = min(own.system, used)
    own.user = used - own.system
    own.peakResident = whole.peakResident
    return own
  }
}
