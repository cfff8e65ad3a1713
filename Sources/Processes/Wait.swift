public import ABI
import Tasks

/// Which children wait4(2) and waitid(2) mean.
public enum WaitSelector {
  case any
  case process(Int32)
  case group(Int32)

  /// wait4's first argument.
  public static func wait4(_ number: Int32, caller: Process) throws(Errno) -> WaitSelector {
    if number == .min { throw .noSuchProcess }
    if number == -1 { return .any }
    if number == 0 { return .group(caller.processGroup) }
    return number > 0 ? .process(number) : .group(-number)
  }
}

/// Options of wait4(2) and waitid(2).
public struct WaitOptions: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public static var noHang: WaitOptions { WaitOptions(rawValue: 1) }
  /// WUNTRACED, WSTOPPED
  public static var stopped: WaitOptions { WaitOptions(rawValue: 2) }
  public static var exited: WaitOptions { WaitOptions(rawValue: 4) }
  public static var continued: WaitOptions { WaitOptions(rawValue: 8) }
  public static var noWait: WaitOptions { WaitOptions(rawValue: 0x0100_0000) }
  /// __WNOTHREAD: children belong to processes here, so it selects nothing away.
  public static var noThread: WaitOptions { WaitOptions(rawValue: 0x2000_0000) }
  public static var all: WaitOptions { WaitOptions(rawValue: 0x4000_0000) }
  public static var clone: WaitOptions { WaitOptions(rawValue: 0x8000_0000) }
}

/// What a wait found.
public struct WaitResult {
  public var pid: Int32
  public var uid: UInt32
  /// CLD_ number.
  public var code: Int32
  /// Exit code or signal, for siginfo.
  public var detail: Int32
  /// As wait4(2) stores it.
  public var status: Int32
  /// Of the child and the children that it waited for.
  public var usage: ResourceUsage
}

extension LinuxThread {
  /// wait4(2): add `.exited`; waitid(2): as given. Nil with WNOHANG when nobody is ready. ECHILD, EINVAL, ERESTARTSYS.
  public func wait(_ selector: WaitSelector, _ options: WaitOptions) throws(Errno) -> WaitResult? {
    let known: WaitOptions = [.noHang, .stopped, .exited, .continued, .noWait, .noThread, .all, .clone]
    guard options.subtracting(known).isEmpty,
      !options.isDisjoint(with: [.stopped, .exited, .continued])
    else { throw .invalid }
    while true {
      var hasCandidate = false
      for child in process.children where child.matches(selector, options) {
        hasCandidate = true
        if let result = child.report(options) { return result }
      }
      for thread in process.threads where thread === self || !options.contains(.noThread) {
        for tracing in thread.tracees where tracing.matches(selector) {
          hasCandidate = true
          if let result = tracing.report(options, to: process) { return result }
        }
      }
      guard hasCandidate else { throw .noChild }
      if options.contains(.noHang) { return nil }
      do throws(Errno) { try process.childQueue.sleep() } catch { throw .restartSystem }
    }
  }
}

extension Process {
  fileprivate func matches(_ selector: WaitSelector, _ options: WaitOptions) -> Bool {
    switch selector {
    case .any: break
    case .process(let pid): if pid != self.pid { return false }
    case .group(let group): if group != processGroup { return false }
    }
    // Without __WALL, __WCLONE chooses children that report with another signal than SIGCHLD.
    return options.contains(.all) || options.contains(.clone) == (exitSignal != Signal.child)
  }

  fileprivate func report(_ options: WaitOptions) -> WaitResult? {
    let keeps = options.contains(.noWait)
    if isZombie {
      // A tracer hears of the end first.
      guard options.contains(.exited), leaderTracing == nil, endedTracees == 0 else { return nil }
      let result = waitResult(pid, code: exitCode, detail: exitDetail, status: exitStatus)
      if !keeps {
        parent?.childrenUsage.add(result.usage)
        forget()
      }
      return result
    }
    if hasStopToReport, options.contains(.stopped), leaderTracing?.tracer.process !== parent {
      if !keeps { hasStopToReport = false }
      return waitResult(
        pid, code: SignalInformation.childStopped, detail: stopSignal, status: stopSignal << 8 | 0x7f)
    }
    if hasContinuationToReport, options.contains(.continued) {
      if !keeps { hasContinuationToReport = false }
      return waitResult(
        pid, code: SignalInformation.childContinued, detail: Signal.continue, status: 0xffff)
    }
    return nil
  }

  func waitResult(_ number: Int32, code: Int32, detail: Int32, status: Int32) -> WaitResult {
    var all = currentUsage
    all.add(childrenUsage)
    return WaitResult(
      pid: number, uid: credentials.realUser, code: code, detail: detail, status: status, usage: all)
  }
}

extension Errno {
  /// ERESTARTSYS: the call starts again unless a handler without SA_RESTART ran. Never seen by programs.
  public static var restartSystem: Errno { Errno(rawValue: 512) }
  /// ERESTARTNOINTR: the call always starts again.
  public static var restartNoInterrupt: Errno { Errno(rawValue: 513) }
  /// ERESTARTNOHAND: the call starts again only if no handler ran.
  public static var restartNoHandler: Errno { Errno(rawValue: 514) }
  /// ERESTART_RESTARTBLOCK: as ERESTARTNOHAND, with the deadline that `keepRestartDeadline` was given.
  public static var restartBlock: Errno { Errno(rawValue: 516) }
}
