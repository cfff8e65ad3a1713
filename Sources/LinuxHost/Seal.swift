import CLinuxHost
import Tasks

/// The seal: the seccomp filter (seccomp(2)) that every host process is under before a program's first instruction.
///
/// A call passes only if its instruction lies in the host calls' code range and its number is on the list; all else
/// traps to the libOS, because it may be a program's own `syscall`.
public enum Seal {
  /// Number and what it is for; `inspect --policy` prints this list.
  static let allowed: [25 of (Int, StaticString)] = [
    (LinuxCall.futex, "futex: park and unpark threads"),
    (LinuxCall.ppoll, "ppoll: wait for the network and the console"),
    (LinuxCall.read, "read: descriptors set up before the seal"),
    (LinuxCall.write, "write: descriptors set up before the seal"),
    (LinuxCall.writev, "writev: descriptors set up before the seal"),
    (LinuxCall.mmap, "mmap: memory and frames of the arena"),
    (LinuxCall.munmap, "munmap"),
    (LinuxCall.mprotect, "mprotect"),
    (LinuxCall.mremap, "mremap"),
    (LinuxCall.madvise, "madvise: give memory back"),
    (LinuxCall.fallocate, "fallocate: give frames of the arena back"),
    (LinuxCall.clone, "clone: host processes and threads"),
    (15, "rt_sigreturn: return from a trap"),
    (LinuxCall.sigaltstack, "sigaltstack: the trap stack of a new thread"),
    (LinuxCall.archPrctl, "arch_prctl: FS and GS base"),
    (LinuxCall.prctl, "prctl: die with the supervisor"),
    (LinuxCall.gettid, "gettid"),
    (LinuxCall.tkill, "tkill: interrupt a thread of the unikernel"),
    (LinuxCall.clockGettime, "clock_gettime: where the vDSO cannot"),
    (LinuxCall.getrandom, "getrandom"),
    (LinuxCall.schedYield, "sched_yield"),
    (LinuxCall.exit, "exit"),
    (LinuxCall.exitGroup, "exit_group"),
    (LinuxCall.wait4, "wait4: the supervisor hears of ended host processes"),
    (128, "rt_sigtimedwait: the supervisor hears of the user's signals"),
  ]
  static let count = 25

  public static func printPolicy() {
    say("seccomp: allowed only from the libOS's own call site; everything else traps to the libOS\n")
    for i in 0..<count {
      say("  ")
      say(allowed[i].1)
      say("\n")
    }
  }

  /// Seals the calling process for good.
  public static func install() {
    var program: [64 of host_sock_filter] = .init(
      repeating: host_sock_filter(code: 0, jump_true: 0, jump_false: 0, k: 0))
    var length = 0
    func add(_ code: UInt16, _ k: UInt32, _ jumpTrue: Int = 0, _ jumpFalse: Int = 0) {
      program[length] = host_sock_filter(
        code: code, jump_true: UInt8(jumpTrue), jump_false: UInt8(jumpFalse), k: k)
      length += 1
    }
    let start = address_of_host_calls_start()
    let end = address_of_host_calls_end()
    let trap = 8 + count  // index of the trap instruction
    add(0x20, 12)  // instruction pointer, high half
    add(0x15, UInt32(start >> 32), 0, trap - length - 1)
    add(0x20, 8)  // low half
    add(0x35, UInt32(truncatingIfNeeded: start), 0, trap - length - 1)
    add(0x25, UInt32(truncatingIfNeeded: end), trap - length - 1, 0)
    add(0x20, 4)  // architecture
    add(0x15, 0xc000_003e, 0, trap - length - 1)
    add(0x20, 0)  // number
    for i in 0..<count { add(0x15, UInt32(allowed[i].0), trap + 1 - length - 1, 0) }
    add(0x06, 0x0003_0000)  // SECCOMP_RET_TRAP
    add(0x06, 0x7fff_0000)  // SECCOMP_RET_ALLOW
    withUnsafePointer(to: &program) { filter in
      var description = host_sock_fprog(
        count: UInt16(length), padding: (0, 0, 0), filter: UInt64(UInt(bitPattern: filter)))
      _ = LinuxCall.raw(LinuxCall.prctl, 38, 1)  // PR_SET_NO_NEW_PRIVS
      let result = withUnsafePointer(to: &description) {
        LinuxCall.raw(LinuxCall.seccomp, 1, 0, Int(bitPattern: $0))
      }
      if result != 0 { LinuxHost.fail("Linux refused the seccomp filter") }
    }
  }
}
