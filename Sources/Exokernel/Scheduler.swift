// Threads and processors are records in frames, never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CExokernel

typealias ThreadPointer = UnsafeMutablePointer<exokernel_thread>

/// Which thread runs where. Exokernel lock held.
///
/// A thread that is woken joins the queue of the processor that woke it if another one is idle: mostly the waker is
/// about to sleep, and then no processor needs to interrupt another. If it is still there after `patience`, an idle
/// processor is called to fetch it. A processor with nothing to do takes from the longest queue.
enum Scheduler {
  static let slice: UInt64 = 5_000_000
  /// SCHED_RR's (sched_rr_get_interval(2)).
  static let roundRobinSlice: UInt64 = 100_000_000
  private static let patience: UInt64 = 500_000
  /// A thread that was woken interrupts one that is so far ahead of it.
  private static let granularity: UInt64 = 1_000_000

  /// The thread that the calling processor runs next. Sleeps, without the lock, while there is none.
  static func choose() -> ThreadPointer {
    let processor = cpu_current()!
    let now = Clock.now
    if let current = processor.pointee.thread {
      if current.pointee.state == UInt32(THREAD_RUNNING) {
        if !isOver(current, processor, now) {
          arm(processor, now)
          if Isolation.mode == .paging { show(current, on: processor) }
          return current
        }
        leave(processor)
        RunQueue.insert(current, processor)
      } else {
        leave(processor)
      }
    }
    while true {
      if let next = take(processor) {
        run(next, on: processor)
        return next
      }
      if !clear(processor) { idle(processor) }
    }
  }

  /// A processor with nothing to do zeroes frames, one at a time, so that nobody waits long for the lock.
  private static func clear(_ processor: RunQueue.Processor) -> Bool {
    guard PhysicalMemory.clearOne() else { return false }
    // Without a thread nothing keeps the tables that it showed last: asked to forget, it must leave them, as an idle one does.
    processor.pointee.is_idle = 1
    Lock.release()
    Lock.acquire()
    processor.pointee.is_idle = 0
    return true
  }

  /// Whether another thread's turn has come. A slice that ends with nobody further behind begins anew.
  private static func isOver(
    _ current: ThreadPointer, _ processor: RunQueue.Processor, _ now: UInt64
  ) -> Bool {
    guard let first = RunQueue.first(processor) else { return false }
    if first.pointee.rank != current.pointee.rank { return first.pointee.rank < current.pointee.rank }
    guard now >= processor.pointee.slice_end else { return false }
    account(current, now)
    if current.pointee.rank != RunQueue.fair { RunQueue.arrive(current) }
    balance(processor)
    if RunQueue.isBefore(RunQueue.first(processor)!, current) { return true }
    processor.pointee.slice_end = now + sliceLength(current)
    return false
  }

  private static func sliceLength(_ thread: ThreadPointer) -> UInt64 {
    if thread.pointee.rank == RunQueue.fair { return slice }
    return thread.pointee.is_round_robin != 0 ? roundRobinSlice : .max >> 1
  }

  private static func idle(_ processor: RunQueue.Processor) {
    processor.pointee.is_idle = 1
    Threads.bury(on: processor)
    arm(processor, Clock.now)
    Lock.release()
    exokernel_wait_for_interrupt()
    Lock.acquire()
    processor.pointee.is_idle = 0
  }

  /// Saves what the current thread has in the processor, so that any processor may run it.
  static func leave(_ processor: RunQueue.Processor) {
    guard let thread = processor.pointee.thread else { return }
    processor.pointee.thread = nil
    guard thread.pointee.state != UInt32(THREAD_FREE) else { return }
    save(thread)
    account(thread, Clock.now)
  }

  /// Adds the processor time since the thread was given the processor, or since it was last added.
  static func account(_ thread: ThreadPointer, _ now: UInt64) {
    let time = now > thread.pointee.run_start ? now - thread.pointee.run_start : 0
    thread.pointee.used &+= time
    thread.pointee.run_start = now
    AddressSpace.use(thread.pointee.space, time)
    guard thread.pointee.rank == RunQueue.fair else { return }
    thread.pointee.key &+= time &* 1024 / UInt64(thread.pointee.weight)
    let processor = Processors.at(Int(thread.pointee.processor))
    var floor = thread.pointee.key
    if let first = RunQueue.first(processor), first.pointee.rank == RunQueue.fair,
      RunQueue.isBefore(first, thread)
    {
      floor = first.pointee.key
    }
    if Int64(bitPattern: floor &- processor.pointee.floor) > 0 { processor.pointee.floor = floor }
  }

  /// Stores the FS base and the vector registers of the thread that the calling processor runs.
  static func save(_ thread: ThreadPointer) {
    thread.pointee.fs_base = cpu_read_fs_base()
    cpu_save_vectors(UnsafeMutableRawPointer(thread) + Threads.vectorOffset)
  }

  /// The tables that the thread may see now.
  private static func show(_ thread: ThreadPointer, on processor: RunQueue.Processor) {
    var table = thread.pointee.space
    if Isolation.mode == .paging, thread.pointee.is_program != 0 {
      table = AddressSpace.restricted(table)
      if table == 0 { panic("no memory for a table") }
    }
    Processors.show(thread.pointee.space, table, on: processor)
  }

  private static func run(_ thread: ThreadPointer, on processor: RunQueue.Processor) {
    processor.pointee.thread = thread
    thread.pointee.state = UInt32(THREAD_RUNNING)
    Processors.setEntryStack(
      processor, UInt64(UInt(bitPattern: thread)) + UInt64(MemoryLayout<exokernel_registers>.size))
    show(thread, on: processor)
    Threads.bury(on: processor)
    cpu_write_fs_base(thread.pointee.fs_base)
    cpu_write_msr(0xc000_0102, thread.pointee.block)
    Isolation.openProcessor(processor)
    cpu_restore_vectors(UnsafeRawPointer(thread) + Threads.vectorOffset)
    let now = Clock.now
    thread.pointee.run_start = now
    processor.pointee.slice_end = now + sliceLength(thread)
    arm(processor, now)
  }

  /// The processor is interrupted when a sleeper's time comes, unless another one is by then, and when others wait
  /// for it, or for an idle one.
  private static func arm(_ processor: RunQueue.Processor, _ now: UInt64) {
    var next = Timers.nextDeadline
    if next != .max, Processors.others(processor, contain: { $0.pointee.armed_deadline <= next }) {
      next = .max
    }
    if processor.pointee.queue_count > 0 {
      next = min(next, processor.pointee.slice_end)
      if processor.pointee.call_at != .max, hasIdle(processor) { next = min(next, processor.pointee.call_at) }
    }
    guard next != processor.pointee.armed_deadline else { return }
    processor.pointee.armed_deadline = next
    LocalAPIC.arm(next == .max ? 0 : next > now ? max(next - now, 1000) : 1000)
  }

  private static func hasIdle(_ processor: RunQueue.Processor) -> Bool {
    Processors.others(processor, contain: { $0.pointee.is_idle != 0 })
  }

  /// The processor's timer has run out: threads that wait here too long are fetched by an idle processor.
  static func callIdle(_ processor: RunQueue.Processor, _ now: UInt64) {
    guard processor.pointee.queue_count > 0, processor.pointee.call_at <= now else { return }
    processor.pointee.call_at = .max
    for i in 0..<Processors.count where Processors.at(i).pointee.is_idle != 0 {
      return LocalAPIC.interrupt(Processors.at(i).pointee.apic_identifier, vector: LocalAPIC.kickVector)
    }
  }

  /// Makes a thread ready.
  static func ready(_ thread: ThreadPointer) {
    let own = cpu_current()!
    let last = Processors.at(Int(thread.pointee.processor))
    var target = own
    if own.pointee.thread != nil || own.pointee.queue_count > 0 {
      if hasIdle(own) {
        if own.pointee.queue_count == 0 || own.pointee.call_at == .max {
          own.pointee.call_at = Clock.now &+ patience
        }
      } else if last.pointee.queue_count <= own.pointee.queue_count {
        target = last
      }
    }
    RunQueue.enter(thread, target)
    preempt(target, for: thread, own)
  }

  /// The processor's current thread makes way for one that is further behind, or of a higher rank.
  private static func preempt(
    _ target: RunQueue.Processor, for thread: ThreadPointer, _ own: RunQueue.Processor
  ) {
    if let current = target.pointee.thread, current.pointee.state == UInt32(THREAD_RUNNING) {
      let now = Clock.now
      var isBehind = thread.pointee.rank < current.pointee.rank
      if thread.pointee.rank == RunQueue.fair, current.pointee.rank == RunQueue.fair {
        let passed = (now &- current.pointee.run_start) &* 1024 / UInt64(current.pointee.weight)
        isBehind =
          Int64(bitPattern: current.pointee.key &+ passed &- thread.pointee.key) > Int64(granularity)
      }
      // Where it alone ran, nobody has looked at the slice's end.
      let isAlone = target.pointee.queue_count == 1
      if isBehind { target.pointee.slice_end = 0 } else if !isAlone { return }
    }
    if target != own { LocalAPIC.interrupt(target.pointee.apic_identifier, vector: LocalAPIC.kickVector) }
  }

  /// A thread that is to be scheduled otherwise from now on.
  static func change(_ thread: ThreadPointer, policy: UInt64, priority: UInt64, niceness: Int) {
    let isRealTime = policy == 1 || policy == 2
    thread.pointee.is_round_robin = policy == 2 ? 1 : 0
    let rank = isRealTime ? 100 - UInt32(priority) : RunQueue.fair
    let processor = Processors.at(Int(thread.pointee.processor))
    if thread.pointee.state == UInt32(THREAD_RUNNING) { account(thread, Clock.now) }
    if rank != thread.pointee.rank {
      thread.pointee.rank = rank
      if isRealTime { RunQueue.arrive(thread) } else { thread.pointee.key = processor.pointee.floor }
    }
    // SCHED_IDLE: what is left (Linux gives it a weight of 3 beside 1024).
    thread.pointee.weight = policy == 5 ? 3 : RunQueue.weight(niceness: niceness)
    if thread.pointee.state == UInt32(THREAD_READY) { RunQueue.order(processor) }
    if thread.pointee.state == UInt32(THREAD_RUNNING) { processor.pointee.slice_end = 0 }
    if processor != cpu_current() {
      LocalAPIC.interrupt(processor.pointee.apic_identifier, vector: LocalAPIC.kickVector)
    }
  }

  /// The thread lets others go first, those of its own rank.
  static func yield(_ thread: ThreadPointer) {
    let processor = cpu_current()!
    processor.pointee.slice_end = 0
    account(thread, Clock.now)
    guard thread.pointee.rank == RunQueue.fair, let first = RunQueue.first(processor),
      first.pointee.rank == RunQueue.fair, RunQueue.isBefore(thread, first)
    else { return }
    thread.pointee.key = first.pointee.key &+ 1
  }

  private static func take(_ processor: RunQueue.Processor) -> ThreadPointer? {
    if let own = RunQueue.removeFirst(processor) { return own }
    guard let longest = longest(), let thread = RunQueue.removeFirst(longest) else { return nil }
    RunQueue.enter(thread, processor)
    return RunQueue.removeFirst(processor)
  }

  private static func longest() -> RunQueue.Processor? {
    var found: RunQueue.Processor?
    for i in 0..<Processors.count {
      let other = Processors.at(i)
      if other.pointee.queue_count > found?.pointee.queue_count ?? 0 { found = other }
    }
    return found
  }

  /// At the end of a slice: a thread comes from a queue that is longer by two or more.
  private static func balance(_ processor: RunQueue.Processor) {
    guard let longest = longest(), longest.pointee.queue_count >= processor.pointee.queue_count + 2,
      let thread = RunQueue.removeFirst(longest)
    else { return }
    RunQueue.enter(thread, processor)
  }
}
