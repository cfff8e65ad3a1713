import ABI
import CMachine
import Processes
import Tasks

/// Priorities and policies (sched(7)): kept and reported; the host schedules.
extension SystemCall {
  func dispatchScheduling() throws(Errno) -> Int? {
    switch number {
    case 140: return try getpriority()
    case 141: return try setpriority()
    case 142: return try sched_setparam()
    case 143:
      try UserSlice.store(try scheduled(int(a)).schedulingPriority, at: b)
      return 0
    case 144: return try sched_setscheduler(int(b), try UserSlice.load(c, Int32(0)))
    case 145: return Int(try scheduled(int(a)).schedulingPolicy)
    case 146: return try priorityRange(int(a)).upperBound
    case 147: return try priorityRange(int(a)).lowerBound
    case 148:
      _ = try scheduled(int(a))
      try UserSlice.store((Int64(0), Int64(100_000_000)), at: b)
      return 0
    case 203:
      _ = try scheduled(int(a))
      let mask = try UserSlice(c, Int(min(b, 128))).bytes()
      guard mask.contains(where: { $0 != 0 }) else { throw .invalid }
      return 0
    case 251: return 0
    case 252: return 0
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

  private func set(_ target: LinuxThread, _ policy: Int32, _ priority: Int32) throws(Errno) {
    guard policy != 6, try priorityRange(policy).contains(Int(priority)) else { throw .invalid }
    if !process.credentials.isPrivileged, policy == 1 || policy == 2 { throw .notPermitted }
    target.schedulingPolicy = policy
    target.schedulingPriority = priority
  }

  private func sched_setparam() throws(Errno) -> Int {
    let target = try scheduled(int(a))
    try set(target, target.schedulingPolicy, try UserSlice.load(b, Int32(0)))
    return 0
  }

  private func sched_setscheduler(_ policy: Int32, _ priority: Int32) throws(Errno) -> Int {
    // SCHED_RESET_ON_FORK
    try set(try scheduled(int(a)), policy & ~0x4000_0000, priority)
    return 0
  }

  private func sched_setattr() throws(Errno) -> Int {
    guard b != 0, c == 0 else { throw .invalid }
    let attributes: (UInt32, UInt32, UInt64, Int32, UInt32) = try UserSlice.load(b, (0, 0, 0, 0, 0))
    guard attributes.0 >= 48 || attributes.0 == 0 else { throw .argumentListTooLong }
    let target = try scheduled(int(a))
    try set(target, Int32(bitPattern: attributes.1), Int32(bitPattern: attributes.4))
    if attributes.1 == 0 || attributes.1 == 3 { target.process.niceness = min(19, max(-20, attributes.3)) }
    return 0
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
    return 0
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
