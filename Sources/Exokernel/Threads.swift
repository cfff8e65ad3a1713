// Thread records lie in frames, never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CExokernel

/// The table of threads. A number names a thread until it ends, and never another. Exokernel lock held.
enum Threads {
  static let maximum = 4096
  static let vectorOffset = 1024
  nonisolated(unsafe) private static var table: UInt64 = 0
  nonisolated(unsafe) private static var generation: UInt32 = 1
  nonisolated(unsafe) private static var searchFrom = 0
  nonisolated(unsafe) static var count = 0

  static func prepare() {
    table = PhysicalMemory.takeRun(UInt64(maximum * 8 / 4096))
    Parking.prepare()
    Timers.prepare()
  }

  /// A thread of `space` (whose reference it takes over) that leaves the libOS with the frame in `block`; nil
  /// without memory. The caller fills in what differs and makes it ready.
  static func make(block: UInt64, space: UInt64) -> ThreadPointer? {
    let slots = PhysicalMemory.words(table)
    var index = searchFrom
    var tried = 0
    while slots[index] != 0 {
      index = (index + 1) % maximum
      tried += 1
      if tried == maximum { return nil }
    }
    let frame = PhysicalMemory.allocate()
    guard frame != 0 else { return nil }
    slots[index] = frame
    searchFrom = (index + 1) % maximum
    generation = generation & 0x7fff &+ 1
    count += 1
    let thread = PhysicalMemory.pointer(frame).assumingMemoryBound(to: exokernel_thread.self)
    thread.pointee.block = block
    thread.pointee.space = space
    thread.pointee.identifier = generation << 16 | UInt32(index)
    thread.pointee.deadline = .max
    thread.pointee.timer_index = .max
    thread.pointee.rank = RunQueue.fair
    thread.pointee.weight = RunQueue.weight(niceness: 0)
    thread.pointee.registers.cs = 0x33
    thread.pointee.registers.ss = 0x2b
    thread.pointee.registers.rflags = 0x202
    thread.pointee.registers.rip = LibOS.entries.gate_exit
    // The control words that a program starts with (System V ABI 3.4.1); an empty XSAVE area means the rest.
    let area = UnsafeMutableRawPointer(thread) + vectorOffset
    area.storeBytes(of: 0x037f, as: UInt16.self)
    area.storeBytes(of: 0x1f80, toByteOffset: 24, as: UInt32.self)
    return thread
  }

  /// The thread of a number, if it still is.
  static func find(_ identifier: UInt32) -> ThreadPointer? {
    let index = Int(identifier & 0xffff)
    guard index < maximum else { return nil }
    let frame = PhysicalMemory.words(table)[index]
    guard frame != 0 else { return nil }
    let thread = PhysicalMemory.pointer(frame).assumingMemoryBound(to: exokernel_thread.self)
    return thread.pointee.identifier == identifier ? thread : nil
  }

  /// Ends the calling thread. It is still the stack that ring 0 was entered on, but nothing reads that any more.
  static func end(_ thread: ThreadPointer) {
    let processor = cpu_current()!
    thread.pointee.state = UInt32(THREAD_FREE)
    Scheduler.account(thread, Clock.now)
    processor.pointee.thread = nil
    processor.pointee.dying = thread.pointee.space
    let index = Int(thread.pointee.identifier & 0xffff)
    let slots = PhysicalMemory.words(table)
    PhysicalMemory.release(slots[index])
    slots[index] = 0
    count -= 1
  }

  /// Gives up the space of the thread that ended on the processor last, which shows another one by now, or none.
  static func bury(on processor: UnsafeMutablePointer<exokernel_processor>) {
    let space = processor.pointee.dying
    guard space != 0 else { return }
    processor.pointee.dying = 0
    if processor.pointee.space == space, PhysicalMemory.isSingle(space) {
      Processors.show(LibOS.top, LibOS.top, on: processor)
    }
    AddressSpace.release(space)
  }
}

/// Threads that sleep on words, by the word's address. Exokernel lock held.
enum Parking {
  private static let buckets: UInt64 = 512
  nonisolated(unsafe) private static var table: UInt64 = 0

  static func prepare() { table = PhysicalMemory.takeRun(1) }

  private static func bucket(_ address: UInt64) -> UnsafeMutablePointer<ThreadPointer?> {
    let index = (address >> 2 ^ address >> 11) % buckets
    return PhysicalMemory.pointer(table + index * 8).assumingMemoryBound(to: ThreadPointer?.self)
  }

  /// The thread sleeps until it is woken or `deadline`.
  static func park(_ thread: ThreadPointer, _ address: UInt64, deadline: UInt64) {
    thread.pointee.state = UInt32(THREAD_PARKED)
    thread.pointee.park_address = address
    let list = bucket(address)
    // Last come, last served.
    var place = list
    while let other = place.pointee { place = Parking.next(other) }
    thread.pointee.next = nil
    place.pointee = thread
    if deadline != .max { Timers.insert(thread, deadline) }
  }

  private static func next(_ thread: ThreadPointer) -> UnsafeMutablePointer<ThreadPointer?> {
    UnsafeMutableRawPointer(exokernel_next(thread)!).assumingMemoryBound(to: ThreadPointer?.self)
  }

  /// Wakes at most `most` threads that sleep on the word at `address`.
  static func unpark(_ address: UInt64, most: UInt64) -> UInt64 {
    var place = bucket(address)
    var woken: UInt64 = 0
    while woken < most, let thread = place.pointee {
      guard thread.pointee.park_address == address else {
        place = next(thread)
        continue
      }
      place.pointee = thread.pointee.next
      if thread.pointee.timer_index != .max { Timers.remove(thread) }
      Scheduler.ready(thread)
      woken += 1
    }
    return woken
  }

  /// The deadline of a sleeping thread has come.
  static func wake(_ thread: ThreadPointer) {
    var place = bucket(thread.pointee.park_address)
    while let other = place.pointee {
      if other == thread {
        place.pointee = thread.pointee.next
        break
      }
      place = next(other)
    }
    Scheduler.ready(thread)
  }
}

/// Deadlines of sleeping threads: a binary heap. Exokernel lock held.
enum Timers {
  nonisolated(unsafe) private static var heap: UnsafeMutablePointer<ThreadPointer>! = nil
  nonisolated(unsafe) private static var count = 0

  static func prepare() {
    heap = PhysicalMemory.pointer(PhysicalMemory.takeRun(UInt64(Threads.maximum * 8 / 4096)))
      .assumingMemoryBound(to: ThreadPointer.self)
  }

  static var nextDeadline: UInt64 { count == 0 ? .max : heap[0].pointee.deadline }

  static func run(_ now: UInt64) {
    while count > 0, heap[0].pointee.deadline <= now {
      let thread = heap[0]
      remove(thread)
      Parking.wake(thread)
    }
  }

  static func insert(_ thread: ThreadPointer, _ deadline: UInt64) {
    thread.pointee.deadline = deadline
    place(thread, count)
    count += 1
    up(count - 1)
  }

  static func remove(_ thread: ThreadPointer) {
    let index = Int(thread.pointee.timer_index)
    thread.pointee.timer_index = .max
    count -= 1
    guard index != count else { return }
    place(heap[count], index)
    up(index)
    down(index)
  }

  private static func place(_ thread: ThreadPointer, _ index: Int) {
    (heap + index).initialize(to: thread)
    thread.pointee.timer_index = UInt32(index)
  }

  private static func exchange(_ a: Int, _ b: Int) {
    let thread = heap[a]
    place(heap[b], a)
    place(thread, b)
  }

  private static func up(_ start: Int) {
    var index = start
    while index > 0, heap[index].pointee.deadline < heap[(index - 1) / 2].pointee.deadline {
      exchange(index, (index - 1) / 2)
      index = (index - 1) / 2
    }
  }

  private static func down(_ start: Int) {
    var index = start
    while true {
      var least = index
      for child in 2 * index + 1..<2 * index + 3 where child < count {
        if heap[child].pointee.deadline < heap[least].pointee.deadline { least = child }
      }
      if least == index { return }
      exchange(index, least)
      index = least
    }
  }
}
