import CHostCore
import CMachine

// Between a program's jump to the gate and the gate's change of stacks a thread still runs its program, at addresses that
// no program has. A signal's frame must not hold one of them: rt_sigreturn(2) refuses it, and Linux shows a signal before
// or behind a call only. A kick there completes what the program began.

/// A trapped thread: its frame has every register.
@c(gate_trapped)
public func gateTrapped(_ frame: UnsafeMutablePointer<trap_frame>) {
  guard frame.pointee.kind == UInt64(TRAP_KICK), Gate.isCalling(frame), let block = machine_current_block()
  else {
    libos_trap(frame)
    return
  }
  // Whoever kicked the thread is heard on the way out.
  machine_store(&block.pointee.attention, 1)
  libos_system_call(frame)
}

private enum Gate {
  /// Whether the thread has asked for a system call; then the frame is as the gate makes it. A call that the gate
  /// answers without the libOS is answered here.
  static func isCalling(_ frame: UnsafeMutablePointer<trap_frame>) -> Bool {
    let rip = frame.pointee.rip
    if rip >= address_of_gate_answers(), rip < address_of_gate_entry() {
      answer(frame)
      return false
    }
    if rip >= address_of_gate_entry(), rip < address_of_gate_entry_end() {
      frame.pointee.rip = frame.pointee.rcx
    } else if rip >= address_of_gate_entry_keys(), rip < address_of_gate_keys_switched() {
      // As the trampoline has packed them (gate_keys.h).
      frame.pointee.rip = frame.pointee.rcx >> 32 | frame.pointee.rdx
      frame.pointee.rcx = frame.pointee.rip
      frame.pointee.rdx = frame.pointee.r11
      frame.pointee.rax >>= 32
    } else {
      return false
    }
    frame.pointee.rflags = 0x202
    frame.pointee.kind = UInt64(TRAP_NONE)
    return true
  }

  /// Whether %rax has the answer already cannot be told; it is the same again.
  private static func answer(_ frame: UnsafeMutablePointer<trap_frame>) {
    guard let block = machine_current_block()?.pointee else { return }
    let isThread = frame.pointee.rip >= address_of_gate_answers_thread()
    frame.pointee.rax = UInt64(isThread ? block.thread_number : block.process_number)
    frame.pointee.rip = frame.pointee.rcx
  }
}
