// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CHostCore
import CLinuxHost
import CMachine
import Tasks

/// Linux's signals as this host's traps. Their handlers run on the thread's own signal stack, move the trapped
/// registers into the thread's frame and go on at `trap_entry`: nothing of the libOS runs inside a handler.
enum Signals {
  static let kick = 23  // SIGURG: ignored by default, so a stray one is harmless
  static let trapped: [7 of Int] = [31, 11, 7, 4, 8, 5, 23]  // SYS SEGV BUS ILL FPE TRAP URG

  // What the user's terminal or shell sends: the supervisor passes it on.
  static let ignored: [12 of Int] = [13, 1, 2, 3, 15, 10, 12, 14, 20, 21, 22, 28]

  static func install() {
    // SA_SIGINFO | SA_ONSTACK | SA_RESTORER, everything blocked while the handler runs
    var action = host_sigaction(
      handler: LinuxHost.hasKeys ? address_of_host_signal_entry_keys() : address_of_host_signal_entry(),
      flags: 0x0c00_0004, restorer: address_of_host_signal_return(),
      mask: ~0)
    for i in 0..<7 {
      _ = withUnsafePointer(to: &action) {
        LinuxCall.raw(LinuxCall.sigaction, trapped[i], Int(bitPattern: $0), 0, 8)
      }
    }
    var ignore = host_sigaction(handler: 1, flags: 0, restorer: 0, mask: 0)
    for i in 0..<12 {
      _ = withUnsafePointer(to: &ignore) {
        LinuxCall.raw(LinuxCall.sigaction, ignored[i], Int(bitPattern: $0), 0, 8)
      }
    }
  }
}

@c(host_signal)
public func hostSignal(
  _ signal: Int32, _ information: UnsafePointer<host_siginfo>, _ context: UnsafeMutablePointer<host_ucontext>
) {
  let rip = context.pointee.rip
  // The gate answers some calls without entering the libOS.
  let isAnswering = rip >= address_of_gate_answers() && rip < address_of_gate_entry_end()
  if rip >= address_of_image_start(), rip < address_of_image_end(), !isAnswering {
    trapInside(signal, rip, information, context)
    return
  }
  let block = machine_current_block()!
  fill(block.pointee.frame, from: context, signal: signal, information: information)
  block.pointee.trap_detail = UInt64(UInt32(bitPattern: information.pointee.code))
  context.pointee.rip = address_of_trap_entry()
  context.pointee.rsp = UInt64(UInt(bitPattern: block.pointee.frame))
  context.pointee.rflags = 0x202
}

/// The libOS itself was interrupted: a kick, a fault on program memory, or a bug.
func trapInside(
  _ signal: Int32, _ rip: UInt64, _ information: UnsafePointer<host_siginfo>,
  _ context: UnsafeMutablePointer<host_ucontext>
) {
  if signal == Signals.kick {
    if rip > address_of_gate_exit(), rip < address_of_gate_exit_end() {
      context.pointee.rip = address_of_gate_exit()
    }
    return
  }
  if signal == 11 || signal == 7 {
    if rip >= address_of_user_copy_start(), rip < address_of_user_copy_end() {
      context.pointee.rip = address_of_user_copy_fault()
      return
    }
    if rip >= address_of_user_exchange_start(), rip < address_of_user_exchange_end() {
      context.pointee.rip = address_of_user_exchange_fault()
      return
    }
  }
  Panic.trap(signal, context, information)
}

func fill(
  _ frame: UnsafeMutablePointer<trap_frame>, from context: UnsafeMutablePointer<host_ucontext>, signal: Int32,
  information: UnsafePointer<host_siginfo>
) {
  let from = context.pointee
  frame.pointee = trap_frame(
    r15: from.r15, r14: from.r14, r13: from.r13, r12: from.r12, rbp: from.rbp, rbx: from.rbx, r10: from.r10,
    r9: from.r9, r8: from.r8, rdx: from.rdx, rsi: from.rsi, rdi: from.rdi, rax: from.rax, rcx: from.rcx,
    r11: from.r11, rip: from.rip, cs: 0x33, rflags: from.rflags, rsp: from.rsp, ss: 0x2b,
    kind: kind(of: signal), address: information.pointee.address)
  if signal == 31 {
    // A 32-bit call (`int $0x80`) has another number for everything: none that is known here, so ENOSYS.
    let isNative = information.pointee.architecture == 0xc000_003e
    frame.pointee.rax = isNative ? UInt64(UInt32(bitPattern: information.pointee.system_call)) : 0xffff_ffff
  }
}

private func kind(of signal: Int32) -> UInt64 {
  switch signal {
  case 31: UInt64(TRAP_SYSTEM_CALL)
  case 11: UInt64(TRAP_FAULT)
  case 7: UInt64(TRAP_BUS)
  case 4: UInt64(TRAP_ILLEGAL)
  case 8: UInt64(TRAP_ARITHMETIC)
  case 5: UInt64(TRAP_BREAKPOINT)
  default: UInt64(TRAP_KICK)
  }
}
