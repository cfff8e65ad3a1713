import ABI
import CMachine
import Processes
import Tasks
import VFS

/// Priorities and policies (sched(7)): kept and reported here; the host schedules by them.
extension SystemCall {
  func dispatchScheduling() throws(Errno) -> Int? {
    switch number {
    case 140: return try getpriority()
    case 141: return try setpriority()
    case 142: return try sched_setparam()
    case 143:
      guard b != 0 else { throw .invalid }
      try UserSlice.store(try scheduled(int(a)).schedulingPriority, at: b)
      return 0
    case 144:
      guard c != 0, int(a) >= 0, int(b) >= 0 else { throw .invalid }
      return try sched_setscheduler(int(b), try UserSlice.load(c, Int32(0)))
    case 145:
      let target = try scheduled(int(a))
      return Int(target.schedulingPolicy | (target.resetsSchedulingOnFork ? 0x4000_0000 : 0))
    case 146: return try priorityRange(int(a)).upperBound
    case 147: return try priorityRange(int(a)).lowerBound
    case 148:
      _ = try scheduled(int(a))
      try UserSlice.store((Int64(0), Int64(100_000_000)), at: b)
      return 0
    case 203:
      let mask = try UserSlice(c, Int(min(b, 128))).bytes()
      let other = try scheduled(int(a)).process
      guard owner(of: other) || process.credentials.effectiveUser == other.credentials.effectiveUser
      else { throw .notPermitted }
      let isUsable = mask.enumerated().contains { place, bits in
        (0..<8).contains { bits >> UInt8($0) & 1 != 0 && 8 * place + $0 < host.processorCount }
      }
      guard isUsable else { throw .invalid }
      return 0
    case 251: return try ioprio_set()
    case 252: return Int(try inputOutputTargets()[0].inputOutputPriority)
    case 312: return try kcmp()
    case 314: return try sched_setattr()
    case 315: return try sched_getattr()
    case 324: return try membarrier()
    default: return nil
    }
  }

  private func scheduled(_ tid: Int32) throws(Errno) -> LinuxThread {
    guard tid >= 0 else { throw .invalid }
    if tid == 0 { return thread }
    guard let other = ProcessTable.thread(tid) else { throw .noSuchProcess }
    return other
  }

  /// SCHED_FIFO 1, RR 2; OTHER 0, BATCH 3, IDLE 5, DEADLINE 6.
  private func priorityRange(_ policy: Int32) throws(Errno) -> ClosedRange<Int> {
    switch policy {
    case 1, 2: return 1...99
    case 0, 3, 5, 6: return 0...0
    default: throw .invalid
    }
  }

  /// `resets`: SCHED_RESET_ON_FORK.
  private func set(_ target: LinuxThread, _ policy: Int32, _ priority: Int32, resets: Bool = false)
    throws(Errno)
  {
    guard policy != 6 || target.schedulingPolicy == 6, try priorityRange(policy).contains(Int(priority))
    else { throw .invalid }
    if !process.credentials.isPrivileged {
      let (mine, its) = (process.credentials.effectiveUser, target.process.credentials)
      guard mine == its.realUser || mine == its.effectiveUser else { throw .notPermitted }
      if policy == 1 || policy == 2, policy != target.schedulingPolicy || priority > target.schedulingPriority
      {
        throw .notPermitted
      }
      if target.resetsSchedulingOnFork, !resets { throw .notPermitted }
    }
    target.resetsSchedulingOnFork = resets
    target.schedulingPolicy = policy
    target.schedulingPriority = priority
    target.reschedule()
  }

  private func sched_setparam() throws(Errno) -> Int {
    guard b != 0, int(a) >= 0 else { throw .invalid }
    let priority = try UserSlice.load(b, Int32(0))
    let target = try scheduled(int(a))
    try set(target, target.schedulingPolicy, priority)
    return 0
  }

  private func sched_setscheduler(_ policy: Int32, _ priority: Int32) throws(Errno) -> Int {
    // SCHED_RESET_ON_FORK
    try set(try scheduled(int(a)), policy & ~0x4000_0000, priority, resets: policy & 0x4000_0000 != 0)
    return 0
  }

  private func sched_setattr() throws(Errno) -> Int {
    guard b != 0, c == 0 else { throw .invalid }
    let attributes: (UInt32, UInt32, UInt64, Int32, UInt32) = try UserSlice.load(b, (0, 0, 0, 0, 0))
    guard attributes.0 >= 48 || attributes.0 == 0 else { throw .argumentListTooLong }
    let target = try scheduled(int(a))
    if attributes.1 == 6 {
      try setDeadline(target, try UserSlice.load(b &+ 24, (UInt64(0), UInt64(0), UInt64(0))))
      return 0
    }
    try set(
      target, Int32(bitPattern: attributes.1), Int32(bitPattern: attributes.4),
      resets: attributes.2 & 1 != 0)
    if attributes.1 == 0 || attributes.1 == 3 {
      target.process.niceness = min(19, max(-20, attributes.3))
      target.process.reschedule()
    }
    return 0
  }

  /// SCHED_DEADLINE: runtime, deadline and period in nanoseconds; kept and reported.
  private func setDeadline(_ target: LinuxThread, _ times: (UInt64, UInt64, UInt64)) throws(Errno) {
    let period = times.2 == 0 ? times.1 : times.2
    guard times.0 >= 1024, times.0 <= times.1, times.1 <= period, period < 1 << 63 else { throw .invalid }
    guard process.credentials.isPrivileged else { throw .notPermitted }
    target.schedulingPolicy = 6
    target.schedulingPriority = 0
    target.deadlineTimes = times
    target.reschedule()
  }

  private func sched_getattr() throws(Errno) -> Int {
    guard b != 0, d == 0, c >= 48, c <= 4096 else { throw .invalid }
    let target = try scheduled(int(a))
    try UserSlice(b, 48).clear(48)
    try UserSlice.store(
      (
        UInt32(48), UInt32(bitPattern: target.schedulingPolicy), UInt64(0), target.process.niceness,
        UInt32(bitPattern: target.schedulingPriority)
      ), at: b)
    if target.schedulingPolicy == 6 { try UserSlice.store(target.deadlineTimes, at: b &+ 24) }
    return 0
  }

  // MARK: ioprio_set(2)

  /// IOPRIO_WHO_PROCESS 1, PGRP 2, USER 3. ESRCH, EINVAL.
  private func inputOutputTargets() throws(Errno) -> [LinuxThread] {
    var found: [LinuxThread] = []
    switch int(a) {
    case 1: return [try scheduled(int(b))]
    case 2:
      for other in ProcessTable.members(ofGroup: int(b) == 0 ? process.processGroup : int(b)) {
        found += other.threads
      }
    case 3:
      for other in ProcessTable.processes.values where other.credentials.realUser == unsigned(b) {
        found += other.threads
      }
    default: throw .invalid
    }
    if found.isEmpty { throw .noSuchProcess }
    return found
  }

  /// Class above 13 bits: none 0, real time 1, best effort 2, idle 3; levels to 7.
  private func ioprio_set() throws(Errno) -> Int {
    let (kind, level) = (unsigned(c) >> 13 & 7, unsigned(c) & 0x1fff)
    switch kind {
    case 0: guard level == 0 else { throw .invalid }
    case 1, 2:
      guard level & 7 == level else { throw .invalid }
      if kind == 1, !process.credentials.isPrivileged { throw .notPermitted }
    case 3: break
    default: throw .invalid
    }
    for target in try inputOutputTargets() {
      guard owner(of: target.process) else { throw .notPermitted }
      target.inputOutputPriority = unsigned(c)
    }
    return 0
  }

  /// kcmp(2): 0 the same, 1 and 2 an order. KCMP_FILE 0, VM 1, FILES 2, FS 3, SIGHAND 4, IO 5, SYSVSEM 6.
  private func kcmp() throws(Errno) -> Int {
    guard let first = ProcessTable.thread(int(a))?.process, let second = ProcessTable.thread(int(b))?.process
    else { throw .noSuchProcess }
    guard owner(of: first), owner(of: second) else { throw .notPermitted }
    let (one, other): (ObjectIdentifier, ObjectIdentifier)
    switch int(c) {
    case 0:
      guard let left = first.descriptors.find(Int32(truncatingIfNeeded: d)),
        let right = second.descriptors.find(Int32(truncatingIfNeeded: e))
      else { throw .badFileDescriptor }
      (one, other) = (ObjectIdentifier(left), ObjectIdentifier(right))
    case 1: (one, other) = (ObjectIdentifier(first.addressSpace), ObjectIdentifier(second.addressSpace))
    case 2: (one, other) = (ObjectIdentifier(first.descriptors), ObjectIdentifier(second.descriptors))
    case 3: (one, other) = (ObjectIdentifier(first.fileSystem), ObjectIdentifier(second.fileSystem))
    case 4: (one, other) = (ObjectIdentifier(first.actions), ObjectIdentifier(second.actions))
    case 5, 6: return 0  // Nobody has an I/O context, and undos are not shared: none is none.
    default: throw .invalid
    }
    return one == other ? 0 : one < other ? 1 : 2
  }

  // MARK: nice(2)

  /// Whom PRIO_PROCESS 0, PRIO_PGRP 1 and PRIO_USER 2 mean. ESRCH.
  private func prioritized() throws(Errno) -> [Process] {
    var found: [Process] = []
    switch int(a) {
    case 0:
      if int(b) == 0 { return [process] }
      if let other = ProcessTable.process(int(b)) ?? ProcessTable.thread(int(b))?.process {
        found.append(other)
      }
    case 1: found = ProcessTable.members(ofGroup: int(b) == 0 ? process.processGroup : int(b))
    case 2:
      let user = int(b) == 0 ? process.credentials.realUser : unsigned(b)
      for other in ProcessTable.processes.values where other.credentials.realUser == user {
        found.append(other)
      }
    default: throw .invalid
    }
    if found.isEmpty { throw .noSuchProcess }
    return found
  }

  private func getpriority() throws(Errno) -> Int {
    var best: Int32 = 19
    for other in try prioritized() { best = min(best, other.niceness) }
    return Int(20 - best)
  }

  private func setpriority() throws(Errno) -> Int {
    let wanted = min(19, max(-20, int(c)))
    let targets = try prioritized()
    for other in targets {
      let mine = process.credentials
      guard
        mine.isPrivileged || mine.effectiveUser == other.credentials.realUser
          || mine.effectiveUser == other.credentials.effectiveUser
      else { throw .notPermitted }
      if wanted < other.niceness, !mine.isPrivileged { throw .accessDenied }
      other.niceness = wanted
      other.reschedule()
    }
    return 0
  }

  // MARK: membarrier(2)

  /// A trip of every thread of the process through the libOS is a barrier for it.
  private func membarrier() throws(Errno) -> Int {
    let all: [Int32] = [1, 2, 4, 8, 16, 32, 64]
    if int(a) == 0 { return 1 | 2 | 4 | 8 | 16 | 32 | 64 }
    guard all.contains(int(a)) else { throw .invalid }
    // Registrations (bits 2, 4 and 6) have nothing to do.
    if [4, 16, 64].contains(int(a)) { return 0 }
    let others = int(a) == 8 || int(a) == 32 ? [process] : Array(ProcessTable.processes.values)
    for other in others {
      for thread in other.threads where thread !== self.thread && thread.block.pointee.host_thread != 0 {
        host.kick(thread.block)
      }
    }
    return 0
  }
}
