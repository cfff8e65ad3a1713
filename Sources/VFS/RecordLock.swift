public import ABI
import Tasks

/// A lock on a range of a file's bytes (fcntl(2), "Advisory record locking").
public struct RecordLock {
  /// The descriptor table (a process) or the open file (OFD locks, flock(2)) that holds it.
  public var owner: ObjectIdentifier
  /// What F_GETLK tells: -1 for open file description locks.
  public var process: Int32
  public var isExclusive: Bool
  /// First byte.
  public var start: Int64
  /// First byte after it; `Int64.max` for everything up to the end, however far that moves.
  public var end: Int64

  public init(owner: ObjectIdentifier, process: Int32, isExclusive: Bool, start: Int64, end: Int64) {
    self.owner = owner
    self.process = process
    self.isExclusive = isExclusive
    self.start = start
    self.end = end
  }

  func overlaps(_ other: RecordLock) -> Bool { start < other.end && other.start < end }
  func conflicts(_ other: RecordLock) -> Bool {
    owner != other.owner && (isExclusive || other.isExclusive) && overlaps(other)
  }
}

/// The locks on one file. Kernel lock held for every call.
public final class RecordLocks {
  private var locks: [RecordLock] = []
  private let queue = WaitQueue()

  public init() {}

  /// A lock of somebody else that stands in the way of `lock` (F_GETLK).
  public func conflict(_ lock: RecordLock) -> RecordLock? {
    for held in locks where held.conflicts(lock) { return held }
    return nil
  }

  /// Owners that wait, and whose lock each waits for.
  nonisolated(unsafe) private static var waitingFor: [ObjectIdentifier: ObjectIdentifier] = [:]

  /// `owner` waits, through others, for `other`: waiting for it would never end. As Linux, only processes' locks.
  private static func isWaiting(_ owner: ObjectIdentifier, for other: ObjectIdentifier) -> Bool {
    var place = owner
    for _ in 0..<10 {
      if place == other { return true }
      guard let next = waitingFor[place] else { return false }
      place = next
    }
    return false
  }

  /// Takes `lock`, in place of what the owner had in its range. Without `waits` EAGAIN when it is taken; EINTR,
  /// EDEADLK.
  public func take(_ lock: RecordLock, waits: Bool) throws(Errno) {
    while let held = conflict(lock) {
      guard waits else { throw .again }
      guard lock.process >= 0 else {
        try queue.sleep()
        continue
      }
      if RecordLocks.isWaiting(held.owner, for: lock.owner) { throw .deadlock }
      RecordLocks.waitingFor[lock.owner] = held.owner
      defer { RecordLocks.waitingFor[lock.owner] = nil }
      try queue.sleep()
    }
    cut(lock)
    merge(lock)
    // A shared lock in place of an exclusive one may let others in.
    if !queue.isEmpty { queue.wake() }
  }

  /// F_UNLCK: the owner's locks in the range of `lock` end.
  public func unlock(_ lock: RecordLock) {
    cut(lock)
    if !queue.isEmpty { queue.wake() }
  }

  /// Everything `owner` holds ends.
  public func release(_ owner: ObjectIdentifier) {
    guard !locks.isEmpty else { return }
    locks.removeAll { $0.owner == owner }
    if !queue.isEmpty { queue.wake() }
  }

  private func cut(_ lock: RecordLock) {
    var result: [RecordLock] = []
    for held in locks {
      guard held.owner == lock.owner, held.overlaps(lock) else {
        result.append(held)
        continue
      }
      var part = held
      part.end = lock.start
      if part.start < part.end { result.append(part) }
      part.start = lock.end
      part.end = held.end
      if part.start < part.end { result.append(part) }
    }
    locks = result
  }

  /// Adjacent locks of the same kind become one, so that a program that locks byte by byte holds one lock.
  private func merge(_ lock: RecordLock) {
    var merged = lock
    locks.removeAll { held in
      guard held.owner == lock.owner, held.isExclusive == lock.isExclusive,
        held.end == merged.start || held.start == merged.end
      else { return false }
      merged.start = min(merged.start, held.start)
      merged.end = max(merged.end, held.end)
      return true
    }
    // In order, so that F_GETLK tells the first.
    locks.insert(merged, at: locks.firstIndex { $0.start > merged.start } ?? locks.count)
  }
}
