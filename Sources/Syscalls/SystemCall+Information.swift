import ABI
import Processes
import Tasks
import VFS

/// What programs ask of the system itself.
extension SystemCall {
  func dispatchInformation() throws(Errno) -> Int? {
    switch number {
    case 63: return try uname()
    case 24:
      host.yield()
      return 0
    case 97: return try limits(nil, Int(int(a)), new: 0, old: b)
    case 160: return try limits(nil, Int(int(a)), new: b, old: 0)
    case 302: return try limits(int(a), Int(int(b)), new: c, old: d)
    case 98: return try getrusage()
    case 99: return try sysinfo()
    case 135:
      let old = process.personality
      if unsigned(a) != .max { process.personality = unsigned(a) }
      return Int(old)
    case 157: return try prctl()
    case 204:
      return try getaffinity()
    case 309:
      if a != 0 { try UserSlice.store(UInt32(0), at: a) }
      if b != 0 { try UserSlice.store(UInt32(0), at: b) }
      return 0
    case 318: return try getrandom()
    case 136: return try ustat()
    case 139: return try sysfs()
    default: return nil
    }
  }

  /// sched_getaffinity(2): every thread may run on every processor.
  private func getaffinity() throws(Errno) -> Int {
    let words = (host.processorCount + 63) / 64
    guard b & 7 == 0, Int(clamping: b) >= words * 8 else { throw .invalid }
    if a != 0, ProcessTable.thread(int(a)) == nil { throw .noSuchProcess }
    for word in 0..<words {
      let left = host.processorCount - 64 * word
      try UserSlice.store(left >= 64 ? UInt64.max : 1 << UInt64(left) - 1, at: c + UInt(8 * word))
    }
    return 8 * words
  }

  private func uname() throws(Errno) -> Int {
    var text = [UInt8](repeating: 0, count: 390)
    func put(_ index: Int, _ value: [UInt8]) {
      for i in value.indices.prefix(64) { text[index * 65 + i] = value[i] }
    }
    put(0, bytes("Linux"))
    put(1, SystemIdentity.hostName)
    put(2, SystemIdentity.release)
    put(3, SystemIdentity.version)
    put(4, bytes("x86_64"))
    put(5, SystemIdentity.domainName)
    try UserSlice(a, 390).store(text)
    return 0
  }

  private func limits(_ pid: Int32?, _ which: Int, new: UInt, old: UInt) throws(Errno) -> Int {
    var target = process
    if let pid, pid != 0, pid != process.pid {
      guard let other = ProcessTable.process(pid) else { throw .noSuchProcess }
      guard process.credentials.isPrivileged else { throw .notPermitted }
      target = other
    }
    guard which >= 0, which < 16 else { throw .invalid }
    let current = target.limits[which]
    if new != 0 {
      let wanted = try UserSlice.load(new, ResourceLimit(0, 0))
      guard wanted.soft <= wanted.hard else { throw .invalid }
      // /proc/sys/fs/nr_open
      if which == ResourceLimit.openFiles, wanted.hard > 1 << 20 { throw .notPermitted }
      guard wanted.hard <= current.hard || process.credentials.isPrivileged else { throw .notPermitted }
      target.setLimit(which, wanted)
      if which == ResourceLimit.openFiles { target.descriptors.limit = Int(min(wanted.soft, 1 << 20)) }
    }
    if old != 0 { try UserSlice.store(current, at: old) }
    return 0
  }

  private func sysinfo() throws(Errno) -> Int {
    var words = [UInt64](repeating: 0, count: 14)
    words[0] = host.monotonicNanoseconds / 1_000_000_000
    words[4] = UInt64(MemoryLimit.total) * 4096
    words[5] = UInt64(MemoryLimit.unused) * 4096
    words[10] = UInt64(ProcessTable.processes.count)
    words[13] = 1
    for i in words.indices { try UserSlice.store(words[i], at: a + UInt(8 * i)) }
    return 0
  }

  /// sysfs(2): 1 a file system's index by its name, 2 the name by the index, 3 how many there are.
  private func sysfs() throws(Errno) -> Int {
    let kinds = ["sysfs", "tmpfs", "proc", "ramfs", "devpts"] as [StaticString]
    switch int(a) {
    case 1:
      let name = try UserSlice.string(b)
      guard let index = kinds.firstIndex(where: { bytes($0) == name }) else { throw .invalid }
      return index
    case 2:
      guard b < UInt(kinds.count) else { throw .invalid }
      let name = bytes(kinds[Int(b)]) + [0]
      try UserSlice(c, name.count).store(name)
      return 0
    case 3: return kinds.count
    default: throw .invalid
    }
  }

  /// ustat(2): free blocks and inodes of a mounted device; names are empty.
  private func ustat() throws(Errno) -> Int {
    guard MountTable.mounts.contains(where: { $0.device == UInt64(unsigned(a)) }) else { throw .invalid }
    let free = UInt64(frames.freeFrames)
    try UserSlice(b, 32).clear(32)
    try UserSlice.store(UInt32(truncatingIfNeeded: free), at: b)
    try UserSlice.store(free, at: b &+ 8)
    return 0
  }

  private func getrandom() throws(Errno) -> Int {
    // GRND_NONBLOCK 1, GRND_RANDOM 2, GRND_INSECURE 4
    guard unsigned(c) & ~7 == 0, unsigned(c) & 6 != 6 else { throw .invalid }
    var bytes = [UInt8](repeating: 0, count: Int(min(b, 65536)))
    bytes.withUnsafeMutableBytes { host.fillRandom($0) }
    try UserSlice(a, bytes.count).store(bytes)
    return bytes.count
  }

  /// getrusage(2): times and the largest resident set.
  private func getrusage() throws(Errno) -> Int {
    switch int(a) {
    case 0: try storeUsage(process.currentUsage, at: b)
    case 1: try storeUsage(thread.currentUsage, at: b)
    case -1: try storeUsage(process.childrenUsage, at: b)
    default: throw .invalid
    }
    return 0
  }

  /// struct rusage, 144 bytes.
  func storeUsage(_ usage: ResourceUsage, at address: UInt) throws(Errno) {
    try UserSlice(address, 144).clear(144)
    func time(_ nanoseconds: UInt64) -> (UInt64, UInt64) {
      (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000 / 1000)
    }
    try UserSlice.store((time(usage.user), time(usage.system), usage.peakResident >> 10), at: address)
  }
}
