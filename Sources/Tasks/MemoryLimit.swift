public import ABI

/// Measures what the host's processes hold of their own, outside the arena.
public protocol MemoryMeter: AnyObject {
  /// Frames of private memory in use at the last measurement.
  var privateFrames: Int { get }
  /// Changes with every measurement.
  var sequence: UInt32 { get }
  /// Measures now. Returns when `sequence` has changed, or after some milliseconds at most.
  func measure()
}

/// Set by hosts whose processes have memory outside the arena.
nonisolated(unsafe) public var memoryMeter: (any MemoryMeter)? = nil

/// The limit of `-m`: frames of the arena (files, shared memory, the libOS's heap) and private memory of processes
/// together. Kernel lock held for every call. See docs/memory.md.
public enum MemoryLimit {
  /// Frames that only the libOS's own heap may take: Swift's allocations cannot fail, so programs are refused first.
  nonisolated(unsafe) public static var reserve = 256
  /// Private frames that were granted since the last measurement and may not have been touched by then.
  nonisolated(unsafe) private static var granted = 0
  nonisolated(unsafe) private static var lastSequence: UInt32 = 0

  nonisolated(unsafe) private static var nextMeasurement: UInt64 = 0
  nonisolated(unsafe) private static var nextAfterShrinkage: UInt64 = 0
  nonisolated(unsafe) private static var mayHaveShrunk = true

  /// Private memory was given back: the last measurement says too much.
  public static func noteShrinkage() { mayHaveShrunk = true }
  /// Asks caches to give up frames, about as many as said; set by who has caches.
  nonisolated(unsafe) public static var reclaim: ((Int) -> Void)? = nil

  /// Frames that programs may still have, by the last measurement.
  public static var available: Int {
    guard let meter = memoryMeter else { return frames.freeFrames - reserve - Revocation.withheld }
    if meter.sequence != lastSequence {
      lastSequence = meter.sequence
      granted = 0
    }
    return frames.freeFrames - reserve - meter.privateFrames - granted - Revocation.withheld
  }

  /// Frames that there are: those of the start less what has been revoked.
  public static var total: Int { frames.totalFrames - Revocation.wanted }

  /// Has caches give up about `count` frames.
  static func giveUpCaches(_ count: Int) {
    guard let reclaim else { return }
    let start = host.monotonicNanoseconds
    reclaim(count)
    MemoryPressure.count(from: start, to: host.monotonicNanoseconds)
  }

  /// Frames that nobody uses, the reserve included: what programs are told.
  public static var unused: Int { max(0, min(total, left - Revocation.withheld)) }

  /// Frames that nobody has, those that the host waits for included.
  private static var left: Int { frames.freeFrames - (memoryMeter?.privateFrames ?? 0) }

  /// Whether `count` frames may be taken; measures again before it says no.
  private static func has(_ count: Int) -> Bool {
    if count <= available { return true }
    if count <= frames.totalFrames, reclaim != nil {
      giveUpCaches(count - available)
      if count <= available { return true }
    }
    guard let meter = memoryMeter, count <= frames.freeFrames - reserve else { return false }
    // Who asks again and again must not keep everybody waiting: the kernel lock is held while Linux is asked, and
    // with many processes that takes long.
    let now = host.monotonicNanoseconds
    if now < (mayHaveShrunk ? nextAfterShrinkage : nextMeasurement) { return false }
    mayHaveShrunk = false
    meter.measure()
    let end = host.monotonicNanoseconds
    let cost = end &- now
    nextMeasurement = end &+ max(10_000_000, cost &* 20)
    nextAfterShrinkage = cost > 5_000_000 ? end &+ cost &* 10 : end
    return count <= available
  }

  /// Checks that `count` frames of the arena may be taken now. ENOMEM.
  public static func check(_ count: Int) throws(Errno) {
    guard has(count) else { throw .noMemory }
  }

  /// Checks that the libOS's heap has `bytes` in one piece: before a table of a program's grows. ENOMEM.
  public static func checkHeap(bytes: Int) throws(Errno) {
    let count = bytes / 4096 + 1
    try check(count)
    frames.free(try frames.allocate(count), count)
  }

  /// Ends who takes too much; set by who runs programs. Called again and again while there is nothing left.
  nonisolated(unsafe) public static var relieve: (() -> Void)? = nil

  /// A program touched a page that there is no memory for: caches go, or else it waits a little for the end of somebody.
  public static func waitForMemory() {
    giveUpCaches(64)
    memoryMeter?.measure()
    if left > 0 { return }
    relieve?()
    // A signal that ends the wait is the end of this program, maybe, or comes again.
    do throws(Errno) { try WaitQueue().sleep(deadline: host.monotonicNanoseconds &+ 1_000_000) } catch {}
  }

  /// Grants private memory of `bytes` to a process. Programs reserve more than they touch: a request counts in full
  /// up to a quarter of the limit, and what goes beyond all memory there is gives ENOMEM (proc(5), overcommit_memory
  /// 0 refuses the same).
  public static func grant(bytes: UInt) throws(Errno) {
    let wanted = Int(min(bytes >> 12, 1 << 40))
    guard wanted <= total else { throw .noMemory }
    let counted = min(wanted, total / 4)
    guard has(counted) else { throw .noMemory }
    granted += counted
  }

  /// True when only the reserve is left: calls that make the libOS keep something are refused.
  public static var isExhausted: Bool { available < 0 && !has(0) }
}
