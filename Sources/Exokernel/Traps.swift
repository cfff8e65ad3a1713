// Processor records and stacks exist whenever this runs, never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CExokernel

/// Every way from ring 3 into ring 0 leads here; gives the thread that goes on.
@c(exokernel_enter)
public func exokernelEnter(_ thread: UnsafeMutablePointer<exokernel_thread>)
  -> UnsafeMutablePointer<exokernel_thread>
{
  let processor = cpu_current()!
  Flush.serve(processor)
  Isolation.enter(thread, processor)
  // Read before the lock: another interrupt cannot come, but a flush can be served.
  let address = cpu_read_cr2()
  Lock.acquire()
  let vector = thread.pointee.registers.vector
  if vector == 256 {
    if thread.pointee.is_kicked != 0 { Traps.kicked(thread) }
    Traps.systemCall(thread)
  } else if vector < 32 {
    Traps.exception(thread, vector, address)
  } else if vector == Traps.oldCall {
    thread.pointee.registers.rax = UInt64(bitPattern: Calls.missing)
  } else {
    Traps.interrupt(processor, vector)
  }
  // Not before an exception is judged: that is the doing of where the thread was.
  if vector != 256, thread.pointee.is_kicked != 0 { Traps.kicked(thread) }
  let next = Scheduler.choose()
  Isolation.leave(next)
  Devices.page.pointee.free_frames = PhysicalMemory.left
  Lock.release()
  return next
}

/// An interrupt of an idle processor, or a mistake.
@c(exokernel_trap_in_ring_0)
public func exokernelTrapInRing0(_ registers: UnsafeMutablePointer<exokernel_registers>) {
  let vector = registers.pointee.vector
  if vector >= 32 {
    let processor = cpu_current()!
    Flush.serve(processor)
    Lock.acquire()
    Traps.interrupt(processor, vector)
    Lock.release()
    return
  }
  say("swiftlet: exokernel panic: exception ")
  say(decimal: vector)
  say(" in ring 0, error ")
  say(hexadecimal: registers.pointee.error)
  say(", address ")
  say(hexadecimal: cpu_read_cr2())
  say(", at ")
  say(hexadecimal: registers.pointee.rip)
  say("\n")
  Backtrace.exokernel(registers.pointee.rsp, (registers.pointee.rsp | 0x3fff) + 1)
  PowerOff.end(status: 70)
}

enum Traps {
  /// `int $0x80`: the 32-bit system calls of Linux, which do not exist here.
  static let oldCall: UInt64 = 0x80

  // MARK: Interrupts

  static func interrupt(_ processor: UnsafeMutablePointer<exokernel_processor>, _ vector: UInt64) {
    switch vector {
    case LocalAPIC.timerVector:
      processor.pointee.armed_deadline = .max
      let now = Clock.now
      Timers.run(now)
      Scheduler.callIdle(processor, now)
    case LocalAPIC.deviceVector: Devices.signal()
    case LocalAPIC.flushVector: Flush.serve(processor)
    case LocalAPIC.spuriousVector: return
    default: break
    }
    LocalAPIC.acknowledge()
  }

  /// The libOS wants the thread: out of its program, or once more through the end of the way out.
  static func kicked(_ thread: ThreadPointer) {
    thread.pointee.is_kicked = 0
    let address = thread.pointee.registers.rip
    if Isolation.mode != .paging || Isolation.isInside(thread) {
      // On the way out the key may be closed already: the frame has everything, whoever came here.
      if address >= LibOS.entries.gate_exit, address < LibOS.entries.gate_exit_end {
        return goOn(thread, at: LibOS.entries.gate_exit)
      }
      if address >= LibOS.entries.keys_answer, address < LibOS.entries.keys_answer_end {
        return goOn(thread, at: LibOS.entries.keys_kicked)
      }
    }
    if !Isolation.isInside(thread), !isAtSystemCall(thread) {
      upcall(thread, kind: UInt64(TRAP_KICK), address: 0, detail: 0)
    }
  }

  /// The thread goes on in the libOS, with the libOS's rights.
  private static func goOn(_ thread: ThreadPointer, at address: UInt64) {
    thread.pointee.registers.rip = address
    enterLibOS(thread)
  }

  private static func enterLibOS(_ thread: ThreadPointer) {
    thread.pointee.is_program = 0
    thread.pointee.keys = Isolation.open
    thread.pointee.registers.rflags = 0x202
    // A program may have changed its GS base; the libOS finds its thread by it.
    if cpu_current().pointee.thread == thread { cpu_write_msr(0xc000_0102, thread.pointee.block) }
  }

  /// The thread just made a system call: it enters the libOS anyway.
  private static func isAtSystemCall(_ thread: ThreadPointer) -> Bool {
    thread.pointee.registers.vector == 256 && thread.pointee.state == UInt32(THREAD_RUNNING)
      && cpu_current().pointee.thread == thread
  }

  // MARK: System calls

  static func systemCall(_ thread: ThreadPointer) {
    let address = thread.pointee.registers.rip
    thread.pointee.registers.vector = 0
    if Isolation.isInside(thread), address >= LibOS.entries.calls_start, address <= LibOS.entries.calls_end {
      Calls.dispatch(thread)
    } else {
      upcall(thread, kind: UInt64(TRAP_SYSTEM_CALL), address: 0, detail: 0)
    }
  }

  // MARK: Exceptions

  static func exception(_ thread: ThreadPointer, _ vector: UInt64, _ address: UInt64) {
    let isInside = Isolation.isInside(thread) && !Isolation.isAtDoor(thread)
    if vector == 1, Isolation.isInside(thread) {
      // A program that steps itself came in by the gate: the libOS is not to be stepped.
      thread.pointee.registers.rflags &= ~0x100
      return
    }
    var detail: UInt64 = 0x80  // SI_KERNEL
    var place: UInt64 = 0
    var kind = TRAP_FAULT
    switch vector {
    case 14:
      switch pageFault(thread, address, isInside) {
      case .resolved: return
      case .unmapped: detail = 1  // SEGV_MAPERR
      case .denied: detail = 2  // SEGV_ACCERR
      case .noMemory: kind = TRAP_MEMORY
      case .outside:
        kind = TRAP_BUS
        detail = 2  // BUS_ADRERR
      }
      place = address
      // What kind of access it was, for who looks behind the fault.
      detail |= thread.pointee.registers.error << 32
    case 0:
      (kind, detail) = (TRAP_ARITHMETIC, 1)  // FPE_INTDIV
      place = thread.pointee.registers.rip
    case 1: (kind, detail) = (TRAP_BREAKPOINT, 2)  // TRAP_TRACE
    case 3: kind = TRAP_BREAKPOINT
    case 6:
      (kind, detail) = (TRAP_ILLEGAL, 2)  // ILL_ILLOPN
      place = thread.pointee.registers.rip
    case 16, 19:
      (kind, detail) = (TRAP_ARITHMETIC, 7)  // FPE_FLTINV
      place = thread.pointee.registers.rip
    case 17: (kind, detail) = (TRAP_BUS, 1)  // BUS_ADRALN
    default: break
    }
    if isInside {
      insideLibOS(thread, vector, address)
    } else {
      upcall(thread, kind: UInt64(kind), address: place, detail: detail)
    }
  }

  private static func pageFault(_ thread: ThreadPointer, _ address: UInt64, _ isInside: Bool)
    -> AddressSpace.Outcome
  {
    let error = thread.pointee.registers.error
    let outcome: AddressSpace.Outcome
    if address >= LibOS.arena, address &- LibOS.arena < LibOS.arenaBytes {
      // Fresh frames of the arena, for the libOS alone to touch first.
      guard error & 0x10 == 0, isInside || Isolation.mode == .none else { return .unmapped }
      outcome = LibOS.arenaFrame((address - LibOS.arena) & ~4095) == 0 ? .noMemory : .resolved
    } else if error & 0x20 != 0, !isInside {
      return LibOS.contains(address) ? .unmapped : .denied
    } else {
      PhysicalMemory.isForLibOS = isInside
      outcome = AddressSpace.resolve(
        thread.pointee.space, address, isWrite: error & 2 != 0, isFetch: error & 0x10 != 0)
      PhysicalMemory.isForLibOS = false
    }
    Flush.flush(thread.pointee.space)
    return outcome
  }

  /// A fault in the libOS itself: in a copy of program memory, which answers EFAULT, or a mistake.
  private static func insideLibOS(_ thread: ThreadPointer, _ vector: UInt64, _ address: UInt64) {
    let at = thread.pointee.registers.rip
    if vector == 14 || vector == 13 {
      if at >= LibOS.entries.copy_start, at < LibOS.entries.copy_end {
        thread.pointee.registers.rip = LibOS.entries.copy_fault
        return
      }
      if at >= LibOS.entries.exchange_start, at < LibOS.entries.exchange_end {
        thread.pointee.registers.rip = LibOS.entries.exchange_fault
        return
      }
      if at >= LibOS.entries.gate_exit && at < LibOS.entries.gate_exit_end
        || at >= LibOS.entries.keys_answer && at < LibOS.entries.keys_answer_end
      {
        thread.pointee.registers.rip = LibOS.entries.slot_fault
        return
      }
    }
    say("swiftlet: panic: ")
    if vector == 14, LibOS.isGuarded(address) {
      say("the libOS's stack overflowed")
    } else if vector == 6 {
      say("a check failed in the libOS")
    } else {
      say("exception ")
      say(decimal: vector)
      say(" in the libOS, address ")
      say(hexadecimal: vector == 14 ? address : 0)
    }
    say("\n")
    Backtrace.libOS(thread.pointee.registers)
    say("swiftlet: this is a bug in the libOS; the unikernel ends with status 70\n")
    PowerOff.end(status: 70)
  }

  // MARK: Upcalls

  /// Hands a program's thread to the libOS: its registers go into the frame of its block, and it goes on at the
  /// libOS's trap entry.
  static func upcall(_ thread: ThreadPointer, kind: UInt64, address: UInt64, detail: UInt64) {
    guard let block = LibOS.block(thread.pointee.block) else { panic("a thread without a block") }
    let frameAddress = UInt64(UInt(bitPattern: block.pointee.frame))
    let place = frameAddress & 15 == 0 && frameAddress >= LibOS.arena ? LibOS.writable(frameAddress) : 0
    guard place != 0, place & 4095 <= 4096 - UInt64(MemoryLayout<trap_frame>.size) else {
      panic("the libOS gave a thread a frame outside the arena")
    }
    block.pointee.trap_detail = detail
    let from = thread.pointee.registers
    let frame = PhysicalMemory.pointer(place).assumingMemoryBound(to: trap_frame.self)
    frame.pointee = trap_frame(
      r15: from.r15, r14: from.r14, r13: from.r13, r12: from.r12, rbp: from.rbp, rbx: from.rbx, r10: from.r10,
      r9: from.r9, r8: from.r8, rdx: from.rdx, rsi: from.rsi, rdi: from.rdi, rax: from.rax, rcx: from.rcx,
      r11: from.r11, rip: from.rip, cs: 0x33, rflags: from.rflags, rsp: from.rsp, ss: 0x2b, kind: kind,
      address: address)
    thread.pointee.registers.rip = LibOS.entries.trap_entry
    thread.pointee.registers.rsp = frameAddress
    enterLibOS(thread)
  }
}
