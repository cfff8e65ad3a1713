import ABI
import CMachine
import Tasks

// set_robust_list(2): locks that a thread holds at its end are marked and their waiters woken.

extension LinuxThread {
  private static var ownerDied: UInt32 { 0x4000_0000 }
  private static var waiters: UInt32 { 0x8000_0000 }

  /// Walks the list as far as it can be read, 2048 entries at most: it is the program's, and may be broken.
  func releaseRobustList() {
    guard robustList != 0 else { return }
    let head = robustList
    robustList = 0
    do throws(Errno) {
      let offset = try UserSlice.load(head &+ 8, UInt(0))
      let operationPending = try UserSlice.load(head &+ 16, UInt(0))
      var entry = try UserSlice.load(head, UInt(0))
      var left = 2048
      while entry & ~1 != head, left > 0 {
        // Bit 0 marks a lock with priority inheritance.
        let next = try UserSlice.load(entry & ~1, UInt(0))
        if entry & ~1 != operationPending & ~1 { try release((entry & ~1) &+ offset) }
        entry = next
        left -= 1
      }
      if operationPending & ~1 != 0 { try release((operationPending & ~1) &+ offset) }
    } catch {}
  }

  private func release(_ address: UInt) throws(Errno) {
    if address & 3 != 0 { throw .invalid }
    while true {
      let value = try UserSlice.load(address, UInt32(0))
      guard value & 0x3fff_ffff == UInt32(bitPattern: tid) else { return }
      let replaced = try Futex.exchange(
        address, expected: value, desired: (value & LinuxThread.waiters) | LinuxThread.ownerDied)
      guard replaced == value else { continue }
      if value & LinuxThread.waiters != 0 {
        _ = try Futex.wake(address, count: 1, isShared: true, thread: self)
      }
      return
    }
  }
}

extension Futex {
  /// Compare-and-exchange of a program's word; the old value. EFAULT.
  static func exchange(_ address: UInt, expected: UInt32, desired: UInt32) throws(Errno) -> UInt32 {
    _ = try UserSlice(address, 4)
    if address & 3 != 0 { throw .invalid }
    var seen: UInt32 = 0
    guard let word = UnsafeMutablePointer<UInt32>(bitPattern: address),
      machine_exchange_user_word(word, expected, desired, &seen) == 0
    else { throw .badAddress }
    return seen
  }
}
