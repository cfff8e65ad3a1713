public import ABI
public import Tasks

/// What one place of poll(2) asks for and learns.
public struct PollEntry {
  /// nil: the place is skipped.
  public var file: OpenFile?
  public var events: UInt32
  public var results: UInt32 = 0

  public init(file: OpenFile?, events: UInt32) {
    self.file = file
    self.events = events
  }
}

/// Whether any of the waiters of one poll was notified.
final class PollSession {
  let thread: Thread
  var wasNotified = false
  init(_ thread: Thread) { self.thread = thread }
}

final class PollWaiter: Waiter {
  let session: PollSession
  let events: UInt32

  init(_ session: PollSession, events: UInt32) {
    self.session = session
    self.events = events
    super.init()
  }

  override func notify(_ changed: UInt32) -> Bool {
    if changed != 0, changed & events == 0 { return false }
    if !session.wasNotified {
      session.wasNotified = true
      session.thread.unpark()
    }
    // A poller takes nothing: let exclusive waiters be woken as well.
    return false
  }
}

/// poll(2) and select(2). Kernel lock held; the lock is given up while they wait.
public enum Poll {
  /// POLLERR, POLLHUP: reported whether asked for or not.
  static let always: UInt32 = 0x18
  static let invalid: UInt32 = 0x20

  /// Waits until an entry is ready and fills in the results; how many have any. 0 when `deadline` (monotonic
  /// nanoseconds; 0 does not wait) has passed. EINTR.
  public static func wait(_ entries: inout [PollEntry], deadline: UInt64) throws(Errno) -> Int {
    let found = scan(&entries)
    if found > 0 || deadline == 0 { return found }
    let session = PollSession(Thread.current)
    var waiters: [PollWaiter] = []
    var queues: [WaitQueue] = []
    for entry in entries {
      guard let queue = entry.file?.waitQueue else { continue }
      let waiter = PollWaiter(session, events: entry.events | always)
      queue.add(waiter)
      waiters.append(waiter)
      queues.append(queue)
    }
    defer { for index in waiters.indices { queues[index].remove(waiters[index]) } }
    while true {
      while !session.wasNotified {
        if session.thread.hasPendingInterrupt { throw .interrupted }
        if deadline != .max, host.monotonicNanoseconds >= deadline { return scan(&entries) }
        session.thread.park(deadline: deadline)
      }
      session.wasNotified = false
      let found = scan(&entries)
      if found > 0 { return found }
    }
  }

  private static func scan(_ entries: inout [PollEntry]) -> Int {
    var found = 0
    for index in entries.indices {
      if let file = entries[index].file {
        entries[index].results = file.readiness().rawValue & (entries[index].events | always)
      }
      if entries[index].results != 0 { found += 1 }
    }
    return found
  }

  /// poll(2): `slice` holds `count` structs pollfd of 8 bytes. `lookup` gives the description of a descriptor.
  public static func poll(_ slice: UserSlice, deadline: UInt64, lookup: (Int32) -> OpenFile?) throws(Errno)
    -> Int
  {
    var bytes = try slice.bytes()
    var entries: [PollEntry] = []
    entries.reserveCapacity(bytes.count / 8)
    for start in stride(from: 0, to: bytes.count / 8 * 8, by: 8) {
      let descriptor = Int32(bitPattern: word(bytes, start))
      // What read(2) gives is asked for as POLLRDNORM, what write(2) takes as POLLWRNORM too: the low bits decide.
      let asked = normalized(word(bytes, start + 4) & 0xffff)
      var entry = PollEntry(file: descriptor < 0 ? nil : lookup(descriptor), events: asked)
      if descriptor >= 0, entry.file == nil { entry.results = invalid }
      entries.append(entry)
    }
    let found = try wait(&entries, deadline: deadline)
    for index in entries.indices {
      let asked = word(bytes, index * 8 + 4) & 0xffff
      let results = denormalized(entries[index].results, asked: asked)
      bytes[index * 8 + 6] = UInt8(truncatingIfNeeded: results)
      bytes[index * 8 + 7] = UInt8(truncatingIfNeeded: results >> 8)
    }
    try slice.store(bytes)
    return found
  }

  private static func word(_ bytes: [UInt8], _ at: Int) -> UInt32 {
    UInt32(bytes[at]) | UInt32(bytes[at + 1]) << 8 | UInt32(bytes[at + 2]) << 16 | UInt32(bytes[at + 3]) << 24
  }

  private static func normalized(_ asked: UInt32) -> UInt32 {
    var result = asked
    if asked & 0x40 != 0 { result |= Readiness.readable.rawValue }
    if asked & 0x100 != 0 { result |= Readiness.writable.rawValue }
    return result
  }

  private static func denormalized(_ results: UInt32, asked: UInt32) -> UInt32 {
    var found = results & (asked | always | invalid)
    if results & 1 != 0 { found |= asked & 0x40 }
    if results & 4 != 0 { found |= asked & 0x100 }
    return found
  }

  /// select(2): the bitmaps' addresses (0 for none) of `count` descriptors; how many bits are set afterwards. EBADF,
  /// EINVAL, EINTR, EFAULT.
  public static func select(
    count: Int, read: UInt, write: UInt, except: UInt, deadline: UInt64, lookup: (Int32) -> OpenFile?
  ) throws(Errno) -> Int {
    guard count >= 0 else { throw .invalid }
    let size = (min(count, 65536) + 63) / 64 * 8
    var sets = try [bitmap(read, size), bitmap(write, size), bitmap(except, size)]
    var entries: [PollEntry] = []
    var descriptors: [Int] = []
    for descriptor in 0..<min(count, size * 8) {
      var events: UInt32 = 0
      if isSet(sets[0], descriptor) { events |= 1 }
      if isSet(sets[1], descriptor) { events |= 4 }
      if isSet(sets[2], descriptor) { events |= 2 }
      guard events != 0 else { continue }
      guard let file = lookup(Int32(descriptor)) else { throw .badFileDescriptor }
      entries.append(PollEntry(file: file, events: events))
      descriptors.append(descriptor)
    }
    _ = try wait(&entries, deadline: deadline)
    var found = 0
    // Which results mean readable, writable, exceptional (select(2), "Correspondence between select and poll").
    let meanings: [UInt32] = [0x19, 0xc, 0x2]
    let asked: [UInt32] = [1, 4, 2]
    for set in 0..<3 {
      for index in sets[set].indices { sets[set][index] = 0 }
      for (index, entry) in entries.enumerated() {
        guard entry.events & asked[set] != 0, entry.results & meanings[set] != 0 else { continue }
        sets[set][descriptors[index] / 8] |= 1 << UInt8(descriptors[index] % 8)
        found += 1
      }
    }
    if read != 0 { try UserSlice(read, size).store(sets[0]) }
    if write != 0 { try UserSlice(write, size).store(sets[1]) }
    if except != 0 { try UserSlice(except, size).store(sets[2]) }
    return found
  }

  private static func bitmap(_ address: UInt, _ size: Int) throws(Errno) -> [UInt8] {
    if address == 0 { return [] }
    return try UserSlice(address, size).bytes()
  }

  private static func isSet(_ set: [UInt8], _ descriptor: Int) -> Bool {
    descriptor / 8 < set.count && set[descriptor / 8] & (1 << UInt8(descriptor % 8)) != 0
  }
}
