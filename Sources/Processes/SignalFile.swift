public import ABI
public import Tasks
public import VFS

/// signalfd(2): pending signals read as structures. Reads see the reader's signals; readiness is the maker's.
public final class SignalFile: OpenFile {
  public var mask: SignalSet
  private let owner: Process

  public init(mask: SignalSet, flags: UInt32, owner: Process) {
    self.mask = mask.subtracting(.unblockable)
    self.owner = owner
    super.init(inode: PipeInodes.anonymous(mode: 0o600), flags: flags & 0o4000 | 2)
  }

  public override var anonymousName: StaticString { "[signalfd]" }
  public override var waitQueue: WaitQueue? { owner.signalQueue }

  public override func readiness() -> Readiness {
    var pending = owner.pending.set
    if LinuxThread.running.process === owner { pending.formUnion(LinuxThread.running.pending.set) }
    return pending.isDisjoint(with: mask) ? [] : .readable
  }

  public override func read(_ slice: UserSlice) throws(Errno) -> Int {
    guard slice.count >= SignalFile.recordBytes else { throw .invalid }
    let thread = LinuxThread.running
    let others = SignalSet(rawValue: ~mask.rawValue)
    var done = 0
    while slice.count - done >= SignalFile.recordBytes {
      if let information = thread.takeSignal(blocked: others) {
        thread.recalculatePending()
        try slice.dropFirst(done).store(SignalFile.record(information))
        done += SignalFile.recordBytes
        continue
      }
      if done > 0 { return done }
      if isNonblocking { throw .again }
      try thread.process.signalQueue.sleep()
    }
    return done
  }

  static var recordBytes: Int { 128 }

  /// struct signalfd_siginfo.
  private static func record(_ information: SignalInformation) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: recordBytes)
    func put(_ value: UInt64, _ size: Int, at place: Int) {
      for i in 0..<size { bytes[place + i] = UInt8(truncatingIfNeeded: value >> UInt64(8 * i)) }
    }
    func put(_ value: Int32, at place: Int) { put(UInt64(UInt32(bitPattern: value)), 4, at: place) }
    put(information.signal, at: 0)
    put(information.code, at: 8)
    put(information.pid, at: 12)
    put(UInt64(information.uid), 4, at: 16)
    if information.code == SignalInformation.timer { put(information.pid, at: 24) }
    put(information.status, at: 40)
    put(Int32(truncatingIfNeeded: information.value), at: 44)
    put(information.value, 8, at: 48)
    return bytes
  }
}
