// Processor records and stacks exist whenever this runs, never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CExokernel

/// Old translations leave the processors before anything depends on it (Intel SDM 3A, 4.10.5). Exokernel lock held.
///
/// Whoever takes a page away says `wanted`; frames that were mapped are given back after the flush only.
enum Flush {
  nonisolated(unsafe) static var wanted = false
  nonisolated(unsafe) static var everywhere = false
  private static let capacity = 510
  /// A frame of frames that wait: count, then addresses.
  nonisolated(unsafe) static var waiting: UInt64 = 0

  /// Releases a frame once no processor can reach it.
  static func release(_ frame: UInt64) {
    let list = PhysicalMemory.words(waiting)
    if list[0] == UInt64(capacity) {
      // Too many to remember: every processor forgets everything now.
      everywhere = true
      perform(0)
    }
    list[0] += 1
    list[Int(list[0])] = frame
  }

  /// Ends an operation on `space`.
  static func flush(_ space: UInt64) {
    let list = PhysicalMemory.words(waiting)
    if wanted || list[0] != 0 { perform(space) }
  }

  private static func perform(_ space: UInt64) {
    let own = cpu_current()
    for i in 0..<Processors.count {
      let processor = Processors.at(i)
      guard everywhere || processor.pointee.space == space else { continue }
      if processor == own {
        cpu_write_cr3(processor.pointee.table)
      } else if processor.pointee.is_idle != 0, processor.pointee.space == LibOS.top {
        // It looks at nothing through these tables before it shows others.
        processor.pointee.table = 0
      } else {
        ask(processor)
      }
    }
    waitForAnswers(own)
    wanted = false
    everywhere = false
    let list = PhysicalMemory.words(waiting)
    while list[0] > 0 {
      let frame = list[Int(list[0])]
      list[0] -= 1
      PhysicalMemory.release(frame)
    }
  }

  /// No processor shows `space` any more; the caller's does not.
  static func evict(_ space: UInt64) {
    for i in 0..<Processors.count where Processors.at(i).pointee.space == space { ask(Processors.at(i)) }
    waitForAnswers(cpu_current())
  }

  private static func ask(_ processor: UnsafeMutablePointer<exokernel_processor>) {
    machine_store(&processor.pointee.flush_wanted, 1)
    LocalAPIC.interrupt(processor.pointee.apic_identifier, vector: LocalAPIC.flushVector)
  }

  private static func waitForAnswers(_ own: UnsafeMutablePointer<exokernel_processor>?) {
    for i in 0..<Processors.count {
      let processor = Processors.at(i)
      while processor != own, machine_load(&processor.pointee.flush_wanted) != 0 { machine_pause() }
    }
  }

  /// Another processor asked; also called by who waits for the lock.
  @inline(__always)
  static func serve(_ processor: UnsafeMutablePointer<exokernel_processor>) {
    if machine_load(&processor.pointee.flush_wanted) != 0 {
      if processor.pointee.is_idle != 0 {
        // Nobody needs to ask an idle processor twice.
        processor.pointee.space = LibOS.top
        processor.pointee.table = LibOS.top
      }
      cpu_write_cr3(processor.pointee.table)
      machine_store(&processor.pointee.flush_wanted, 0)
    }
  }
}

/// The one lock of the exokernel: its work is short. Interrupts are off while it is held.
enum Lock {
  nonisolated(unsafe) private static var word: UInt32 = 0

  static func acquire() {
    while machine_exchange(&word, 1) != 0 {
      let processor = cpu_current()!
      while machine_load(&word) != 0 {
        Flush.serve(processor)
        machine_pause()
      }
    }
  }

  static func release() { machine_store(&word, 0) }
}
