// Threads and processors are records in frames, never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CExokernel

typealias ThreadPointer = UnsafeMutablePointer<exokernel_thread>

/// Which thread runs where: a run queue a processor, round robin with slices; a processor that has nothing to do takes
/// from the others. Exokernel lock held.
enum Scheduler {
  static let slice: UInt64 = 5_000_000

  /// The thread that the calling processor runs next. Sleeps, without the lock, while there is none.
  static func choose() -> ThreadPointer {
    let processor = cpu_current()!
    let now = Clock.now
    if let current = processor.pointee.thread {
      if current.pointee.state == UInt32(THREAD_RUNNING) {
        if now < processor.pointee.slice_end || processor.pointee.queue_first == nil {
          arm(processor, now)
          if Isolation.mode == .paging { show(current, on: processor) }
          return current
        }
        leave(processor)
        current.pointee.state = UInt32(THREAD_READY)
        append(current, to: processor)
      } else {
        leave(processor)
      }
    }
    while true {
      if let next = take(processor) {
        run(next, on: processor)
        return next
      }
      idle(processor)
    }
  }

  private static func idle(_ processor: UnsafeMutablePointer<exokernel_processor>) {
    processor.pointee.is_idle = 1
    // The page table of a space that may end meanwhile is left.
    Processors.show(LibOS.top, LibOS.top, on: processor)
    arm(processor, Clock.now)
    Lock.release()
    exokernel_wait_for_interrupt()
    Lock.acquire()
    processor.pointee.is_idle = 0
  }

  /// Saves what the current thread has in the processor, so that any processor may run it.
  static func leave(_ processor: UnsafeMutablePointer<exokernel_processor>) {
    guard let thread = processor.pointee.thread else { return }
    processor.pointee.thread = nil
    guard thread.pointee.state != UInt32(THREAD_FREE) else { return }
    save(thread)
    account(thread, Clock.now)
  }

  /// Adds the processor time since the thread was given the processor.
  static func account(_ thread: ThreadPointer, _ now: UInt64) {
    let time = now > thread.pointee.run_start ? now - thread.pointee.run_start : 0
    thread.pointee.used &+= time
    thread.pointee.run_start = now
    AddressSpace.use(thread.pointee.space, time)
  }

  /// Stores the FS base and the vector registers of the thread that the calling processor runs.
  static func save(_ thread: ThreadPointer) {
    thread.pointee.fs_base = cpu_read_fs_base()
    cpu_save_vectors(UnsafeMutableRawPointer(thread) + Threads.vectorOffset)
  }

  /// The tables that the thread may see now.
  private static func show(_ thread: ThreadPointer, on processor: UnsafeMutablePointer<exokernel_processor>) {
    var table = thread.pointee.space
    if Isolation.mode == .paging, thread.pointee.is_program != 0 {
      table = AddressSpace.restricted(table)
      if table == 0 { panic("no memory for a table") }
    }
    Processors.show(thread.pointee.space, table, on: processor)
  }

  private static func run(_ thread: ThreadPointer, on processor: UnsafeMutablePointer<exokernel_processor>) {
    processor.pointee.thread = thread
    thread.pointee.state = UInt32(THREAD_RUNNING)
    thread.pointee.processor = processor.pointee.index
    Processors.setEntryStack(
      processor, UInt64(UInt(bitPattern: thread)) + UInt64(MemoryLayout<exokernel_registers>.size))
    show(thread, on: processor)
    cpu_write_fs_base(thread.pointee.fs_base)
    cpu_write_msr(0xc000_0102, thread.pointee.block)
    Isolation.openProcessor(processor)
    cpu_restore_vectors(UnsafeRawPointer(thread) + Threads.vectorOffset)
    let now = Clock.now
    thread.pointee.run_start = now
    processor.pointee.slice_end = now + slice
    arm(processor, now)
  }

  /// The processor is interrupted when a sleeper's time comes or when others wait for it.
  private static func arm(_ processor: UnsafeMutablePointer<exokernel_processor>, _ now: UInt64) {
    var next = Timers.nextDeadline
    if processor.pointee.queue_first != nil { next = min(next, processor.pointee.slice_end) }
    guard next != processor.pointee.armed_deadline else { return }
    processor.pointee.armed_deadline = next
    LocalAPIC.arm(next == .max ? 0 : next > now ? max(next - now, 1000) : 1000)
  }

  /// Makes a thread ready: on the processor that it ran on, or on an idle one.
  static func ready(_ thread: ThreadPointer) {
    thread.pointee.state = UInt32(THREAD_READY)
    var target = Processors.at(Int(thread.pointee.processor))
    if target.pointee.thread != nil || target.pointee.queue_first != nil {
      for i in 0..<Processors.count {
        let other = Processors.at(i)
        if other.pointee.is_idle != 0, other.pointee.queue_first == nil {
          target = other
          break
        }
      }
    }
    append(thread, to: target)
    let own = cpu_current()!
    if target != own, target.pointee.is_idle != 0 || target.pointee.queue_first == thread {
      LocalAPIC.interrupt(target.pointee.apic_identifier, vector: LocalAPIC.kickVector)
    }
  }

  private static func append(
    _ thread: ThreadPointer, to processor: UnsafeMutablePointer<exokernel_processor>
  ) {
    thread.pointee.next = nil
    if let last = processor.pointee.queue_last {
      last.pointee.next = thread
    } else {
      processor.pointee.queue_first = thread
    }
    processor.pointee.queue_last = thread
  }

  private static func take(_ processor: UnsafeMutablePointer<exokernel_processor>) -> ThreadPointer? {
    if let own = takeFirst(processor) { return own }
    for i in 0..<Processors.count {
      if let other = takeFirst(Processors.at(i)) { return other }
    }
    return nil
  }

  private static func takeFirst(_ processor: UnsafeMutablePointer<exokernel_processor>) -> ThreadPointer? {
    guard let first = processor.pointee.queue_first else { return nil }
    processor.pointee.queue_first = first.pointee.next
    if first.pointee.next == nil { processor.pointee.queue_last = nil }
    return first
  }
}
