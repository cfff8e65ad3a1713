public import ABI
import CMachine
import Tasks

// The memory of a process as others read and write it (/proc/PID/mem, process_vm_readv(2), ptrace(2)): the copying is done
// by a thread of the process, whose memory it is.

extension Process {
  /// The most that is copied at a visit.
  public static var longestVisit: Int { 64 << 10 }

  /// Up to `count` bytes at `address`, as far as they can be read. `isForced`: also where the process itself may not
  /// (PROT_NONE). EFAULT when the first cannot be, ESRCH when the process ends, EINTR.
  public func readMemory(at address: UInt, count: Int, isForced: Bool = false) throws(Errno) -> [UInt8] {
    let length = min(count, Process.longestVisit)
    var result: [UInt8] = []
    let space = addressSpace
    try visit { result = space.read(at: address, count: length, isForced: isForced) }
    if result.isEmpty, length > 0 { throw .badAddress }
    return result
  }

  /// Writes as much of `bytes` as can be written: how much. `isForced`: also where the process itself may only read, into
  /// its own copy of the page. EFAULT, ESRCH, EINTR.
  public func writeMemory(_ bytes: [UInt8], at address: UInt, isForced: Bool = false) throws(Errno) -> Int {
    var done = 0
    let space = addressSpace
    try visit { done = space.write(bytes, at: address, isForced: isForced) }
    if done == 0, !bytes.isEmpty { throw .badAddress }
    return done
  }

  /// Runs `work` where the process's memory is mapped. ESRCH, EINTR.
  private func visit(_ work: @escaping () -> Void) throws(Errno) {
    if addressSpace === LinuxThread.running.process.addressSpace { return work() }
    guard let host = visited else { throw .noSuchProcess }
    var isDone = false
    try host.receive(
      Visit {
        work()
        isDone = true
      })
    if !isDone { throw .noSuchProcess }
  }

  /// A thread that has the memory mapped, best one that sleeps: of this process, or the child of a vfork that runs on its
  /// host thread.
  private var visited: LinuxThread? {
    var found: LinuxThread?
    for process in ProcessTable.processes.values where process.addressSpace === addressSpace {
      for thread in process.threads where !thread.hasExited && !thread.isLending {
        if thread.isParked { return thread }
        found = thread
      }
    }
    return found
  }
}

extension AddressSpace {
  /// Bytes that can be read from `address` on. In a thread of the space.
  func read(at address: UInt, count: Int, isForced: Bool) -> [UInt8] {
    var result: [UInt8] = []
    // Linux's own vDSO is in every program, and in no list.
    if host.virtualSharedObject.contains(address) {
      let length = min(UInt(count), host.virtualSharedObject.upperBound - address)
      let shown = UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: address), count: Int(length))
      return (try? UserSlice(kernel: shown).bytes()) ?? []
    }
    while result.count < count {
      let at = address &+ UInt(result.count)
      guard let area = area(at: at) else { break }
      let length = min(count - result.count, 4096 - Int(at & 4095))
      guard let slice = try? UserSlice(at, length) else { break }
      let page = accessing(area, at, .read, isForced: isForced) { try? slice.bytes() }
      guard let page else { break }
      result += page
    }
    if !patchedSites.isEmpty { hidePatches(in: &result, from: address) }
    return result
  }

  /// Writes bytes from `address` on; how many. In a thread of the space.
  func write(_ bytes: [UInt8], at address: UInt, isForced: Bool) -> Int {
    var done = 0
    while done < bytes.count {
      let at = address &+ UInt(done)
      guard let area = area(at: at) else { break }
      // A shared page that may only be read would change for everybody.
      let mayForce = isForced && !area.isShared
      let part = Array(bytes[done..<min(bytes.count, done + 4096 - Int(at & 4095))])
      guard let slice = try? UserSlice(at, part.count) else { break }
      let stored = accessing(area, at, [.read, .write], isForced: mayForce) {
        try? slice.store(part)
      }
      guard stored != nil else { break }
      done += part.count
    }
    return done
  }

  /// Does `work` on the page at `address`, if need be with more rights for its time. Under a guard code is not executable
  /// while it is read, which shows it as the program wrote it, or written, and is looked at anew afterwards.
  private func accessing<T>(
    _ area: VirtualMemoryArea, _ address: UInt, _ needed: Protection, isForced: Bool, _ work: () -> T?
  ) -> T? {
    let page = address & ~4095
    do throws(Errno) {
      if area.protection.contains(.execute) { try withdrawExecution(page, page + 4096) }
      guard isForced, !area.protection.isSuperset(of: needed) else { return work() }
      if needed.contains(.write) { areas[index(above: address)].wasWritable = true }
      try host.protect(
        address: page, length: 4096, protection: AddressSpace.shown(area.protection.union(needed)))
      let result = work()
      try host.protect(address: page, length: 4096, protection: AddressSpace.shown(area.protection))
      return result
    } catch { return nil }
  }
}
