import ABI
import Processes
import Tasks

/// prctl(2), capabilities, and what only an administrator of a whole machine may do.
extension SystemCall {
  func dispatchPrivileged() throws(Errno) -> Int? {
    switch number {
    case 125: return try capget()
    case 126: return try capset()
    case 170: return try setHostName()
    case 171, 167, 168, 169, 163, 172, 173, 175, 176, 246, 313, 320, 321, 298:
      // setdomainname, swapon, swapoff, reboot, acct, iopl, ioperm, modules, kexec, bpf, perf_event_open, handles:
      // the machine is not the program's.
      throw .notPermitted
    case 155, 308: throw .notPermitted  // mounts and namespaces
    case 103: return try syslog()
    default: return nil
    }
  }

  private func setHostName() throws(Errno) -> Int {
    guard process.credentials.isPrivileged else { throw .notPermitted }
    guard int(b) >= 0, int(b) <= 64 else { throw .invalid }
    SystemIdentity.configuredHostName = try UserSlice(a, Int(int(b))).bytes()
    return 0
  }

  /// syslog(2): a log that is always empty.
  private func syslog() throws(Errno) -> Int {
    switch int(a) {
    case 0, 1, 4, 5, 6, 7, 8, 9: return 0
    case 2, 3: return 0
    case 10: return 4096
    default: throw .invalid
    }
  }

  // MARK: capabilities(7)

  /// Words a set has: 1 in version 1, 2 later. EINVAL for unknown versions, with ours stored.
  private func capabilityWords() throws(Errno) -> Int {
    switch try UserSlice.load(a, UInt32(0)) {
    case 0x1998_0330: return 1
    case 0x2007_1026, 0x2008_0522: return 2
    default:
      try UserSlice.store(UInt32(0x2008_0522), at: a)
      return 0
    }
  }

  private func capget() throws(Errno) -> Int {
    let words = try capabilityWords()
    if words == 0 {
      if b == 0 { return 0 }
      throw .invalid
    }
    let pid = try UserSlice.load(a &+ 4, Int32(0))
    guard pid >= 0 else { throw .invalid }
    guard let target = pid == 0 ? process : ProcessTable.process(pid) ?? ProcessTable.thread(pid)?.process
    else { throw .noSuchProcess }
    let sets = target.capabilities
    for i in 0..<words {
      let shift = UInt64(32 * i)
      let at = b &+ UInt(12 * i)
      try UserSlice.store(UInt32(truncatingIfNeeded: sets.effective >> shift), at: at)
      try UserSlice.store(UInt32(truncatingIfNeeded: sets.permitted >> shift), at: at &+ 4)
      try UserSlice.store(UInt32(truncatingIfNeeded: sets.inheritable >> shift), at: at &+ 8)
    }
    return 0
  }

  private func capset() throws(Errno) -> Int {
    let words = try capabilityWords()
    guard words > 0 else { throw .invalid }
    let pid = try UserSlice.load(a &+ 4, Int32(0))
    guard pid == 0 || pid == thread.tid || pid == process.pid else { throw .notPermitted }
    var sets: [UInt64] = [0, 0, 0]
    for i in 0..<words {
      for j in 0..<3 {
        sets[j] |= UInt64(try UserSlice.load(b &+ UInt(12 * i + 4 * j), UInt32(0))) << UInt64(32 * i)
      }
    }
    var own = process.capabilities
    let (effective, permitted) = (sets[0] & Capabilities.all, sets[1] & Capabilities.all)
    let inheritable = sets[2] & Capabilities.all
    // CAP_SETPCAP lets more be inherited than is permitted.
    if !maySetCapabilities, inheritable & ~(own.inheritable | own.permitted) != 0 {
      throw .notPermitted
    }
    guard permitted & ~own.permitted == 0, effective & ~permitted == 0,
      inheritable & ~(own.inheritable | own.bounding) == 0
    else { throw .notPermitted }
    own.effective = effective
    own.permitted = permitted
    own.inheritable = inheritable
    own.ambient &= permitted & inheritable
    process.capabilities = own
    return 0
  }

  // MARK: prctl(2)

  func prctl() throws(Errno) -> Int {
    switch int(a) {
    case 1:
      guard b <= 64 else { throw .invalid }
      process.parentDeathSignal = int(b)
    case 2: try UserSlice.store(process.parentDeathSignal, at: b)
    case 3: return Int(process.dumpable)
    case 4:
      guard b <= 1 else { throw .invalid }
      process.dumpable = int(b)
    case 15:
      thread.name = try threadName(b)
      if thread.tid == process.pid { process.name = thread.name }
    case 16:
      var name = thread.name
      while name.count < 16 { name.append(0) }
      try UserSlice(b, 16).store(name)
    case 21: return 0  // PR_GET_SECCOMP: no filter of its own
    case 25: try UserSlice.store(Int32(1), at: b)  // PR_GET_TSC: PR_TSC_ENABLE
    // The slack is kept and told; timers are as exact as the host's.
    case 29: thread.timerSlack = b == 0 ? thread.usualTimerSlack : b
    case 30: return Int(clamping: thread.timerSlack)
    case 36: process.isChildSubreaper = b != 0
    case 37: try UserSlice.store(Int32(process.isChildSubreaper ? 1 : 0), at: b)
    case 38:
      guard b == 1, c == 0, d == 0, e == 0 else { throw .invalid }
      process.hasNoNewPrivileges = true
    case 39:
      guard b | c | d | e == 0 else { throw .invalid }
      return process.hasNoNewPrivileges ? 1 : 0
    case 40: try UserSlice.store(thread.clearChildAddress, at: b)
    case 41, 42:  // PR_SET_THP_DISABLE, PR_GET_THP_DISABLE
      guard c | d | e == 0, int(a) == 41 || b == 0 else { throw .invalid }
    case 0x5961_6d61: return 0  // PR_SET_PTRACER
    default: return try capabilityControl()
    }
    return 0
  }

  /// At most 15 bytes; what lies behind the NUL is not looked at.
  private func threadName(_ address: UInt) throws(Errno) -> [UInt8] {
    var name: [UInt8] = []
    while name.count < 15 {
      let byte = try UserSlice.load(address &+ UInt(name.count), UInt8(0))
      if byte == 0 { break }
      name.append(byte)
    }
    return name
  }

  /// CAP_SETPCAP
  private var maySetCapabilities: Bool { process.capabilities.effective & 1 << 8 != 0 }

  private func capabilityControl() throws(Errno) -> Int {
    func mask(_ number: UInt) throws(Errno) -> UInt64 {
      guard number <= Capabilities.lastNumber else { throw .invalid }
      return 1 << UInt64(number)
    }
    switch int(a) {
    case 7: return process.capabilities.isKept ? 1 : 0
    case 8:
      guard b <= 1 else { throw .invalid }
      process.capabilities.isKept = b == 1
    case 23: return process.capabilities.bounding & (try mask(b)) != 0 ? 1 : 0
    case 24:
      let bit = try mask(b)
      guard maySetCapabilities else { throw .notPermitted }
      process.capabilities.bounding &= ~bit
    case 27: return Int(process.capabilities.secureBits)
    case 28:
      guard maySetCapabilities else { throw .notPermitted }
      process.capabilities.secureBits = unsigned(b)
    case 47:
      guard d | e == 0, b != 4 || c == 0 else { throw .invalid }
      return try ambientControl(try b == 4 ? 0 : mask(c))
    default: throw .invalid
    }
    return 0
  }

  /// PR_CAP_AMBIENT: IS_SET 1, RAISE 2, LOWER 3, CLEAR_ALL 4.
  private func ambientControl(_ bit: UInt64) throws(Errno) -> Int {
    var own = process.capabilities
    switch b {
    case 1: return own.ambient & bit != 0 ? 1 : 0
    case 2:
      // SECBIT_NO_CAP_AMBIENT_RAISE
      guard own.secureBits & 0x40 == 0, own.permitted & own.inheritable & bit != 0 else {
        throw .notPermitted
      }
      own.ambient |= bit
    case 3: own.ambient &= ~bit
    case 4: own.ambient = 0
    default: throw .invalid
    }
    process.capabilities = own
    return 0
  }
}
