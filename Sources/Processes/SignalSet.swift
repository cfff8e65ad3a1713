/// Signal numbers of x86-64 Linux (signal(7)).
public enum Signal {
  public static var hangup: Int32 { 1 }
  public static var interrupt: Int32 { 2 }
  public static var quit: Int32 { 3 }
  public static var illegal: Int32 { 4 }
  public static var trap: Int32 { 5 }
  public static var abort: Int32 { 6 }
  public static var bus: Int32 { 7 }
  public static var floatingPoint: Int32 { 8 }
  public static var kill: Int32 { 9 }
  public static var segmentation: Int32 { 11 }
  public static var pipe: Int32 { 13 }
  public static var alarm: Int32 { 14 }
  public static var terminate: Int32 { 15 }
  public static var child: Int32 { 17 }
  public static var `continue`: Int32 { 18 }
  public static var stop: Int32 { 19 }
  public static var terminalStop: Int32 { 20 }
  public static var terminalInput: Int32 { 21 }
  public static var terminalOutput: Int32 { 22 }
  public static var processorLimit: Int32 { 24 }
  public static var fileSize: Int32 { 25 }
  public static var virtualAlarm: Int32 { 26 }
  public static var profiling: Int32 { 27 }
  /// The first real-time signal: these queue, lower ones do not.
  public static var firstRealTime: Int32 { 32 }
  public static var last: Int32 { 64 }

  /// What a signal does to a process that has no handler for it.
  public enum DefaultAction {
    case terminate
    case core
    case stop
    case resume
    case ignore
  }

  public static func defaultAction(_ signal: Int32) -> DefaultAction {
    switch signal {
    case 3, 4, 5, 6, 7, 8, 11, 24, 25, 31: .core
    case 19, 20, 21, 22: .stop
    case 18: .resume
    case 17, 23, 28: .ignore
    default: .terminate
    }
  }
}

/// A set of signals as the kernel's `sigset_t` holds it: bit n − 1 for signal n.
public struct SignalSet: OptionSet, Sendable, BitwiseCopyable {
  public var rawValue: UInt64
  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
  /// The set of one signal; empty for a number that is none.
  @inlinable public init(_ signal: Int32) {
    rawValue = signal >= 1 && signal <= 64 ? 1 << UInt64(signal - 1) : 0
  }
  @inlinable public func has(_ signal: Int32) -> Bool { rawValue & SignalSet(signal).rawValue != 0 }
  /// The lowest signal of the set, 0 if there is none.
  @inlinable public var lowest: Int32 { rawValue == 0 ? 0 : Int32(rawValue.trailingZeroBitCount) + 1 }

  /// SIGKILL and SIGSTOP, which nobody can block, catch or ignore.
  public static var unblockable: SignalSet { SignalSet(rawValue: 1 << 8 | 1 << 18) }
  /// SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU
  public static var stopping: SignalSet { SignalSet(rawValue: 0b1111 << 18) }
  /// Signals that an instruction raises: delivered before others, as Linux does.
  public static var synchronous: SignalSet {
    [SignalSet(4), SignalSet(5), SignalSet(7), SignalSet(8), SignalSet(11), SignalSet(31)]
  }
}

/// Why a signal was sent: the parts of `siginfo_t` (sigaction(2)) in one flat structure.
public struct SignalInformation: BitwiseCopyable {
  public var signal: Int32
  /// SI_ and CLD_ numbers.
  public var code: Int32
  public var error: Int32 = 0
  /// Sender or child; the timer's id for SI_TIMER.
  public var pid: Int32 = 0
  /// The sender's real user id; the overrun count for SI_TIMER.
  public var uid: UInt32 = 0
  /// Exit status or signal of a child.
  public var status: Int32 = 0
  /// `sigval` of rt_sigqueueinfo and timers.
  public var value: UInt64 = 0
  /// Address of a fault.
  public var address: UInt = 0

  public init(_ signal: Int32, code: Int32) {
    self.signal = signal
    self.code = code
  }

  public static var user: Int32 { 0 }
  public static var kernel: Int32 { 0x80 }
  public static var queue: Int32 { -1 }
  public static var timer: Int32 { -2 }
  public static var threadKill: Int32 { -6 }
  public static var childExited: Int32 { 1 }
  public static var childKilled: Int32 { 2 }
  public static var childDumped: Int32 { 3 }
  public static var childTrapped: Int32 { 4 }
  public static var childStopped: Int32 { 5 }
  public static var childContinued: Int32 { 6 }
  /// TRAP_BRKPT, TRAP_TRACE, TRAP_HWBKPT
  public static var trapBreakpoint: Int32 { 1 }
  public static var trapStep: Int32 { 2 }
  public static var trapHardware: Int32 { 4 }
}

/// What a process does on a signal: `struct sigaction` as rt_sigaction(2) reads it.
public struct SignalAction: BitwiseCopyable {
  public var handler: UInt = 0
  public var flags: UInt64 = 0
  public var restorer: UInt = 0
  public var mask = SignalSet(rawValue: 0)

  public init() {}
  public static var defaultHandler: UInt { 0 }
  public static var ignoreHandler: UInt { 1 }
  public static var noChildStop: UInt64 { 1 }
  public static var noChildWait: UInt64 { 2 }
  public static var information: UInt64 { 4 }
  public static var hasRestorer: UInt64 { 0x0400_0000 }
  public static var onStack: UInt64 { 0x0800_0000 }
  public static var restart: UInt64 { 0x1000_0000 }
  public static var noDefer: UInt64 { 0x4000_0000 }
  public static var resetHandler: UInt64 { 0x8000_0000 }
}

/// The actions of a process; shared between processes by CLONE_SIGHAND.
public final class SignalActions {
  public var actions: [SignalAction]

  public init() { actions = [SignalAction](repeating: SignalAction(), count: 64) }

  public subscript(signal: Int32) -> SignalAction {
    get { actions[Int(signal) - 1] }
    set { actions[Int(signal) - 1] = newValue }
  }

  /// A copy of its own, for fork(2).
  public func copy() -> SignalActions {
    let result = SignalActions()
    result.actions = actions
    return result
  }

  /// execve(2): caught signals go back to the default, ignored ones stay ignored.
  public func resetForExecution() {
    for index in actions.indices {
      let handler = actions[index].handler
      actions[index] = SignalAction()
      if handler == SignalAction.ignoreHandler { actions[index].handler = handler }
    }
  }
}

/// Signals that wait for a thread or a process. Real-time signals queue, others are remembered once (signal(7)).
public struct PendingSignals {
  public private(set) var set = SignalSet(rawValue: 0)
  private var entries: [SignalInformation] = []

  public init() {}

  public var count: Int { entries.count }

  /// False when a real-time signal does not fit under `limit`. Without room other signals keep no information.
  mutating func add(_ information: SignalInformation, limit: UInt64) -> Bool {
    let signal = information.signal
    if signal < Signal.firstRealTime, set.has(signal) { return true }
    if UInt64(entries.count) < limit || (signal < Signal.firstRealTime && information.code >= 0) {
      entries.append(information)
    } else if signal >= Signal.firstRealTime, information.code != SignalInformation.user {
      return false
    }
    set.insert(SignalSet(signal))
    return true
  }

  /// Takes the first signal that `mask` does not block: those of instructions, then the lowest number.
  mutating func take(blocked mask: SignalSet) -> SignalInformation? {
    let ready = set.subtracting(mask)
    if ready.isEmpty { return nil }
    let synchronous = ready.intersection(.synchronous)
    return take(signal: synchronous.isEmpty ? ready.lowest : synchronous.lowest)
  }

  private mutating func take(signal: Int32) -> SignalInformation {
    var found: SignalInformation?
    var more = false
    var index = 0
    while index < entries.count {
      if entries[index].signal == signal {
        if found == nil {
          found = entries.remove(at: index)
          continue
        }
        more = true
        break
      }
      index += 1
    }
    if !more { set.remove(SignalSet(signal)) }
    return found ?? SignalInformation(signal, code: SignalInformation.user)
  }

  /// The signal of a POSIX timer waits here.
  func hasTimer(_ identifier: Int32) -> Bool {
    entries.contains { $0.code == SignalInformation.timer && $0.pid == identifier }
  }

  mutating func discard(_ signals: SignalSet) {
    if set.isDisjoint(with: signals) { return }
    set.subtract(signals)
    entries.removeAll { signals.has($0.signal) }
  }
}
