import CMachine
public import Tasks

/// An alternate signal stack (sigaltstack(2)).
public struct AlternateStack: BitwiseCopyable {
  public var address: UInt = 0
  public var flags: Int32 = AlternateStack.disabled
  private var padding: Int32 = 0
  public var size: UInt = 0
  public init() {}
  public static var onStack: Int32 { 1 }
  public static var disabled: Int32 { 2 }
  public static var autoDisarm: Int32 { Int32(bitPattern: 1 << 31) }
  public static var minimumSize: UInt { 2048 }

  func contains(_ stackPointer: UInt) -> Bool {
    flags & AlternateStack.disabled == 0 && stackPointer > address && stackPointer &- address <= size
  }
}

/// What Linux knows of a thread. Kernel lock held for every call.
public final class LinuxThread: Thread {
  /// Changes once at most: execve(2) gives the surviving thread the leader's number.
  public internal(set) var tid: Int32 {
    didSet { block.pointee.thread_number = UInt32(bitPattern: tid) }
  }
  /// Outlives the thread: the thread is on its way out while somebody else waits for the process already.
  public let process: Process
  /// The process's number, for calls that take no lock.
  public let pid: Int32

  /// Signals that wait until they are unblocked.
  public internal(set) var mask = SignalSet(rawValue: 0)
  /// The mask that the end of rt_sigsuspend, ppoll and the like brings back.
  public internal(set) var savedMask: SignalSet?
  /// The mask proper while rt_sigtimedwait opens `mask` for what it waits for.
  var realMask = SignalSet(rawValue: 0)
  public internal(set) var pending = PendingSignals()
  public var alternateStack = AlternateStack()

  /// set_tid_address(2)
  public var clearChildAddress: UInt = 0
  /// set_robust_list(2)
  public var robustList: UInt = 0
  public var robustListLength: UInt = 0
  /// Deadline of a call that is restarted after a stop (ERESTART_RESTARTBLOCK).
  var restartDeadline: UInt64?
  public internal(set) var restartedCall: UInt64?
  /// At most 15 bytes.
  public var name: [UInt8]
  /// PR_SET_TIMERSLACK in nanoseconds, and what it goes back to.
  public var timerSlack: UInt = 50_000
  public var usualTimerSlack: UInt = 50_000
  /// sched(7): kept and reported only.
  public var schedulingPolicy: Int32 = 0
  public var schedulingPriority: Int32 = 0
  /// SCHED_DEADLINE: runtime, deadline, period.
  public var deadlineTimes: (UInt64, UInt64, UInt64) = (0, 0, 0)
  /// SCHED_RESET_ON_FORK
  public var resetsSchedulingOnFork = false
  /// thread-keyring(7)
  public var keyring: Key?
  /// ioprio_set(2): class and level, kept and reported only.
  public var inputOutputPriority: UInt32 = 0
  public var login = Login()
  /// The thread has left its process; only its host thread is left to end.
  public internal(set) var hasExited = false

  /// CLONE_CHILD_SETTID: stored in the child's memory before it runs.
  public var setChildAddress: UInt = 0
  /// The program to load before the thread runs: set by a vfork child's execve, done in its own address space.
  public var execution: Execution?
  /// The thread whose host thread and memory a vfork child uses.
  public internal(set) unowned(unsafe) var lender: LinuxThread?
  public var isBorrowing: Bool { lender != nil }
  /// The FS base that the program set (arch_prctl(2)).
  public var threadPointer: UInt = 0
  /// The call whose result the frame holds, for restarts.
  public var callNumber: UInt64?
  /// The last calls, for a panic to tell.
  public var calls = RecentCalls()
  public var repeatedFaults = RepeatedFaults()
  /// The child of a vfork that runs on this thread's host thread.
  var borrower: LinuxThread?
  var isLending: Bool { borrower != nil }
  /// The child of a vfork that gives the thread back goes on in a host process of its own.
  public var startsProcess = false
  /// What the thread does on its way out of the libOS instead of going back to its program.
  public internal(set) var departure = Departure.none
  /// exit(2)
  public var exitCode: Int32 = 0
  /// How the thread is traced (ptrace(2)).
  public internal(set) var tracing: Tracing?
  /// Whom it traces.
  var tracees: [Tracing] = []

  init(block: UnsafeMutablePointer<thread_block>, tid: Int32, process: Process) {
    self.tid = tid
    self.process = process
    pid = process.pid
    name = process.name
    super.init(block: block)
    block.pointee.process_number = UInt32(bitPattern: pid)
    block.pointee.thread_number = UInt32(bitPattern: tid)
  }

  /// The thread that runs now, as Linux's.
  @inline(__always)
  public static var running: LinuxThread { unsafeDowncast(Thread.current, to: LinuxThread.self) }

  /// Has the thread leave in another way than back to its program: on the slow way out, when its stack holds nothing.
  public func depart(_ departure: Departure) {
    self.departure = departure
    machine_store(&block.pointee.attention, 1)
  }

  /// The deadline of the call that is being restarted, if it is; else `computed`.
  public func takeRestartDeadline(_ computed: UInt64) -> UInt64 {
    guard let deadline = restartDeadline else { return computed }
    restartDeadline = nil
    return deadline
  }

  /// Remembers when a call that answers ERESTART_RESTARTBLOCK was to end.
  public func keepRestartDeadline(_ deadline: UInt64) { restartDeadline = deadline }
}

/// See `LinuxThread.departure`.
public enum Departure {
  case none
  case end
  /// The child of a vfork runs in the thread's place.
  case lend
  /// The child of a vfork leaves the thread to its parent.
  case giveBack
}

/// A ring of a thread's last system calls and their results.
public struct RecentCalls {
  public static var size: Int { 8 }
  private var numbers: [8 of Int32] = .init(repeating: 0)
  private var results: [8 of Int64] = .init(repeating: 0)
  /// Calls so far.
  public private(set) var count = 0
  private var isDone = true

  public init() {}

  @inline(__always)
  public mutating func begin(_ number: Int) {
    numbers[count & 7] = Int32(truncatingIfNeeded: number)
    count &+= 1
    isDone = false
  }

  @inline(__always)
  public mutating func end(_ result: UInt64) {
    results[(count &- 1) & 7] = Int64(bitPattern: result)
    isDone = true
  }

  /// The call `back` before the latest one.
  public func latest(_ back: Int) -> (number: Int, result: Int, isDone: Bool) {
    let place = (count &- 1 &- back) & 7
    return (Int(numbers[place]), Int(results[place]), back > 0 || isDone)
  }
}
