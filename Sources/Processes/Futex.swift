public import ABI
import CMachine
import Tasks

/// What two threads that mean the same futex word agree on.
public struct FutexKey: Equatable {
  /// The address space (private) or the memory object (shared).
  public var identity: UInt
  /// The address or the offset in the object.
  public var offset: UInt
  public init(identity: UInt, offset: UInt) {
    self.identity = identity
    self.offset = offset
  }
}

/// Fast user-space locks (futex(2)). Kernel lock held for every call.
public enum Futex {
  final class FutexWaiter: Waiter {
    var key: FutexKey
    let bits: UInt32
    unowned(unsafe) let thread: LinuxThread
    var isWoken = false

    init(key: FutexKey, bits: UInt32, thread: LinuxThread) {
      self.key = key
      self.bits = bits
      self.thread = thread
      super.init()
    }
  }

  static let bucketCount = 256
  nonisolated(unsafe) static var buckets: [[FutexWaiter]] = []

  static func key(_ address: UInt, isShared: Bool, thread: LinuxThread) throws(Errno) -> FutexKey {
    if address & 3 != 0 { throw .invalid }
    _ = try UserSlice(address, 4)
    if isShared, let key = sharedKey(address, thread) { return key }
    return FutexKey(identity: thread.process.addressSpaceIdentity, offset: address)
  }

  /// In memory that several address spaces may show the word is named by its object; nil in private memory.
  private static func sharedKey(_ address: UInt, _ thread: LinuxThread) -> FutexKey? {
    guard let area = thread.process.addressSpace.area(at: address), area.isShared,
      let object: AnyObject = area.inode ?? area.frames
    else { return nil }
    let identity = UInt(bitPattern: Unmanaged.passUnretained(object).toOpaque())
    return FutexKey(identity: identity, offset: UInt(area.offset) &+ (address - area.start))
  }

  static func bucket(_ key: FutexKey) -> Int {
    if buckets.isEmpty { buckets = [[FutexWaiter]](repeating: [], count: bucketCount) }
    let mixed = (key.offset >> 2) ^ (key.identity &* 0x9e37_79b9_7f4a_7c15) ^ (key.offset >> 12)
    return Int(mixed % UInt(bucketCount))
  }

  static func enqueue(_ waiter: FutexWaiter) { buckets[bucket(waiter.key)].append(waiter) }

  static func dequeue(_ waiter: FutexWaiter) { buckets[bucket(waiter.key)].removeAll { $0 === waiter } }

  /// Wakes up to `count` waiters whose bits meet `bits`; how many.
  static func wake(_ key: FutexKey, count: Int, bits: UInt32) -> Int {
    let index = bucket(key)
    var woken = 0
    var position = 0
    while position < buckets[index].count, woken < count {
      let waiter = buckets[index][position]
      if waiter.key == key, waiter.bits & bits != 0 {
        buckets[index].remove(at: position)
        waiter.isWoken = true
        waiter.thread.unpark()
        woken += 1
      } else {
        position += 1
      }
    }
    return woken
  }

  /// FUTEX_WAKE and FUTEX_WAKE_BITSET: how many woke. EFAULT, EINVAL.
  public static func wake(
    _ address: UInt, count: Int, bits: UInt32 = .max, isShared: Bool, thread: LinuxThread
  ) throws(Errno) -> Int {
    if bits == 0 { throw .invalid }
    return wake(try key(address, isShared: isShared, thread: thread), count: max(count, 1), bits: bits)
  }
}
