import ABI
import Processes
import Tasks
import VFS

/// What /proc/PID tells of a process apart from its memory and files (proc(5)).
enum StatusFiles {
  /// sysconf(_SC_CLK_TCK) is 100: nanoseconds of a tick.
  static let tick: UInt64 = 10_000_000

  static func name(_ subject: ProcessSubject) throws(Errno) -> [UInt8] { visibleName(subject) + [0x0a] }

  private static func visibleName(_ subject: ProcessSubject) -> [UInt8] {
    subject.task?.name ?? subject.process.name
  }

  /// The name of the thread, 15 bytes of it; EINVAL for another process's (proc(5), comm).
  static func setName(_ subject: ProcessSubject, _ text: [UInt8]) throws(Errno) {
    guard subject.process === LinuxThread.running.process else { throw .invalid }
    var name = Array(text.prefix(15).prefix { $0 != 0 })
    if name.last == 0x0a { name.removeLast() }
    subject.thread?.name = name
    if subject.task == nil || subject.identifier == subject.process.pid { subject.process.name = name }
  }

  // MARK: stat

  static func stat(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    let process = subject.process
    var text = Text()
    text.add(subject.identifier)
    text.add(" (")
    text.add(visibleName(subject))
    text.add(") ")
    text.add([subject.state])
    let terminal = process.controllingTerminal
    let foreground: Int32 = process.terminal?.foreground ?? -1
    let group: Int32 = process.processGroup
    let parent: Int32 = process.parent?.pid ?? 0
    let session: Int32 = process.session
    for value in [parent, group, session, Int32(truncatingIfNeeded: terminal), foreground] as [Int32] {
      text.add(" ")
      text.add(value)
    }
    let isInspected = mayInspect(subject)
    for (index, value) in numbers(subject, isInspected: isInspected).enumerated() {
      text.add(" ")
      // Priority and niceness may be negative.
      if index == 9 || index == 10 { text.add(Int(Int64(bitPattern: value))) } else { text.add(value) }
    }
    text.endLine()
    return text.bytes
  }

  private static func mayInspect(_ subject: ProcessSubject) -> Bool {
    do throws(Errno) { try subject.checkInspection() } catch { return false }
    return true
  }

  /// Nanoseconds of processor time. Threads of another process than the reader's are known only as a whole: 0.
  private static func time(_ subject: ProcessSubject) -> UInt64 {
    subject.task?.processorNanoseconds ?? subject.process.processorNanoseconds
  }

  /// The fields from `flags` on.
  private static func numbers(_ subject: ProcessSubject, isInspected: Bool) -> [UInt64] {
    let process = subject.process
    let space = process.addressSpace
    let sizes = MemorySizes(space)
    let used = subject.task?.currentUsage ?? process.currentUsage
    let children = process.childrenUsage
    let startStack = isInspected ? UInt64(space.argumentsStart) & ~15 : 0
    let signals = SignalMasks(subject)
    // flags: PF_FORKNOEXEC until execve(2), PF_RANDOMIZE after.
    var list: [UInt64] = [process.hasExecuted ? 0x0040_0000 : 0x0040_0040, 0, 0, 0, 0]
    list += [used.user / tick, used.system / tick, children.user / tick, children.system / tick]
    let nice = Int64(process.niceness)
    list += [
      UInt64(bitPattern: 20 + nice), UInt64(bitPattern: nice), UInt64(max(process.threads.count, 1)), 0,
      process.startTime / tick,
    ]
    list += [UInt64(sizes.total), UInt64(sizes.resident >> 12), process.limits[5].soft]
    let code = isInspected ? sizes.code : 0..<0
    let data = isInspected ? sizes.programData : 0..<0
    list += [UInt64(code.lowerBound), UInt64(code.upperBound), startStack, 0, 0]
    let low: UInt64 = 0x7fff_ffff
    list += [
      signals.pending & low, signals.blocked & low, signals.ignored & low, signals.caught & low,
    ]
    list += [0, 0, 0, UInt64(UInt32(bitPattern: process.exitSignal)), 0, 0, 0, 0, 0, 0]
    guard isInspected else { return list + [0, 0, 0, 0, 0, 0, 0, 0] }
    list += [UInt64(data.lowerBound), UInt64(data.upperBound), UInt64(space.heapStart)]
    list += [UInt64(space.argumentsStart), UInt64(space.argumentsEnd)]
    list += [UInt64(space.environmentStart), UInt64(space.environmentEnd)]
    list.append(UInt64(UInt32(bitPattern: process.exitStatus)))
    return list
  }

  // MARK: status

  static func status(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    var text = Text()
    let process = subject.process
    text.add("Name:\t")
    text.add(visibleName(subject))
    if let context = process.fileSystem {
      text.add("\nUmask:\t0")
      text.addOctal(context.mask >> 6 & 7)
      text.addOctal(context.mask >> 3 & 7)
      text.addOctal(context.mask & 7)
    }
    text.add("\nState:\t")
    text.add([subject.state])
    switch subject.state {
    case 0x52: text.add(" (running)")
    case 0x53: text.add(" (sleeping)")
    case 0x54: text.add(" (stopped)")
    case 0x74: text.add(" (tracing stop)")
    default: text.add(" (zombie)")
    }
    func number(_ name: StaticString, _ value: Int32) {
      text.add(name)
      text.add(value)
    }
    number("\nTgid:\t", process.pid)
    number("\nNgid:\t", 0)
    number("\nPid:\t", subject.identifier)
    number("\nPPid:\t", process.parent?.pid ?? 0)
    number("\nTracerPid:\t", subject.thread?.tracing?.tracer.tid ?? 0)
    addIdentities(process, &text)
    number("\nNStgid:\t", process.pid)
    number("\nNSpid:\t", subject.identifier)
    number("\nNSpgid:\t", process.processGroup)
    number("\nNSsid:\t", process.session)
    text.endLine()
    if !process.isZombie { MemoryFiles.addStatus(process, &text) }
    number("Threads:\t", Int32(max(process.threads.count, 1)))
    addSignals(subject, &text)
    addRights(process, &text)
    return text.bytes
  }

  private static func addIdentities(_ process: Process, _ text: inout Text) {
    let owner = process.credentials
    let context = process.fileSystem
    text.add("\nUid:")
    for user in [
      owner.realUser, owner.effectiveUser, owner.savedUser, context?.credentials.user ?? owner.effectiveUser,
    ] {
      text.add("\t")
      text.add(user)
    }
    text.add("\nGid:")
    for group in [
      owner.realGroup, owner.effectiveGroup, owner.savedGroup,
      context?.credentials.group ?? owner.effectiveGroup,
    ] {
      text.add("\t")
      text.add(group)
    }
    // Slots in the table of descriptors, in steps as Linux grows it.
    text.add("\nFDSize:\t")
    var slots: Int32 = 64
    if process.isZombie {
      slots = 0
    } else {
      while let last = process.descriptors.open.last, last.0 >= slots { slots *= 2 }
    }
    text.add(slots)
    text.add("\nGroups:\t")
    for group in owner.groups {
      text.add(group)
      text.add(" ")
    }
  }

  private static func addSignals(_ subject: ProcessSubject, _ text: inout Text) {
    let signals = SignalMasks(subject)
    text.add("\nSigQ:\t0/")
    text.add(subject.process.limits[ResourceLimit.pendingSignals].soft)
    func mask(_ name: StaticString, _ value: UInt64) {
      text.add(name)
      text.addHexadecimal(value, width: 16)
    }
    mask("\nSigPnd:\t", signals.pending)
    mask("\nShdPnd:\t", signals.shared)
    mask("\nSigBlk:\t", signals.blocked)
    mask("\nSigIgn:\t", signals.ignored)
    mask("\nSigCgt:\t", signals.caught)
  }

  private static func addRights(_ process: Process, _ text: inout Text) {
    let rights = process.capabilities
    func mask(_ name: StaticString, _ value: UInt64) {
      text.add(name)
      text.addHexadecimal(value, width: 16)
    }
    mask("\nCapInh:\t", rights.inheritable)
    mask("\nCapPrm:\t", rights.permitted)
    mask("\nCapEff:\t", rights.effective)
    mask("\nCapBnd:\t", rights.bounding)
    mask("\nCapAmb:\t", rights.ambient)
    text.add(process.hasNoNewPrivileges ? "\nNoNewPrivs:\t1" : "\nNoNewPrivs:\t0")
    text.add("\nSeccomp:\t0\n")
    text.add("Seccomp_filters:\t0\nSpeculation_Store_Bypass:\tnot vulnerable\n")
    text.add("SpeculationIndirectBranch:\tunknown\nCpus_allowed:\t")
    text.add(ProcessorInformation.mask())
    text.add("\nCpus_allowed_list:\t")
    text.add(ProcessorInformation.range())
    text.add("\nMems_allowed:\t00000000,00000001\nMems_allowed_list:\t0\n")
    text.add("voluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n")
  }

  // MARK: Limits

  static func limits(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    let names: [(StaticString, StaticString)] = [
      ("Max cpu time", "seconds"), ("Max file size", "bytes"), ("Max data size", "bytes"),
      ("Max stack size", "bytes"), ("Max core file size", "bytes"), ("Max resident set", "bytes"),
      ("Max processes", "processes"), ("Max open files", "files"), ("Max locked memory", "bytes"),
      ("Max address space", "bytes"), ("Max file locks", "locks"), ("Max pending signals", "signals"),
      ("Max msgqueue size", "bytes"), ("Max nice priority", ""), ("Max realtime priority", ""),
      ("Max realtime timeout", "us"),
    ]
    var text = Text()
    text.add("Limit                     Soft Limit           Hard Limit           Units     \n")
    for (index, (name, unit)) in names.enumerated() {
      let start = text.bytes.count
      let limit = subject.process.limits[index]
      text.add(name)
      text.pad(to: 26, from: start)
      addLimit(limit.soft, &text)
      text.pad(to: 47, from: start)
      addLimit(limit.hard, &text)
      text.pad(to: 68, from: start)
      text.add(unit)
      if unit.utf8CodeUnitCount > 0 { text.pad(to: 78, from: start) }
      text.endLine()
    }
    return text.bytes
  }

  private static func addLimit(_ value: UInt64, _ text: inout Text) {
    if value == .max { text.add("unlimited") } else { text.add(value) }
  }

  // MARK: Small files

  static func personality(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    var text = Text()
    text.addHexadecimal(UInt64(subject.process.personality), width: 8)
    text.endLine()
    return text.bytes
  }
  static func waitChannel(_ subject: ProcessSubject) throws(Errno) -> [UInt8] { [0x30] }
  static func kernelStack(_ subject: ProcessSubject) throws(Errno) -> [UInt8] { [] }
  static func controlGroup(_ subject: ProcessSubject) throws(Errno) -> [UInt8] { line("0::/") }
  static func processorSet(_ subject: ProcessSubject) throws(Errno) -> [UInt8] { line("/") }
  static func dumpFilter(_ subject: ProcessSubject) throws(Errno) -> [UInt8] { line("00000033") }
  static func setGroups(_ subject: ProcessSubject) throws(Errno) -> [UInt8] { line("allow") }
  static func refuse(_ subject: ProcessSubject, _ text: [UInt8]) throws(Errno) { throw .notPermitted }
  static func ignore(_ subject: ProcessSubject, _ text: [UInt8]) throws(Errno) {}

  /// user_namespaces(7): the one namespace maps everything to itself.
  static func identityMap(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    line("         0          0 4294967295")
  }

  static func schedulerStatistics(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    let used = time(subject)
    return decimal(used) + line(" 0 0")
  }

  static func transfers(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    bytes(
      "rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n")
  }

  static func children(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    var text = Text()
    for child in subject.process.children {
      text.add(child.pid)
      text.add(" ")
    }
    return text.bytes
  }

  static func loginUser(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    decimal(UInt64(subject.thread?.login.user ?? Login.none))
  }
  static func loginSession(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    decimal(UInt64(subject.thread?.login.session ?? Login.none))
  }

  /// A thread says it of itself only; a login that there is, is changed by who has CAP_AUDIT_CONTROL only. EPERM.
  static func setLoginUser(_ subject: ProcessSubject, _ text: [UInt8]) throws(Errno) {
    let thread = LinuxThread.running
    guard subject.thread === thread else { throw .notPermitted }
    guard let value = number(text), value >= 0 else { throw .invalid }
    guard let user = UInt32(exactly: value) else { throw .outOfRange }
    let mayChange = thread.process.capabilities.effective & Capabilities.auditControl != 0
    guard thread.login.user == Login.none || mayChange else { throw .notPermitted }
    thread.login.change(to: user)
  }

  // MARK: Out of memory: nobody is ended for it, but the wish is kept

  static func memoryScore(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    line(UInt64(max(0, 666 + Int(subject.process.memoryAdjustment) * 2 / 3)))
  }

  static func memoryAdjustment(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    signedLine(subject.process.memoryAdjustment)
  }

  private static func signedLine(_ value: Int32) -> [UInt8] {
    var text = Text()
    text.add(value)
    text.endLine()
    return text.bytes
  }

  static func setMemoryAdjustment(_ subject: ProcessSubject, _ text: [UInt8]) throws(Errno) {
    guard let value = number(text), (-1000...1000).contains(value) else { throw .invalid }
    let asker = LinuxThread.running.process.credentials
    guard asker.isPrivileged || value >= Int(subject.process.memoryAdjustment) else { throw .accessDenied }
    subject.process.memoryAdjustment = Int32(value)
  }

  static func oldMemoryAdjustment(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    let value = subject.process.memoryAdjustment
    return signedLine(value == 1000 ? 15 : value * 17 / 1000)
  }

  static func setOldMemoryAdjustment(_ subject: ProcessSubject, _ text: [UInt8]) throws(Errno) {
    guard let value = number(text), (-17...15).contains(value) else { throw .invalid }
    try setMemoryAdjustment(subject, decimalText(value == 15 ? 1000 : value * 1000 / 17))
  }

  private static func decimalText(_ value: Int) -> [UInt8] {
    var text = Text()
    text.add(value)
    return text.bytes
  }
}

/// Which signals wait, are blocked, ignored and caught, bit 0 for signal 1.
struct SignalMasks {
  var pending: UInt64 = 0
  var shared: UInt64 = 0
  var blocked: UInt64 = 0
  var ignored: UInt64 = 0
  var caught: UInt64 = 0

  init(_ subject: ProcessSubject) {
    shared = subject.process.pending.set.rawValue
    if let thread = subject.thread {
      pending = thread.pending.set.rawValue
      blocked = thread.mask.rawValue
    }
    for signal in 1...Signal.last {
      let action = subject.process.actions[signal]
      if action.handler == SignalAction.ignoreHandler {
        ignored |= SignalSet(signal).rawValue
      } else if action.handler != SignalAction.defaultHandler {
        caught |= SignalSet(signal).rawValue
      }
    }
  }
}
