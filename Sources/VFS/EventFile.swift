public import ABI
public import Tasks

/// eventfd(2): a counter that is waited for.
public final class EventFile: OpenFile {
  private var counter: UInt64
  private let isSemaphore: Bool
  private let queue = WaitQueue()

  /// `flags` as eventfd2(2): EFD_SEMAPHORE (1), EFD_NONBLOCK.
  public init(initial: UInt32, flags: UInt32) {
    counter = UInt64(initial)
    isSemaphore = flags & 1 != 0
    super.init(inode: PipeInodes.anonymous(mode: 0o600), flags: flags & 0o4000 | 2)
  }

  public override var anonymousName: StaticString { "[eventfd]" }
  public override var waitQueue: WaitQueue? { queue }

  public override func readiness() -> Readiness {
    var result: Readiness = []
    if counter > 0 { result.insert(.readable) }
    if counter < .max - 1 { result.insert(.writable) }
    if counter == .max { result.insert(.error) }
    return result
  }

  /// Adds to the counter without waiting; one that overflows reads as the highest number (eventfd(2)).
  public func add(_ amount: UInt64) throws(Errno) {
    counter = counter > .max - amount ? .max : counter + amount
    if !queue.isEmpty { queue.wake(Readiness.readable.rawValue) }
  }

  public override func read(_ slice: UserSlice) throws(Errno) -> Int {
    guard slice.count >= 8 else { throw .invalid }
    while counter == 0 {
      if isNonblocking { throw .again }
      try queue.sleep()
    }
    try UserSlice.store(isSemaphore ? UInt64(1) : counter, at: slice.address)
    counter = isSemaphore ? counter - 1 : 0
    if !queue.isEmpty { queue.wake(Readiness.writable.rawValue) }
    return 8
  }

  public override func write(_ slice: UserSlice) throws(Errno) -> Int {
    guard slice.count >= 8 else { throw .invalid }
    let amount = try UserSlice.load(slice.address, UInt64(0))
    guard amount != .max else { throw .invalid }
    while counter == .max || counter > .max - 1 - amount {
      if isNonblocking { throw .again }
      try queue.sleep()
    }
    counter += amount
    if !queue.isEmpty { queue.wake(Readiness.readable.rawValue) }
    return 8
  }
}
