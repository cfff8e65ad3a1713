import ABI
import Processes
import Tasks
import VFS

/// What programs ask of the system itself.
extension SystemCall {
  /// uname(2)'s node name.
  nonisolated(unsafe) public static var hostName: [UInt8] = []

  func dispatchInformation() throws(Errno) -> Int? {
    switch number {
    case 63: return try uname()
    case 24:
      host.yield()
      return 0
    case 97: return try limits(nil, Int(int(a)), new: 0, old: b)
    case 160: return try limits(nil, Int(int(a)), new: b, old: 0)
    case 302: return try limits(int(a), Int(int(b)), new: c, old: d)
    case 98:
      try UserSlice(b, 144).clear(144)
      return 0
    case 99: return try sysinfo()
    case 135: return 0
    case 140: return 20
    case 141, 142, 144, 203: return 0
    case 143:
      try UserSlice.store(Int32(0), at: b)
      return 0
    case 145: return 0
    case 146: return int(a) == 1 || int(a) == 2 ? 99 : 0
    case 147: return int(a) == 1 || int(a) == 2 ? 1 : 0
    case 157: return try prctl()
    case 204:
      guard b >= 8 else { throw .invalid }
      try UserSlice.store(UInt64(3), at: c)
      return 8
    case 309:
      if a != 0 { try UserSlice.store(UInt32(0), at: a) }
      if b != 0 { try UserSlice.store(UInt32(0), at: b) }
      return 0
    case 318: return try getrandom()
    case 324: return a == 0 ? 0 : nil
    default: return nil
    }
  }

  private func uname() throws(Errno) -> Int {
    var text = [UInt8](repeating: 0, count: 390)
    func put(_ index: Int, _ value: [UInt8]) {
      for i in value.indices.prefix(64) { text[index * 65 + i] = value[i] }
    }
    put(0, bytes("Linux"))
    put(1, SystemCall.hostName.isEmpty ? bytes("swiftlet") : SystemCall.hostName)
    put(2, bytes("6.1.0-swiftlet"))
    put(3, bytes("#1 SMP"))
    put(4, bytes("x86_64"))
    put(5, bytes("(none)"))
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
      guard wanted.hard <= current.hard || process.credentials.isPrivileged else { throw .notPermitted }
      target.limits[which] = wanted
      if which == ResourceLimit.openFiles { target.descriptors.limit = Int(min(wanted.soft, 1 << 20)) }
    }
    if old != 0 { try UserSlice.store(current, at: old) }
    return 0
  }

  private func sysinfo() throws(Errno) -> Int {
    var words = [UInt64](repeating: 0, count: 14)
    words[0] = host.monotonicNanoseconds / 1_000_000_000
    words[4] = UInt64(frames.totalFrames) * 4096
    words[5] = UInt64(frames.freeFrames) * 4096
    words[10] = UInt64(ProcessTable.processes.count)
    words[13] = 1
    for i in words.indices { try UserSlice.store(words[i], at: a + UInt(8 * i)) }
    return 0
  }

  private func getrandom() throws(Errno) -> Int {
    var bytes = [UInt8](repeating: 0, count: Int(min(b, 65536)))
    bytes.withUnsafeMutableBytes { host.fillRandom($0) }
    try UserSlice(a, bytes.count).store(bytes)
    return bytes.count
  }

  private func prctl() throws(Errno) -> Int {
    switch int(a) {
    case 1:
      guard b <= 64 else { throw .invalid }
      process.parentDeathSignal = int(b)
    case 2: try UserSlice.store(process.parentDeathSignal, at: b)
    case 3: return Int(process.dumpable)
    case 4:
      guard b <= 1 else { throw .invalid }
      process.dumpable = int(b)
    case 7, 8: return 0
    case 15:
      let name = Array(try UserSlice(b, 16).bytes().prefix { $0 != 0 }.prefix(15))
      thread.name = name
      if thread.tid == process.pid { process.name = name }
    case 16:
      var name = thread.name
      while name.count < 16 { name.append(0) }
      try UserSlice(b, 16).store(name)
    case 23: return b <= 40 ? 1 : -22
    case 36: process.isChildSubreaper = b != 0
    case 37: try UserSlice.store(Int32(process.isChildSubreaper ? 1 : 0), at: b)
    case 38: return 0
    case 39: return 0
    default: throw .invalid
    }
    return 0
  }
}
