public import Tasks

/// What a tracer wants to be told of (ptrace(2), PTRACE_SETOPTIONS).
public struct TraceOptions: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// PTRACE_O_TRACESYSGOOD
  public static var marksCalls: TraceOptions { TraceOptions(rawValue: 1) }
  /// PTRACE_O_EXITKILL
  public static var killsAtExit: TraceOptions { TraceOptions(rawValue: 1 << 20) }
  /// Events, PTRACE_O_TRACESECCOMP (there are no filters) and the above.
  public static var known: TraceOptions { TraceOptions(rawValue: 0xff | 1 << 20) }
}

/// PTRACE_EVENT_ numbers.
public enum TraceEvent: Int32 {
  case fork = 1
  case vfork = 2
  case clone = 3
  case execution = 4
  case vforkDone = 5
  case exit = 6
  case stop = 128

  var option: TraceOptions { TraceOptions(rawValue: self == .stop ? 0 : 1 << UInt32(rawValue)) }
}

/// Why a traced thread does not run.
public struct TraceStop {
  public enum Kind {
    case signal
    case group
    case callEntry
    case callExit
    case event
  }
  public let kind: Kind
  /// A signal, and the event << 8: the upper part of a status of wait(2).
  public let code: Int32
}

/// How a tracer lets a thread go on.
public enum Resumption {
  case run
  /// PTRACE_SYSCALL
  case untilCall
  /// PTRACE_SINGLESTEP
  case step
  /// PTRACE_SYSEMU
  case untilEmulatedCall
  /// PTRACE_SYSEMU_SINGLESTEP
  case emulatedStep

  var steps: Bool { self == .step || self == .emulatedStep }
  var emulates: Bool { self == .untilEmulatedCall || self == .emulatedStep }
}

/// That a thread is traced (ptrace(2)): by whom, where it stops, and how it goes on. Kernel lock held for every call.
///
/// From when the tracer begins until it lets go, or until it has waited for the thread's end. A stop is a state: the
/// thread sleeps in it (`LinuxThread.stop`), or will when it has its host thread back from the child of a vfork.
public final class Tracing {
  /// Lets go of all its tracees before it ends.
  public unowned(unsafe) let tracer: LinuxThread
  public let thread: LinuxThread
  public let isSeized: Bool
  public var options: TraceOptions
  public private(set) var stop: TraceStop?
  /// The signal of the stop (PTRACE_GETSIGINFO); nil in the group-stop of a thread that was not seized.
  public var information: SignalInformation?
  /// wait(2) has not told of the stop yet.
  private(set) var hasReport = false
  /// PTRACE_LISTEN: the stop goes on, but only new events are heard of.
  public private(set) var isListening = false
  /// Has taken part in its process's stop, and may have been let go on nevertheless.
  var hasJoinedStop = false
  /// To stop with PTRACE_EVENT_STOP at the next opportunity.
  var wantsStop = false
  public private(set) var resumption = Resumption.run
  /// The signal that the tracer wants delivered.
  private(set) var injected: Int32 = 0
  /// PTRACE_GETEVENTMSG
  public internal(set) var message: UInt64 = 0
  /// A call whose end is on the slow way out: of a vfork, or of what ends one.
  var finishesCall = false
  /// The child of a vfork whose end is to be told.
  var vforkChild: Int32?
  /// The end of a thread that is not the leader, as wait(2) encodes it: the leader's is its process's.
  private(set) var end: Int32?
  public var watchpoints = Watchpoints()
  let queue = WaitQueue()

  init(tracer: LinuxThread, thread: LinuxThread, isSeized: Bool, options: TraceOptions) {
    self.tracer = tracer
    self.thread = thread
    self.isSeized = isSeized
    self.options = options
    tracer.tracees.append(self)
    thread.tracing = self
    if thread.tid == thread.process.pid { thread.process.leaderTracing = self }
    noteMemory()
  }

  /// The thread is not traced any longer.
  func unlink() {
    thread.tracing = nil
    tracer.tracees.removeAll { $0 === self }
    let process = thread.process
    if process.leaderTracing === self { process.leaderTracing = nil }
    if hasJoinedStop, process.isStopping, process.stoppedThreads > 0 { process.stoppedThreads -= 1 }
    noteMemory()
  }

  /// Code that is traced is the program's own, without jumps to the gate.
  func noteMemory() {
    let space = thread.process.addressSpace
    space.isTraced = ProcessTable.threads.values.contains {
      $0.tracing != nil && $0.process.addressSpace === space
    }
  }

  /// The state of a stop begins; the tracer hears of it.
  func enter(_ stop: TraceStop, _ information: SignalInformation?) {
    self.stop = stop
    self.information = information
    hasReport = true
    isListening = false
    injected = 0
    notifyTracer(
      code: stop.kind == .group ? SignalInformation.childStopped : SignalInformation.childTrapped,
      status: stop.code & 0x7f, isStop: true)
  }

  /// The stop ends.
  func release(_ resumption: Resumption = .run, signal: Int32 = 0) {
    guard stop != nil else { return }
    stop = nil
    hasReport = false
    isListening = false
    injected = signal
    self.resumption = resumption
    queue.wake()
  }

  func listen() { isListening = true }

  /// wait(2) has told of the stop.
  func reported() { hasReport = false }

  /// What PTRACE_GETSIGINFO tells of stops that no signal made.
  func ownInformation(_ code: Int32) -> SignalInformation {
    var information = SignalInformation(code & 0x7f, code: code)
    information.pid = thread.tid
    information.uid = thread.process.credentials.realUser
    return information
  }

  /// The thread has ended, before its process.
  func endThread(status: Int32) {
    release()
    end = status
    thread.process.endedTracees += 1
    let isExit = status & 0x7f == 0
    notifyTracer(
      code: isExit ? SignalInformation.childExited : SignalInformation.childKilled,
      status: isExit ? status >> 8 : status & 0x7f, isStop: false)
  }

  private func notifyTracer(code: Int32, status: Int32, isStop: Bool) {
    let process = tracer.process
    let action = process.actions[Signal.child]
    if !isStop || action.flags & SignalAction.noChildStop == 0, action.handler != SignalAction.ignoreHandler {
      var information = thread.process.childInformation(signal: Signal.child, code: code, status: status)
      information.pid = thread.tid
      process.notify(information)
    }
    process.childQueue.wake()
  }
}
