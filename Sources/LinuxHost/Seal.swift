// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CHostCore
import CLinuxHost
import Tasks

/// A call that the seal lets through, and with which arguments. A checked argument must equal one of the listed
/// values; only its low 32 bits are looked at, as Linux itself takes descriptors, flags and commands.
struct AllowedCall {
  var number: Int
  var text: StaticString
  /// Index of the checked argument, -1 for none.
  var argument = -1
  var values: [4 of UInt32] = .init(repeating: 0)
  var valueCount = 0
  /// A second checked argument.
  var otherArgument = -1
  var otherValue: UInt32 = 0

  init(_ number: Int, _ text: StaticString) {
    self.number = number
    self.text = text
  }

  /// Argument `index` must be one of `values`.
  func only(_ index: Int, _ first: Int, _ rest: Int...) -> AllowedCall {
    var call = self
    call.argument = index
    call.values[0] = UInt32(truncatingIfNeeded: first)
    for (i, value) in rest.enumerated() where i < 3 { call.values[i + 1] = UInt32(truncatingIfNeeded: value) }
    call.valueCount = 1 + min(3, rest.count)
    return call
  }

  func and(_ index: Int, _ value: Int) -> AllowedCall {
    var call = self
    call.otherArgument = index
    call.otherValue = UInt32(truncatingIfNeeded: value)
    return call
  }
}

/// The seal: the seccomp filter (seccomp(2)) that every host process is under before a program's first instruction.
///
/// A call passes only if its instruction lies in the host calls' code range and its number and arguments are on the
/// list; a program's own `syscall` traps to the libOS, and what the list refuses to the libOS itself ends the process.
/// 32-bit calls (`int $0x80`, `sysenter`) trap too, for their architecture is another; the libOS answers ENOSYS.
public enum Seal {
  /// What `inspect --policy` prints.
  private static func allowed(arena: Int, image: Int) -> [AllowedCall] {
    [
      AllowedCall(LinuxCall.futex, "futex: park and unpark threads (WAIT, WAKE, WAIT_BITSET)").only(
        1, 0, 1, 9),
      AllowedCall(LinuxCall.restart, "restart_syscall: Linux goes on with a wait that a stop interrupted"),
      AllowedCall(LinuxCall.ppoll, "ppoll: wait for the network and the console"),
      AllowedCall(LinuxCall.read, "read: descriptors set up before the seal"),
      AllowedCall(LinuxCall.write, "write: descriptors set up before the seal"),
      AllowedCall(LinuxCall.writev, "writev: descriptors set up before the seal"),
      AllowedCall(LinuxCall.pread, "pread64: disks, opened before the seal"),
      AllowedCall(LinuxCall.pwrite, "pwrite64: disks, opened before the seal"),
      AllowedCall(LinuxCall.fdatasync, "fdatasync: disks, opened before the seal"),
      AllowedCall(LinuxCall.mmap, "mmap: private memory, frames of the arena, or the image; no other file")
        .only(4, arena, image, -1),
      AllowedCall(LinuxCall.munmap, "munmap"),
      AllowedCall(LinuxCall.mprotect, "mprotect: read, write, execute").only(2, 0, 1, 3, 5),
      AllowedCall(LinuxCall.mprotect, "mprotect: the other combinations").only(2, 2, 4, 6, 7),
      AllowedCall(LinuxCall.mremap, "mremap: to a given place").only(3, 3),
      AllowedCall(LinuxCall.madvise, "madvise: give memory back (MADV_DONTNEED)").only(2, 4),
      AllowedCall(
        LinuxCall.fallocate,
        "fallocate: give back frames of the arena and blocks of disks (PUNCH_HOLE, KEEP_SIZE)"
      )
      .only(1, 3),
      AllowedCall(LinuxCall.clone, "clone: host processes and threads, with two fixed sets of flags")
        .only(0, LinuxHost.threadFlags, LinuxHost.processFlags),
      AllowedCall(15, "rt_sigreturn: return from a trap"),
      AllowedCall(LinuxCall.sigaltstack, "sigaltstack: the trap stack of a new thread"),
      AllowedCall(LinuxCall.archPrctl, "arch_prctl: FS and GS base").only(0, 0x1001, 0x1002),
      AllowedCall(LinuxCall.prctl, "prctl: die with the supervisor (PR_SET_PDEATHSIG, SIGKILL)")
        .only(0, 1).and(1, 9),
      AllowedCall(LinuxCall.gettid, "gettid"),
      AllowedCall(LinuxCall.getppid, "getppid: is the supervisor still there"),
      AllowedCall(
        LinuxCall.tkill, "tkill: interrupt a thread, tell the supervisor of the end (SIGURG, SIGCHLD)"
      )
      .only(1, Signals.kick, 17),
      AllowedCall(LinuxCall.clockGettime, "clock_gettime: where the vDSO cannot"),
      AllowedCall(LinuxCall.getrusage, "getrusage: the process's own").only(0, 0),
      AllowedCall(LinuxCall.getrandom, "getrandom"),
      AllowedCall(LinuxCall.schedYield, "sched_yield"),
      AllowedCall(LinuxCall.exit, "exit"),
      AllowedCall(LinuxCall.exitGroup, "exit_group"),
      AllowedCall(LinuxCall.wait4, "wait4: the supervisor hears of ended host processes"),
      AllowedCall(128, "rt_sigtimedwait: the supervisor hears of the user's signals"),
    ]
  }

  /// Beyond these, where keys isolate.
  private static func allowedWithKeys() -> [AllowedCall] {
    [
      AllowedCall(LinuxCall.pkeyMprotect, "pkey_mprotect: the programs' key, or the libOS's").only(3, 0, 1),
      AllowedCall(LinuxCall.sigprocmask, "rt_sigprocmask: while the trap stack changes"),
    ]
  }

  /// The memory meter's own: it alone may open files, and has no program and no arena in its memory.
  private static func allowedForMeter() -> [AllowedCall] {
    [
      AllowedCall(LinuxCall.open, "open: /proc, read-only").only(1, 0o2000000),
      AllowedCall(LinuxCall.read, "read"), AllowedCall(LinuxCall.close, "close"),
      AllowedCall(LinuxCall.futex, "futex: sleep, and wake who waits").only(1, 0, 1),
      AllowedCall(LinuxCall.restart, "restart_syscall: Linux goes on with a wait that a stop interrupted"),
      AllowedCall(LinuxCall.munmap, "munmap: leave the arena"),
      AllowedCall(LinuxCall.mprotect, "mprotect: the libOS's data, read-only").only(2, 1),
      AllowedCall(LinuxCall.exitGroup, "exit_group"),
    ]
  }

  // Plain memory: processes load their filters without the kernel lock, where no reference may be counted.
  nonisolated(unsafe) private static var filter = UnsafeBufferPointer<UInt64>(start: nil, count: 0)
  nonisolated(unsafe) private static var meterFilter = UnsafeBufferPointer<UInt64>(start: nil, count: 0)

  /// Builds the filters: before there are two host processes, which would share the heap without its lock.
  static func prepare() {
    // SECCOMP_RET_TRAP, SECCOMP_RET_KILL_PROCESS
    let host = LinuxHost.shared!
    filter = filter(
      allowed(arena: host.arenaDescriptor, image: host.imageDescriptor)
        + (LinuxHost.hasKeys ? allowedWithKeys() : []), otherwise: 0x0003_0000
    ).copied()
    meterFilter = filter(allowedForMeter(), otherwise: 0x8000_0000).copied()
  }

  public static func printPolicy() {
    say("seccomp policy of host processes; allowed only from the libOS's own call site:\n")
    for call in allowed(arena: 3, image: 4) { printLine(call.text) }
    say("with isolation mpk, each only with a secret of the libOS in a spare register, and also:\n")
    for call in allowedWithKeys() { printLine(call.text) }
    say(
      "a call from anywhere else, and every other number or architecture (x32, 32 bits), traps to the libOS,\n"
    )
    say("which serves it as its own; no call opens a file, makes a socket, or executes a host program\n")
    say("seccomp policy of the memory meter, a host process without program and arena:\n")
    for call in allowedForMeter() { printLine(call.text) }
    say("every other call ends the meter and with it the unikernel\n")
  }

  private static func printLine(_ text: StaticString) {
    say("  ")
    say(text)
    say("\n")
  }

  /// Seals the calling process for good.
  public static func install() { load(filter) }

  static func installForMeter() { load(meterFilter) }

  private static func load(_ filter: UnsafeBufferPointer<UInt64>) {
    var description = host_sock_fprog(
      count: UInt16(filter.count), padding: (0, 0, 0), filter: UInt64(UInt(bitPattern: filter.baseAddress)))
    _ = LinuxCall.raw(LinuxCall.prctl, 38, 1)  // PR_SET_NO_NEW_PRIVS
    let result = withUnsafePointer(to: &description) {
      LinuxCall.raw(LinuxCall.seccomp, 1, 0, Int(bitPattern: $0))
    }
    if result != 0 { LinuxHost.fail("Linux refused the seccomp filter") }
  }

  private static func filter(_ calls: [AllowedCall], otherwise: UInt32) -> Filter {
    var filter = Filter()
    let start = address_of_host_calls_start()
    let end = address_of_host_calls_end()
    filter.add(0x20, 12)  // instruction pointer, high half
    filter.addUnless(0x15, UInt32(start >> 32), refuse: otherwise)
    filter.add(0x20, 8)  // low half
    filter.addUnless(0x35, UInt32(truncatingIfNeeded: start), refuse: otherwise)
    filter.add(0x25, UInt32(truncatingIfNeeded: end), 0, 1)
    filter.add(0x06, otherwise)
    filter.add(0x20, 4)  // architecture: AUDIT_ARCH_X86_64
    filter.addUnless(0x15, 0xc000_003e, refuse: otherwise)
    for call in calls { filter.add(call, refuse: otherwise) }
    filter.add(0x06, otherwise)
    return filter
  }
}

/// A program of classic BPF on `struct seccomp_data` (linux/seccomp.h).
private struct Filter {
  private var program: [UInt64] = []  // as struct sock_filter lies in memory
  private static let allow: UInt32 = 0x7fff_0000

  mutating func add(_ code: UInt16, _ k: UInt32, _ jumpTrue: Int = 0, _ jumpFalse: Int = 0) {
    program.append(
      UInt64(code) | UInt64(jumpTrue) << 16 | UInt64(jumpFalse) << 24 | UInt64(k) << 32)
  }

  /// Goes on if the comparison holds.
  mutating func addUnless(_ code: UInt16, _ k: UInt32, refuse: UInt32) {
    add(code, k, 1, 0)
    add(0x06, refuse)
  }

  /// Allows the call, or goes on with the next.
  mutating func add(_ call: AllowedCall, refuse: UInt32) {
    let first = call.argument < 0 ? 0 : 1 + call.valueCount
    let other = call.otherArgument < 0 ? 0 : 2
    let secret = secret_of_host_calls() == 0 ? 0 : 6
    add(0x20, 0)  // number
    add(0x15, UInt32(call.number), 0, secret + first + other + 1)
    if secret > 0 { addSecret(call.number, refuse: refuse) }
    if call.argument >= 0 {
      add(0x20, UInt32(16 + 8 * call.argument))
      for i in 0..<call.valueCount {
        let isLast = i == call.valueCount - 1
        add(0x15, call.values[i], call.valueCount - 1 - i, isLast ? other + 1 : 0)
      }
    }
    if call.otherArgument >= 0 {
      add(0x20, UInt32(16 + 8 * call.otherArgument))
      add(0x15, call.otherValue, 0, 1)
    }
    add(0x06, Filter.allow)
  }

  /// What only the libOS can read, in the registers where `LinuxCall.raw` puts it: a program that jumps to a host call has
  /// not got it.
  private mutating func addSecret(_ number: Int, refuse: UInt32) {
    let isMap = number == LinuxCall.mmap
    let argument = number == LinuxCall.futex || isMap ? 4 : 5
    add(0x20, UInt32(16 + 8 * argument) + (isMap ? 4 : 0))
    addUnless(0x15, UInt32(truncatingIfNeeded: secret_of_host_calls()), refuse: refuse)
    add(0x20, UInt32(isMap ? 16 + 8 * 3 + 4 : 16 + 8 * argument + 4))
    addUnless(0x15, UInt32(secret_of_host_calls() >> 32), refuse: refuse)
  }

  /// The program in memory that nothing frees.
  func copied() -> UnsafeBufferPointer<UInt64> {
    let memory = UnsafeMutableBufferPointer<UInt64>.allocate(capacity: program.count)
    for i in 0..<program.count { memory[i] = program[i] }
    return UnsafeBufferPointer(memory)
  }
}
