public import VFS

/// What terminals know of processes, by the process table. Kernel lock held for every call; the calls on the current
/// process come from its system calls only.
public final class JobControl: TerminalJobControl {
  public init() {}

  private var current: Process { LinuxThread.running.process }

  public var currentGroup: Int32 { current.processGroup }
  public var currentSession: Int32 { current.session }
  public var currentIsSessionLeader: Bool { current.session == current.pid }
  public var currentUser: UInt32 { current.credentials.effectiveUser }
  public var currentTerminal: Terminal? { current.terminal }

  /// What is typed reaches pid 1 as what the user's shell sends does.
  public func signalGroup(_ group: Int32, _ signal: Int32) {
    ProcessTable.notify(group: group, signal, fromOutside: true)
  }

  public func currentIgnoresOrBlocks(_ signal: Int32) -> Bool {
    let thread = LinuxThread.running
    return thread.mask.has(signal) || thread.process.actions[signal].handler == SignalAction.ignoreHandler
  }

  public func isOrphaned(_ group: Int32) -> Bool { Process.isOrphaned(group: group) }

  public func setControllingTerminal(_ terminal: Terminal?) {
    current.terminal = terminal
    if terminal != nil { current.lostForeground = 0 }
  }

  public func clearControllingTerminal(_ terminal: Terminal, ofSession session: Int32) {
    for member in ProcessTable.members(ofSession: session) where member.terminal === terminal {
      member.terminal = nil
    }
  }

  public func hangUp(session: Int32, foreground: Int32) {
    guard let leader = ProcessTable.process(session), !leader.isZombie else { return }
    leader.lostForeground = foreground
    leader.notify(SignalInformation(Signal.hangup, code: SignalInformation.kernel), fromOutside: true)
    leader.notify(SignalInformation(Signal.continue, code: SignalInformation.kernel), fromOutside: true)
  }

  public func session(ofGroup group: Int32) -> Int32? {
    ProcessTable.members(ofGroup: group).first?.session
  }
}
