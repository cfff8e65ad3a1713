import ABI
import Processes
import Tasks

/// process_vm_readv(2), process_vm_writev(2) and ptrace(2).
extension SystemCall {
  func dispatchProcessMemory() throws(Errno) -> Int? {
    switch number {
    case 101: return try ptrace()
    case 310: return try process_vm(writes: false)
    case 311: return try process_vm(writes: true)
    default: return nil
    }
  }

  private func process_vm(writes: Bool) throws(Errno) -> Int {
    guard f == 0, c <= 1024, e <= 1024 else { throw .invalid }
    var local = VectorCursor(try vectors(b, c, isLocal: true))
    var remote = VectorCursor(try vectors(d, e, isLocal: false))
    guard let target = ProcessTable.thread(int(a))?.process, !target.isZombie else { throw .noSuchProcess }
    try checkAttachment(to: target)
    var done = 0
    while let (mine, its) = local.next(with: remote) {
      do throws(Errno) {
        let count: Int
        if writes {
          count = try target.writeMemory(try UserSlice(mine.address, mine.count).bytes(), at: its)
        } else {
          let bytes = try target.readMemory(at: its, count: mine.count)
          try UserSlice(mine.address, bytes.count).store(bytes)
          count = bytes.count
        }
        done += count
        if count < mine.count { return done }
        local.advance(count)
        remote.advance(count)
      } catch {
        if done > 0 { return done }
        throw error
      }
    }
    return done
  }

  /// What ptrace(2) asks of who attaches: the same user and group by all ids, a dumpable process and no fewer
  /// capabilities, or root. EPERM.
  func checkAttachment(to other: Process) throws(Errno) {
    if other === process || process.credentials.isPrivileged { return }
    let (mine, its) = (process.credentials, other.credentials)
    guard its.realUser == mine.realUser, its.effectiveUser == mine.realUser, its.savedUser == mine.realUser,
      its.realGroup == mine.realGroup, its.effectiveGroup == mine.realGroup,
      its.savedGroup == mine.realGroup, other.dumpable == 1,
      other.capabilities.permitted & ~process.capabilities.permitted == 0
    else { throw .notPermitted }
  }

  /// An array of struct iovec. Lengths that are negative as ssize_t: EINVAL.
  private func vectors(_ address: UInt, _ count: UInt, isLocal: Bool) throws(Errno) -> [(UInt, Int)] {
    var list: [(UInt, Int)] = []
    var total = 0
    for index in 0..<count {
      let (base, length): (UInt, Int) = try UserSlice.load(address &+ 16 * index, (0, 0))
      guard length >= 0, !total.addingReportingOverflow(length).overflow else { throw .invalid }
      total += length
      if isLocal { _ = try UserSlice(base, length) }
      if length > 0 { list.append((base, length)) }
    }
    return list
  }
}

/// A place in a list of ranges.
private struct VectorCursor {
  private let list: [(address: UInt, count: Int)]
  private var index = 0
  private var offset = 0

  init(_ list: [(UInt, Int)]) { self.list = list.map { (address: $0.0, count: $0.1) } }

  private var rest: (address: UInt, count: Int)? {
    guard index < list.count else { return nil }
    return (list[index].address &+ UInt(offset), list[index].count - offset)
  }

  /// What can be copied at once between this range and `other`'s: here, how much, and there.
  func next(with other: VectorCursor) -> (mine: (address: UInt, count: Int), its: UInt)? {
    guard let here = rest, let there = other.rest else { return nil }
    return ((here.address, min(here.count, there.count, Process.longestVisit)), there.address)
  }

  mutating func advance(_ count: Int) {
    offset += count
    if index < list.count, offset >= list[index].count {
      index += 1
      offset = 0
    }
  }
}
