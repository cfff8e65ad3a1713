/// Visible revocation: whoever runs the unikernel takes part of its memory back, and the libOS decides what goes.
/// Kernel lock held for every call.
///
/// A request names the frames that are wanted and a deadline. Until the deadline caches are given up and programs that
/// watch /proc/pressure/memory hear of it; nobody gets new memory meanwhile. Past the deadline the process that holds
/// most ends, and the next, until the host has what it wants (the abort protocol of the exokernel). From then on the
/// smaller limit holds as `-m` does.
public enum Revocation {
  /// Frames of those that the unikernel began with that are the host's now.
  nonisolated(unsafe) public private(set) static var wanted = 0
  /// Of these, frames that the host has taken itself: they are no longer free for anybody.
  nonisolated(unsafe) private static var surrendered = 0
  nonisolated(unsafe) private static var deadline: UInt64 = 0
  nonisolated(unsafe) private static var isShort = false
  nonisolated(unsafe) private static var timer: RevocationTimer?

  /// How long programs have when nobody says otherwise: 5 s.
  public static let usualGrace: UInt64 = 5_000_000_000
  /// Memory that stays in any case, in frames: what a libOS starts with.
  private static let least = 16 << 8
  private static let interval: UInt64 = 50_000_000

  /// Frames that are to be left unused, and that the host has not taken.
  static var withheld: Int { wanted - surrendered }

  /// The part of `withheld` that is enforced at once: none while programs have time to give memory back.
  public static var enforced: Int { isShort && timer?.isPast != true ? 0 : withheld }

  /// The unikernel is to do with `frameCount` frames from now on; more than it began with is what it began with.
  public static func limit(frames frameCount: Int, grace: UInt64 = usualGrace) {
    request(frames.totalFrames - min(max(frameCount, least), frames.totalFrames), grace: grace)
  }

  /// The host wants to have `count` frames in all.
  public static func request(_ count: Int, grace: UInt64 = usualGrace) {
    let now = host.monotonicNanoseconds
    wanted = min(max(0, count), max(0, frames.totalFrames - least))
    deadline = now &+ grace
    if timer == nil { timer = RevocationTimer() }
    timer?.isPast = false
    step(now: now)
  }

  fileprivate static func step(now: UInt64) {
    if surrendered > wanted { surrendered -= host.takeBack(surrendered - wanted) }
    memoryMeter?.measure()
    if MemoryLimit.available < 0 { MemoryLimit.giveUpCaches(-MemoryLimit.available) }
    handOver()
    isShort = MemoryLimit.available < 0
    guard isShort || surrendered > wanted else {
      MemoryPressure.end(now: now)
      timer?.disarm()
      return
    }
    if isShort { MemoryPressure.begin(now: now) }
    if isShort, now >= deadline {
      timer?.isPast = true
      MemoryLimit.relieve?()
    }
    timer?.arm(now &+ interval)
  }

  /// What is free becomes the host's.
  private static func handOver() {
    let free = MemoryLimit.available + withheld
    if withheld > 0, free > 0 { surrendered += host.surrender(min(withheld, free)) }
    memoryMeter?.measure()
  }
}

/// Looks again whether there is enough by now.
private final class RevocationTimer: Timer {
  /// The deadline has passed: the new limit is enforced.
  var isPast = false
  override func fire(now: UInt64) { Revocation.step(now: now) }
}
