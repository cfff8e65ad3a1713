public import ABI
import CMachine
import Tasks

extension Futex {
  /// FUTEX_WAIT and FUTEX_WAIT_BITSET. `deadline` monotonic, nil for ever. EAGAIN when the word is not `value`,
  /// ETIMEDOUT, EFAULT, EINVAL; ERESTARTSYS or, with a deadline, ERESTART_RESTARTBLOCK when interrupted.
  public static func wait(
    _ address: UInt, value: UInt32, bits: UInt32 = .max, deadline: UInt64?, isShared: Bool,
    thread: LinuxThread
  ) throws(Errno) {
    if bits == 0 { throw .invalid }
    let key = try key(address, isShared: isShared, thread: thread)
    let until = thread.takeRestartDeadline(deadline ?? .max)
    guard try UserSlice.load(address, UInt32(0)) == value else { throw .again }
    let waiter = FutexWaiter(key: key, bits: bits, thread: thread)
    do throws(Errno) { try sleep(waiter, until: until) } catch {
      if error == .timedOut { throw error }
      guard deadline != nil else { throw .restartSystem }
      thread.keepRestartDeadline(until)
      throw .restartBlock
    }
  }

  /// The deadline of a futex timeout: FUTEX_WAIT's are relative; others are absolute, on the real-time clock with
  /// FUTEX_CLOCK_REALTIME (FUTEX_LOCK_PI always).
  public static func deadline(_ nanoseconds: UInt64, isRelative: Bool, isRealtime: Bool) -> UInt64 {
    if isRelative {
      let (sum, overflow) = host.monotonicNanoseconds.addingReportingOverflow(nanoseconds)
      return overflow ? .max - 1 : sum
    }
    return isRealtime ? Clock.monotonic(fromRealtime: nanoseconds) : nanoseconds
  }

  /// Queues the waiter and sleeps until it is woken, wherever it has been requeued to. EINTR, ETIMEDOUT.
  private static func sleep(_ waiter: FutexWaiter, until: UInt64) throws(Errno) {
    enqueue(waiter)
    while !waiter.isWoken {
      var failure: Errno?
      if waiter.thread.hasPendingInterrupt {
        failure = .interrupted
      } else if until != .max, host.monotonicNanoseconds >= until {
        failure = .timedOut
      }
      if let failure {
        dequeue(waiter)
        throw failure
      }
      waiter.thread.park(deadline: until)
    }
  }

  /// FUTEX_REQUEUE (`expected` nil) and FUTEX_CMP_REQUEUE: wakes `count`, moves up to `moved` others to `target`.
  /// How many were woken and moved. EAGAIN when the word is not `expected`.
  public static func requeue(
    _ address: UInt, to target: UInt, count: Int, moved: Int, expected: UInt32?, isShared: Bool,
    thread: LinuxThread
  ) throws(Errno) -> (woken: Int, moved: Int) {
    if count < 0 || moved < 0 { throw .invalid }
    let from = try key(address, isShared: isShared, thread: thread)
    let to = try key(target, isShared: isShared, thread: thread)
    if let expected {
      guard try UserSlice.load(address, UInt32(0)) == expected else { throw .again }
    }
    let woken = count == 0 ? 0 : wake(from, count: count, bits: .max)
    if from == to { return (woken, 0) }
    let index = bucket(from)
    var carried: [FutexWaiter] = []
    buckets[index].removeAll { waiter in
      guard waiter.key == from, carried.count < moved else { return false }
      carried.append(waiter)
      return true
    }
    for waiter in carried {
      waiter.key = to
      enqueue(waiter)
    }
    return (woken, carried.count)
  }

  /// FUTEX_WAKE_OP: changes the second word, wakes the first's waiters, and the second's if its old value compares.
  public static func wakeOperation(
    _ address: UInt, _ second: UInt, count: Int, secondCount: Int, operation: UInt32, isShared: Bool,
    thread: LinuxThread
  ) throws(Errno) -> Int {
    let firstKey = try key(address, isShared: isShared, thread: thread)
    let secondKey = try key(second, isShared: isShared, thread: thread)
    let old = try apply(operation, to: second)
    var woken = wake(firstKey, count: max(count, 1), bits: .max)
    if try compares(operation, old) { woken += wake(secondKey, count: max(secondCount, 1), bits: .max) }
    return woken
  }

  private static func apply(_ encoded: UInt32, to address: UInt) throws(Errno) -> UInt32 {
    var argument = UInt32(bitPattern: Int32(bitPattern: encoded << 8) >> 20)
    // FUTEX_OP_OPARG_SHIFT
    if encoded >> 31 != 0 { argument = 1 << (argument & 31) }
    var old = try UserSlice.load(address, UInt32(0))
    while true {
      let new: UInt32
      switch (encoded >> 28) & 7 {
      case 0: new = argument
      case 1: new = old &+ argument
      case 2: new = old | argument
      case 3: new = old & ~argument
      case 4: new = old ^ argument
      default: throw .notImplemented
      }
      let seen = try exchange(address, expected: old, desired: new)
      if seen == old { return old }
      old = seen
    }
  }

  private static func compares(_ encoded: UInt32, _ old: UInt32) throws(Errno) -> Bool {
    let value = Int32(bitPattern: old)
    let argument = Int32(bitPattern: encoded << 20) >> 20
    switch (encoded >> 24) & 15 {
    case 0: return value == argument
    case 1: return value != argument
    case 2: return value < argument
    case 3: return value <= argument
    case 4: return value > argument
    case 5: return value >= argument
    default: throw .notImplemented
    }
  }
}

// Locks with an owner in the word (FUTEX_LOCK_PI). Priorities do not exist here, so nothing is inherited; what
// remains is the protocol: owner's tid, waiters bit, handing over, owner's death.
extension Futex {
  private static var waitersBit: UInt32 { 0x8000_0000 }
  private static var ownerDiedBit: UInt32 { 0x4000_0000 }
  private static var ownerMask: UInt32 { 0x3fff_ffff }

  /// FUTEX_LOCK_PI, FUTEX_TRYLOCK_PI (`tries`: EAGAIN). EDEADLK for the owner, ESRCH for an owner that is gone.
  public static func lock(
    _ address: UInt, deadline: UInt64?, tries: Bool, isShared: Bool, thread: LinuxThread
  ) throws(Errno) {
    let key = try key(address, isShared: isShared, thread: thread)
    let me = UInt32(bitPattern: thread.tid)
    while true {
      let value = try UserSlice.load(address, UInt32(0))
      let owner = value & ownerMask
      if owner == me { throw .deadlock }
      if owner == 0 {
        let bits = (value & ownerDiedBit) | (hasWaiters(key) ? waitersBit : 0)
        if try exchange(address, expected: value, desired: me | bits) == value { return }
        continue
      }
      if tries { throw .again }
      guard ProcessTable.thread(Int32(bitPattern: owner)) != nil else { throw .noSuchProcess }
      guard try exchange(address, expected: value, desired: value | waitersBit) == value else { continue }
      let waiter = FutexWaiter(key: key, bits: .max, thread: thread)
      do throws(Errno) { try sleep(waiter, until: deadline ?? .max) } catch {
        throw error == .timedOut ? error : .restartNoInterrupt
      }
      // `unlock` has made this thread the owner; after the owner's death it competes.
      if try UserSlice.load(address, UInt32(0)) & ownerMask == me { return }
    }
  }

  /// FUTEX_UNLOCK_PI: hands the lock to the first waiter. EPERM when the caller does not own it.
  public static func unlock(_ address: UInt, isShared: Bool, thread: LinuxThread) throws(Errno) {
    let key = try key(address, isShared: isShared, thread: thread)
    while true {
      let value = try UserSlice.load(address, UInt32(0))
      guard value & ownerMask == UInt32(bitPattern: thread.tid) else { throw .notPermitted }
      let index = bucket(key)
      guard let position = buckets[index].firstIndex(where: { $0.key == key }) else {
        if try exchange(address, expected: value, desired: 0) == value { return }
        continue
      }
      let next = buckets[index][position]
      let hasMore = buckets[index].dropFirst(position + 1).contains { $0.key == key }
      let desired = UInt32(bitPattern: next.thread.tid) | (hasMore ? waitersBit : 0)
      guard try exchange(address, expected: value, desired: desired) == value else { continue }
      _ = wake(key, count: 1, bits: .max)
      return
    }
  }

  private static func hasWaiters(_ key: FutexKey) -> Bool { buckets[bucket(key)].contains { $0.key == key } }
}
