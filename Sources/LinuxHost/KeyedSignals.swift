// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CHostCore
import CLinuxHost
import CMachine
import HostCore

// Linux's signals where protection keys isolate.
//
// Linux closes the libOS's key for a handler, and (before 6.12) writes the signal's frame with the rights that the thread
// had: a thread that ran its program can only be told of a signal in memory that the program may write. Such a frame is
// copied into the libOS's stack once, checked there, and is nothing but what the program says its registers are. The
// return from the signal reads the copy.
//
// The signal stack that Linux knows reaches from the libOS's stack to the part for the program, so that a
// signal that interrupts the libOS stays on the libOS's stack.

/// The layout of a copy: Linux's `struct rt_sigframe` at its start (asm/sigframe.h), the vector registers behind.
private enum FrameCopy {
  static let mostBytes = 11 << 10
  /// uc_sigmask, behind the return address and what of `struct ucontext` comes before it.
  static let maskOffset: UInt = 304
  /// Below the handler's own use of the stack, at the same place in a line of 64 bytes as the original.
  static let offset = ThreadStack.signalOffset - (32 << 10)
}

/// A signal while the program ran: gives what the return from the signal reads (its address after the return address).
@c(host_signal_program)
public func hostSignalProgram(
  _ signal: Int32, _ information: UInt64, _ context: UInt64
) -> UInt64 {
  let block = machine_current_block()!
  let base = UInt64(ThreadStack.base(block))
  let start = context &- 8
  let end = base + UInt64(ThreadStack.bytes)
  guard start >= base + UInt64(ThreadStack.signalOffset), start < end - 1024, start & 7 == 0,
    end - start <= UInt64(FrameCopy.mostBytes), information >= start, information <= end - 128,
    information & 7 == 0, start + UInt64(FrameCopy.maskOffset) + 8 <= end
  else { panic("a signal's frame is not on its stack") }
  let copy = base + UInt64(FrameCopy.offset) + start % 64
  UnsafeMutableRawPointer(bitPattern: UInt(copy))!.copyMemory(
    from: UnsafeRawPointer(bitPattern: UInt(start))!, byteCount: Int(end - start))
  let frame = UnsafeMutablePointer<host_ucontext>(bitPattern: UInt(copy) + 8)!
  let details = UnsafePointer<host_siginfo>(bitPattern: UInt(copy + (information - start)))!
  moveVectors(frame, by: copy &- start, from: start, to: end)
  block.pointee.inside = 1
  let target = goOn(signal, details, frame, block)
  frame.pointee.rip = address_of_host_resume_keys()
  frame.pointee.r11 = target
  frame.pointee.rsp = UInt64(UInt(bitPattern: block.pointee.frame))
  frame.pointee.rflags = 0x202
  frame.pointee.cs = 0x33
  frame.pointee.ss = 0x2b
  frame.pointee.link = 0
  frame.pointee.stack_pointer = base + UInt64(ThreadStack.stackOffset)
  frame.pointee.stack_flags = 0
  frame.pointee.stack_size = UInt64(ThreadStack.bytes - ThreadStack.stackOffset)
  // Nothing is blocked.
  UnsafeMutablePointer<UInt64>(bitPattern: UInt(copy) + FrameCopy.maskOffset)!.pointee = 0
  return copy + 8
}

/// The vector registers' area comes along; what the processor would not take is put right.
private func moveVectors(
  _ frame: UnsafeMutablePointer<host_ucontext>, by distance: UInt64, from start: UInt64, to end: UInt64
) {
  let area = frame.pointee.vector_state
  guard area > start, area & 63 == 0, area <= end &- 1024 else {
    frame.pointee.vector_state = 0
    return
  }
  frame.pointee.vector_state = area &+ distance
  let words = UnsafeMutablePointer<UInt64>(bitPattern: UInt(area &+ distance))!
  // MXCSR; the header: features, no compaction, zeros.
  words[3] &= 0xffff_ffff_0000_ffff
  words[64] &= machine_vector_state_features()
  for i in 65..<72 { words[i] = 0 }
}

/// Fills the thread's frame, and says where the libOS goes on.
private func goOn(
  _ signal: Int32, _ information: UnsafePointer<host_siginfo>, _ context: UnsafeMutablePointer<host_ucontext>,
  _ block: UnsafeMutablePointer<thread_block>
) -> UInt64 {
  let rip = context.pointee.rip
  if signal == Signals.kick {
    // On the way out, all has been written already.
    if rip >= address_of_gate_exit(), rip < address_of_gate_exit_end() { return address_of_gate_exit() }
    if rip >= address_of_gate_keys_answer(), rip < address_of_gate_keys_answer_end() {
      return address_of_gate_keys_kicked()
    }
    // On the way in: once more from the start.
    if rip >= address_of_gate_keys_opened(), rip < address_of_gate_keys_switched() {
      context.pointee.rip = address_of_gate_entry_keys()
    }
  }
  fill(block.pointee.frame, from: context, signal: signal, information: information)
  // SEGV_PKUERR is nothing that a program knows of: SEGV_MAPERR.
  let isKeyed = signal == 11 && information.pointee.code == 4
  let code = isKeyed ? 1 : UInt64(UInt32(bitPattern: information.pointee.code))
  block.pointee.trap_detail = code | (signal == 11 ? context.pointee.error << 32 : 0)
  return address_of_trap_entry()
}

/// A signal while the libOS ran; its frame is on the libOS's stack.
@c(host_signal_inside)
public func hostSignalInside(
  _ signal: Int32, _ information: UnsafePointer<host_siginfo>, _ context: UnsafeMutablePointer<host_ucontext>
) {
  let rip = context.pointee.rip
  // Flags that a program set before it came in: single steps, and faults of unaligned accesses.
  if signal == 5, context.pointee.rflags & 0x100 != 0 {
    context.pointee.rflags &= ~0x100
    return
  }
  if signal == 7, context.pointee.rflags & 0x4_0000 != 0 {
    context.pointee.rflags &= ~0x4_0000
    return
  }
  if signal == Signals.kick, rip >= address_of_gate_keys_answer(), rip < address_of_gate_keys_answer_end() {
    context.pointee.rip = address_of_gate_keys_kicked()
    return
  }
  if signal == 11 || signal == 7,
    rip >= address_of_gate_exit() && rip < address_of_gate_exit_end()
      || rip >= address_of_gate_keys_answer() && rip < address_of_gate_keys_answer_end()
  {
    context.pointee.rip = address_of_gate_slot_fault()
    return
  }
  trapInside(signal, rip, information, context)
}

/// Somebody came to the signal entry who is no signal, or whose stack pointer pretended to be the libOS's: the program
/// ends. Signals may be blocked.
@c(host_signal_stray)
public func hostSignalStray() {
  var none: UInt64 = 0
  _ = withUnsafePointer(to: &none) { LinuxCall.raw(LinuxCall.sigprocmask, 2, Int(bitPattern: $0), 0, 8) }
}
