public import Tasks
public import VFS

/// User and group ids of a process (credentials(7)).
public struct ProcessCredentials {
  public var realUser: UInt32 = 0
  public var effectiveUser: UInt32 = 0
  public var savedUser: UInt32 = 0
  public var realGroup: UInt32 = 0
  public var effectiveGroup: UInt32 = 0
  public var savedGroup: UInt32 = 0
  public var groups: [UInt32] = []
  public init() {}
  public var isPrivileged: Bool { effectiveUser == 0 }

  /// Takes the ids of the image's user.
  public mutating func become(user: UInt32, group: UInt32) {
    realUser = user
    effectiveUser = user
    savedUser = user
    realGroup = group
    effectiveGroup = group
    savedGroup = group
  }
}

/// A soft and a hard limit (getrlimit(2)); `.max` is RLIM_INFINITY.
public struct ResourceLimit: BitwiseCopyable {
  public var soft: UInt64
  public var hard: UInt64
  public init(_ soft: UInt64, _ hard: UInt64) {
    self.soft = soft
    self.hard = hard
  }
  public static var processorTime: Int { 0 }
  public static var fileSize: Int { 1 }
  public static var data: Int { 2 }
  public static var stack: Int { 3 }
  public static var core: Int { 4 }
  public static var processes: Int { 6 }
  public static var openFiles: Int { 7 }
  public static var lockedMemory: Int { 8 }
  public static var addressSpace: Int { 9 }
  public static var pendingSignals: Int { 11 }

  /// Linux's limits of the first process (include/asm-generic/resource.h).
  static func defaults() -> [ResourceLimit] {
    var limits = [ResourceLimit](repeating: ResourceLimit(.max, .max), count: 16)
    limits[stack] = ResourceLimit(8 << 20, .max)
    limits[core] = ResourceLimit(0, .max)
    limits[processes] = ResourceLimit(32768, 32768)
    limits[openFiles] = ResourceLimit(1024, 1 << 20)
    limits[8] = ResourceLimit(8 << 20, 8 << 20)
    limits[pendingSignals] = ResourceLimit(32768, 32768)
    limits[12] = ResourceLimit(819200, 819200)
    limits[13] = ResourceLimit(0, 0)
    limits[14] = ResourceLimit(0, 0)
    return limits
  }
}

/// A process: what its threads share. Kernel lock held for every call.
public final class Process {
  public let pid: Int32
  public internal(set) unowned(unsafe) var parent: Process?
  public internal(set) var children: [Process] = []
  public internal(set) var threads: [LinuxThread] = []
  public internal(set) var processGroup: Int32
  public internal(set) var session: Int32
  /// Set by execve(2); setpgid(2) then refuses the parent.
  public var hasExecuted = false

  public var credentials = ProcessCredentials()
  public var capabilities = Capabilities()
  /// PR_SET_NO_NEW_PRIVS
  public var hasNoNewPrivileges = false
  /// Indexed by RLIMIT_ numbers.
  public internal(set) var limits: [ResourceLimit] = ResourceLimit.defaults()
  /// At most 15 bytes (PR_SET_NAME).
  public var name: [UInt8] = []
  /// Arguments, each with its NUL, as /proc/PID/cmdline shows them.
  public var commandLine: [UInt8] = []
  public var dumpable: Int32 = 1
  public var isChildSubreaper = false
  /// nice(2): -20 to 19.
  public var niceness: Int32 = 0
  /// personality(2)
  public var personality: UInt32 = 0
  /// What the process was last said to have used, and what children waited for have.
  var usage = ResourceUsage()
  public internal(set) var childrenUsage = ResourceUsage()
  /// Processor time of host processes that have ended, and of sampled calls.
  var endedHostNanoseconds: UInt64 = 0
  var sampledSystemNanoseconds: UInt64 = 0
  /// keyrings(7); the session's goes to children.
  public var processKeyring: Key?
  public var sessionKeyring: Key?
  /// Contexts of io_setup(2) by address.
  public var completions: [UInt: CompletionContext] = [:]
  var semaphoreUndo: [SemaphoreUndo] = []
  /// /proc/PID/oom_score_adj, -1000 to 1000.
  public var memoryAdjustment: Int32 = 0
  /// PR_SET_PDEATHSIG: sent to this process when its parent ends.
  public var parentDeathSignal: Int32 = 0
  /// The controlling terminal (credentials(7)).
  public var terminal: Terminal?
  /// Number of the controlling terminal, 0 for none.
  public var controllingTerminal: UInt64 { terminal?.deviceNumber ?? 0 }
  /// What was the foreground group of a terminal that hung up under this leader of a session; 0 none.
  var lostForeground: Int32 = 0
  /// Monotonic nanoseconds.
  public let startTime: UInt64
  /// Names the address space for futexes: the same in processes that share memory (CLONE_VM).
  public var addressSpaceIdentity: UInt
  public var addressSpace = AddressSpace()
  /// The program's file, for /proc/PID/exe.
  public var executable: Path?
  public var descriptors = FileDescriptorTable()
  /// Set before the first process runs; inherited by all others.
  public var fileSystem: FileSystemContext!

  // Signals.
  public var actions: SignalActions
  public internal(set) var pending = PendingSignals()
  /// Signal to the parent at the end: SIGCHLD, or what clone(2) asked for.
  public var exitSignal: Int32 = Signal.child

  /// pid 1: signals without a handler do not reach it, unless from outside or raised by its own instructions.
  var isProtected: Bool

  // Stops.
  var isStopping = false
  var stopSignal: Int32 = 0
  var stoppedThreads = 0
  public internal(set) var isStopped = false
  var hasStopToReport = false
  var hasContinuationToReport = false
  let stopQueue = WaitQueue()

  // Tracing (ptrace(2)).
  /// The leader's, also when it has left its process.
  public internal(set) var leaderTracing: Tracing?
  /// Threads that have ended and that their tracers have not waited for: the process's end is told of after theirs.
  var endedTracees = 0
  /// The thread that made the process: its tracer by PTRACE_TRACEME.
  var creator: Int32 = 0

  // End.
  /// A group exit has begun: every thread ends at its next safe point.
  public internal(set) var isExiting = false
  /// The thread that stays while execve(2) ends the others.
  var survivor: LinuxThread?
  /// As wait(2) encodes it.
  public internal(set) var exitStatus: Int32 = 0
  public internal(set) var isZombie = false
  let childQueue = WaitQueue()
  /// Woken by every signal to the process or its threads, blocked ones too; signalfd(2) waits here.
  public let signalQueue = WaitQueue()
  /// Woken when the process ends; pidfd and /proc readers wait here.
  public let exitQueue = WaitQueue()
  /// The parent of a vfork(2) sleeps here until the child executes or ends.
  public var vforkCompletion: WaitQueue?

  // Timers.
  public internal(set) var realTimer: IntervalTimer?
  public internal(set) var virtualTimer: IntervalTimer?
  public internal(set) var profilingTimer: IntervalTimer?
  var processorLimit: ProcessorLimit?
  var posixTimers: [PosixTimer] = []
  var nextTimerIdentifier: Int32 = 0

  init(pid: Int32, parent: Process?, actions: SignalActions, now: UInt64) {
    self.pid = pid
    self.parent = parent
    self.actions = actions
    startTime = now
    isProtected = pid == 1
    processGroup = parent?.processGroup ?? pid
    session = parent?.session ?? pid
    addressSpaceIdentity = UInt(truncatingIfNeeded: pid)
    if let parent {
      credentials = parent.credentials
      capabilities = parent.capabilities
      hasNoNewPrivileges = parent.hasNoNewPrivileges
      niceness = parent.niceness
      sessionKeyring = parent.sessionKeyring
      personality = parent.personality
      limits = parent.limits
      name = parent.name
      commandLine = parent.commandLine
      dumpable = parent.dumpable
      terminal = parent.terminal
      memoryAdjustment = parent.memoryAdjustment
    }
  }

  /// What clone(2) gives a child process, by its flags.
  func inherit(from other: Process, _ flags: CloneFlags) {
    executable = other.executable
    if flags.contains(.files) { other.descriptors.users += 1 }
    descriptors = flags.contains(.files) ? other.descriptors : other.descriptors.copy()
    if let context = other.fileSystem { fileSystem = flags.contains(.fileSystem) ? context : context.copy() }
    if !flags.contains(.memory) { other.addressSpace.patchForkedSites() }
    addressSpace = flags.contains(.memory) ? other.addressSpace : other.addressSpace.copy()
    if flags.contains(.memory) { addressSpaceIdentity = other.addressSpaceIdentity }
  }

  /// Takes new ids; files are looked at with the effective ones from now on (credentials(7)).
  public func assume(_ owner: ProcessCredentials) {
    credentials = owner
    fileSystem.credentials = Credentials(
      user: owner.effectiveUser, group: owner.effectiveGroup, groups: owner.groups)
  }

  /// pid 1, which ends the system when it ends and which signals without a handler do not reach.
  public var isInit: Bool { pid == 1 }

  /// Tells the parent of a vfork(2) that it may go on.
  public func completeVfork() {
    guard let queue = vforkCompletion else { return }
    vforkCompletion = nil
    queue.wake()
  }
}
