/// How long memory was short, for those who ask (PSI, Linux's Documentation/accounting/psi.rst). Kernel lock held.
public enum MemoryPressure {
  /// Time in which the host waited for frames, or a thread for others to give some up; and of it the time in which
  /// nobody else could run.
  public struct Stalled {
    public var some: UInt64 = 0
    public var full: UInt64 = 0
    public init() {}
  }

  nonisolated(unsafe) private static var sum = Stalled()
  /// Since when the host has been waiting; nil when it does not.
  nonisolated(unsafe) private static var since: UInt64?
  /// Told when the pressure begins.
  nonisolated(unsafe) public static var began: (() -> Void)?

  public static var isOn: Bool { since != nil }

  /// Nanoseconds of all time.
  public static func stalled(now: UInt64) -> Stalled {
    var result = sum
    if let since, now > since { result.some &+= now - since }
    return result
  }

  static func begin(now: UInt64) {
    guard since == nil else { return }
    since = now
    began?()
  }

  static func end(now: UInt64) {
    if let since, now > since { sum.some &+= now - since }
    since = nil
  }

  /// Counts time in which a thread gave up caches for memory that it needs, with the kernel lock held.
  static func count(from start: UInt64, to end: UInt64) {
    guard end > start else { return }
    sum.full &+= end - start
    if since == nil { sum.some &+= end - start }
  }
}
