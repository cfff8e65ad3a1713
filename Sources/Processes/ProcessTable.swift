public import ABI
public import CMachine
import Tasks

/// All processes and threads by their numbers. Kernel lock held for every call.
public enum ProcessTable {
  nonisolated(unsafe) public private(set) static var processes: [Int32: Process] = [:]
  nonisolated(unsafe) public private(set) static var threads: [Int32: LinuxThread] = [:]
  nonisolated(unsafe) private static var lastIdentifier: Int32 = 0
  /// Numbers wrap here (/proc/sys/kernel/pid_max).
  nonisolated(unsafe) public static var maximumIdentifier: Int32 = 32768
  /// Processes and threads together that may exist; EAGAIN beyond.
  nonisolated(unsafe) public static var maximumThreads = 4096

  private static var firstReused: Int32 { maximumIdentifier > 1000 ? 300 : 1 }

  /// Called when the last thread of a process leaves, before the parent hears of it: closes files, drops memory.
  nonisolated(unsafe) public static var releaseResources: ((Process) -> Void)? = nil
  /// Processor time of all processes that have ended.
  nonisolated(unsafe) public internal(set) static var endedProcessorNanoseconds: UInt64 = 0
  /// The number that was given last (/proc/loadavg).
  public static var lastIdentifierGiven: Int32 { lastIdentifier }
  /// Processes and threads made since start.
  nonisolated(unsafe) public private(set) static var created: UInt64 = 0

  /// Called when pid 1 has ended, with its wait(2) status.
  nonisolated(unsafe) public static var initEnded: ((Int32) -> Void)? = nil

  public static var initProcess: Process? { processes[1] }

  public static func process(_ pid: Int32) -> Process? { processes[pid] }
  public static func thread(_ tid: Int32) -> LinuxThread? { threads[tid] }

  /// A new process with one thread, a child of `parent` (nil for pid 1). Credentials, limits, names, group and
  /// session are the parent's; signal actions are copied unless `actions` are given. EAGAIN past the limits.
  public static func createProcess(
    parent: Process?, block: UnsafeMutablePointer<thread_block>, actions: SignalActions? = nil
  ) throws(Errno) -> LinuxThread {
    if let parent, !parent.credentials.isPrivileged {
      var owned = 0
      for process in processes.values where process.credentials.realUser == parent.credentials.realUser {
        owned += process.threads.count
      }
      if UInt64(owned) >= parent.limits[ResourceLimit.processes].soft { throw .again }
    }
    let pid = try allocate()
    let process = Process(
      pid: pid, parent: parent, actions: actions ?? parent?.actions.copy() ?? SignalActions(),
      now: host.monotonicNanoseconds)
    let thread = LinuxThread(block: block, tid: pid, process: process)
    process.threads.append(thread)
    processes[pid] = process
    threads[pid] = thread
    parent?.children.append(process)
    process.watchProcessorLimit()
    return thread
  }

  /// A new thread of `process` (CLONE_THREAD). EAGAIN past the limits or when the process ends.
  public static func createThread(
    in process: Process, block: UnsafeMutablePointer<thread_block>
  ) throws(Errno) -> LinuxThread {
    if process.isExiting || process.survivor != nil { throw .again }
    let thread = LinuxThread(block: block, tid: try allocate(), process: process)
    process.threads.append(thread)
    threads[thread.tid] = thread
    return thread
  }

  /// Undoes a creation whose host thread could not be started.
  public static func discard(_ thread: LinuxThread) {
    let process = thread.process
    thread.tracing?.unlink()
    thread.hasExited = true
    process.threads.removeAll { $0 === thread }
    threads[thread.tid] = nil
    if process.threads.isEmpty {
      process.parent?.children.removeAll { $0 === process }
      processes[process.pid] = nil
    }
  }

  static func renumber(_ thread: LinuxThread, _ number: Int32) {
    threads[thread.tid] = nil
    thread.tid = number
    threads[number] = thread
  }

  /// Threads that have exited but may still run on their libOS stacks.
  nonisolated(unsafe) public private(set) static var departing: [LinuxThread] = []

  static func remove(_ thread: LinuxThread) {
    threads[thread.tid] = nil
    departing.append(thread)
  }

  /// Lets go of exited threads whose host threads have ended, as `hasEnded` says (the word of `endThread`); the
  /// caller then reuses their blocks.
  public static func reclaim(_ hasEnded: (LinuxThread) -> Bool) {
    if !departing.isEmpty { departing.removeAll(where: hasEnded) }
  }

  static func remove(_ process: Process) { processes[process.pid] = nil }

  /// Processes of a group, zombies too.
  public static func members(ofGroup group: Int32) -> [Process] {
    var result: [Process] = []
    for process in processes.values where process.processGroup == group { result.append(process) }
    return result
  }

  public static func members(ofSession session: Int32) -> [Process] {
    var result: [Process] = []
    for process in processes.values where process.session == session { result.append(process) }
    return result
  }

  private static func allocate() throws(Errno) -> Int32 {
    if threads.count >= maximumThreads || processes.count >= maximumThreads { throw .again }
    var tries: Int32 = 0
    while tries < maximumIdentifier {
      tries += 1
      // After the first round low numbers are left to what started with the system, as on Linux (RESERVED_PIDS).
      lastIdentifier = lastIdentifier >= maximumIdentifier ? firstReused : lastIdentifier + 1
      let candidate = lastIdentifier
      if threads[candidate] == nil, processes[candidate] == nil, !isGroupOrSession(candidate) {
        created &+= 1
        return candidate
      }
    }
    throw .again
  }

  private static func isGroupOrSession(_ identifier: Int32) -> Bool {
    for process in processes.values where process.processGroup == identifier || process.session == identifier
    {
      return true
    }
    return false
  }

  /// Forgets everything; for tests.
  public static func reset() {
    processes = [:]
    threads = [:]
    departing = []
    lastIdentifier = 0
    maximumIdentifier = 32768
    maximumThreads = 4096
    releaseResources = nil
    initEnded = nil
  }
}
