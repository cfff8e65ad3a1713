import ABI
import Processes
import Tasks
import VFS

/// Identity, groups and the end of processes (credentials(7), wait(2), setpgid(2)).
extension SystemCall {
  func dispatchProcess() throws(Errno) -> Int? {
    if let result = try dispatchSignal() { return result }
    if let result = try dispatchTime() { return result }
    if let result = try dispatchInformation() { return result }
    if let result = try dispatchInterprocess() { return result }
    if let result = try dispatchScheduling() { return result }
    if let result = try dispatchPrivileged() { return result }
    let owner = process.credentials
    switch number {
    case 39: return Int(process.pid)
    case 186: return Int(thread.tid)
    case 110: return Int(process.parent?.pid ?? 0)
    case 102: return Int(owner.realUser)
    case 104: return Int(owner.realGroup)
    case 107: return Int(owner.effectiveUser)
    case 108: return Int(owner.effectiveGroup)
    case 61: return try wait4()
    case 247: return try waitid()
    case 109:
      try process.setProcessGroup(of: int(a), to: int(b))
      return 0
    case 111: return Int(process.processGroup)
    case 112: return Int(try process.startSession())
    case 121: return Int(try process.processGroup(of: int(a)))
    case 124: return Int(try process.session(of: int(a)))
    case 218:
      thread.clearChildAddress = a
      return Int(thread.tid)
    case 273:
      guard b == 24 else { throw .invalid }
      thread.robustList = a
      thread.robustListLength = b
      return 0
    case 274: return try get_robust_list()
    case 202: return try futex()
    case 105, 113, 117: return try setUsers()
    case 106, 114, 119: return try setGroups()
    case 118: return try storeIdentities(owner.realUser, owner.effectiveUser, owner.savedUser)
    case 120: return try storeIdentities(owner.realGroup, owner.effectiveGroup, owner.savedGroup)
    case 115: return try getgroups()
    case 116: return try setgroups()
    case 122: return setFileSystemUser()
    case 123: return setFileSystemGroup()
    default: return nil
    }
  }

  private func get_robust_list() throws(Errno) -> Int {
    var target = thread
    if int(a) != 0 {
      guard let other = ProcessTable.thread(int(a)) else { throw .noSuchProcess }
      guard owner(of: other.process) else { throw .notPermitted }
      target = other
    }
    try UserSlice.store(target.robustList, at: b)
    try UserSlice.store(UInt(24), at: c)
    return 0
  }

  /// The caller may look into `other` (ptrace(2), access mode checks, as far as users go).
  func owner(of other: Process) -> Bool {
    let (mine, its) = (process.credentials, other.credentials)
    return mine.isPrivileged
      || mine.effectiveUser == its.realUser && its.realUser == its.effectiveUser
        && its.realUser == its.savedUser
  }

  private func wait4() throws(Errno) -> Int {
    var options = WaitOptions(rawValue: unsigned(c))
    options.insert(.exited)
    guard options.isDisjoint(with: .noWait) else { throw .invalid }
    guard let result = try thread.wait(try .wait4(int(a), caller: process), options) else { return 0 }
    if b != 0 { try UserSlice.store(result.status, at: b) }
    if d != 0 { try storeUsage(result.usage, at: d) }
    return Int(result.pid)
  }

  private func waitid() throws(Errno) -> Int {
    let number = int(b)
    let selector: WaitSelector
    switch int(a) {
    case 0: selector = try .wait4(-1, caller: process)
    case 1:
      guard number > 0 else { throw .invalid }
      selector = try .wait4(number, caller: process)
    case 2:
      guard number >= 0 else { throw .invalid }
      selector = .group(number == 0 ? process.processGroup : number)
    case 3:
      guard let file = try file(number) as? ProcessFile else { throw .badFileDescriptor }
      selector = .process(file.process.pid)
    default: throw .invalid
    }
    let result = try thread.wait(selector, WaitOptions(rawValue: unsigned(d)))
    if e != 0, let result { try storeUsage(result.usage, at: e) }
    guard c != 0 else { return 0 }
    guard let result else {
      try UserSlice(c, 128).clear(128)
      return 0
    }
    var information = SignalInformation(Signal.child, code: result.code)
    information.pid = result.pid
    information.uid = result.uid
    information.status = result.detail
    try UserSlice(c, 128).store(information.encoded())
    return 0
  }

  /// The real, the effective and the saved id of a process, of its user or of its group.
  private typealias Identities = (real: UInt32, effective: UInt32, saved: UInt32)

  /// What set*id, setre*id and setres*id make of the three ids: each may become any of them, or anything with the
  /// capability (setresuid(2)).
  private func changed(_ old: Identities, _ capability: UInt64) throws(Errno) -> Identities {
    let isCapable = process.capabilities.effective & capability != 0
    func choose(_ value: UInt, _ current: UInt32) throws(Errno) -> UInt32 {
      let wanted = unsigned(value)
      if wanted == .max { return current }
      guard isCapable || wanted == old.real || wanted == old.effective || wanted == old.saved else {
        throw .notPermitted
      }
      return wanted
    }
    var new = old
    switch number {
    case 105, 106:
      guard unsigned(a) != .max else { throw .invalid }
      new.effective = try choose(a, old.effective)
      if isCapable { (new.real, new.saved) = (new.effective, new.effective) }
    case 113, 114:
      new.real = try choose(a, old.real)
      new.effective = try choose(b, old.effective)
      if unsigned(a) != .max || new.effective != old.real { new.saved = new.effective }
    default:
      new.real = try choose(a, old.real)
      new.effective = try choose(b, old.effective)
      new.saved = try choose(c, old.saved)
    }
    return new
  }

  private func setUsers() throws(Errno) -> Int {
    var owner = process.credentials
    (owner.realUser, owner.effectiveUser, owner.savedUser) = try changed(
      (owner.realUser, owner.effectiveUser, owner.savedUser), Capabilities.setUser)
    return apply(owner)
  }

  private func setGroups() throws(Errno) -> Int {
    var owner = process.credentials
    (owner.realGroup, owner.effectiveGroup, owner.savedGroup) = try changed(
      (owner.realGroup, owner.effectiveGroup, owner.savedGroup), Capabilities.setGroup)
    return apply(owner)
  }

  private func apply(_ owner: ProcessCredentials) -> Int {
    process.capabilities.change(from: process.credentials, to: owner)
    process.assume(owner)
    return 0
  }

  /// setfsuid(2): the old id, whether it was changed or not.
  private func setFileSystemUser() -> Int {
    let owner = process.credentials
    let old = process.fileSystem.credentials.user
    process.fileSystem.credentials.user = fileSystemIdentity(
      old, (owner.realUser, owner.effectiveUser, owner.savedUser), Capabilities.setUser)
    return Int(old)
  }

  /// setfsgid(2)
  private func setFileSystemGroup() -> Int {
    let owner = process.credentials
    let old = process.fileSystem.credentials.group
    process.fileSystem.credentials.group = fileSystemIdentity(
      old, (owner.realGroup, owner.effectiveGroup, owner.savedGroup), Capabilities.setGroup)
    return Int(old)
  }

  /// The id wanted, if the caller may have it, or else the old one.
  private func fileSystemIdentity(_ old: UInt32, _ known: Identities, _ capability: UInt64) -> UInt32 {
    let wanted = unsigned(a)
    let isAllowed =
      process.capabilities.effective & capability != 0 || wanted == known.real || wanted == known.effective
      || wanted == known.saved
    return wanted != .max && isAllowed ? wanted : old
  }

  private func storeIdentities(_ real: UInt32, _ effective: UInt32, _ saved: UInt32) throws(Errno) -> Int {
    try UserSlice.store(real, at: a)
    try UserSlice.store(effective, at: b)
    try UserSlice.store(saved, at: c)
    return 0
  }

  private func getgroups() throws(Errno) -> Int {
    let groups = process.credentials.groups
    if a == 0 { return groups.count }
    guard int(a) >= 0, Int(int(a)) >= groups.count else { throw .invalid }
    for i in groups.indices { try UserSlice.store(groups[i], at: b + UInt(4 * i)) }
    return groups.count
  }

  private func setgroups() throws(Errno) -> Int {
    guard process.capabilities.effective & Capabilities.setGroup != 0 else { throw .notPermitted }
    guard a <= 65536 else { throw .invalid }
    var groups: [UInt32] = []
    for i in 0..<Int(a) { groups.append(try UserSlice.load(b + UInt(4 * i), UInt32(0))) }
    var owner = process.credentials
    owner.groups = groups
    return apply(owner)
  }

  private func futex() throws(Errno) -> Int {
    let isShared = b & 128 == 0
    let isRealtime = b & 256 != 0
    let command = Int(b & 127)
    switch command {
    case 0, 9:
      var deadline: UInt64? = nil
      if d != 0 {
        deadline = Futex.deadline(try duration(d), isRelative: command == 0, isRealtime: isRealtime)
      }
      try Futex.wait(
        a, value: unsigned(c), bits: command == 9 ? unsigned(f) : .max, deadline: deadline,
        isShared: isShared,
        thread: thread)
      return 0
    case 1: return try Futex.wake(a, count: Int(int(c)), isShared: isShared, thread: thread)
    case 10:
      return try Futex.wake(a, count: Int(int(c)), bits: unsigned(f), isShared: isShared, thread: thread)
    case 3, 4:
      let result = try Futex.requeue(
        a, to: e, count: Int(int(c)), moved: Int(int(d)), expected: command == 4 ? unsigned(f) : nil,
        isShared: isShared, thread: thread)
      return result.woken + (command == 4 ? result.moved : 0)
    case 5:
      return try Futex.wakeOperation(
        a, e, count: Int(int(c)), secondCount: Int(int(d)), operation: unsigned(f), isShared: isShared,
        thread: thread)
    case 6, 8:
      let deadline = d == 0 ? nil : Futex.deadline(try duration(d), isRelative: false, isRealtime: true)
      try Futex.lock(a, deadline: deadline, tries: command == 8, isShared: isShared, thread: thread)
      return 0
    case 7:
      try Futex.unlock(a, isShared: isShared, thread: thread)
      return 0
    default: throw .notImplemented
    }
  }

  /// A struct timespec as nanoseconds; EINVAL as clock_nanosleep(2) has it.
  func duration(_ address: UInt) throws(Errno) -> UInt64 {
    let time: (Int64, Int64) = try UserSlice.load(address, (0, 0))
    guard time.0 >= 0, time.1 >= 0, time.1 < 1_000_000_000 else { throw .invalid }
    let (product, overflow) = UInt64(time.0).multipliedReportingOverflow(by: 1_000_000_000)
    return overflow ? .max / 2 : min(product + UInt64(time.1), .max / 2)
  }
}
