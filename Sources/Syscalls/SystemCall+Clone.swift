import ABI
import CMachine
import Processes
import Tasks
import VFS

/// clone(2), execve(2) and their relatives.
extension SystemCall {
  func clone() throws(Errno) -> Int {
    var arguments = CloneArguments(
      flags: CloneFlags(rawValue: UInt64(a) & ~0xff), exitSignal: Int32(a & 0xff), stack: b,
      parentIdentifier: c, childIdentifier: d, threadPointer: e)
    if arguments.flags.contains(.processFile) {
      // The old call has one place for both.
      if arguments.flags.contains(.parentSetIdentifier) { throw .invalid }
      arguments.processFile = c
    }
    return Int(try thread.clone(arguments))
  }

  func fork() throws(Errno) -> Int {
    Int(
      try thread.clone(
        CloneArguments(
          flags: [], exitSignal: Signal.child, stack: 0, parentIdentifier: 0, childIdentifier: 0,
          threadPointer: 0)))
  }

  func vfork() throws(Errno) -> Int {
    Int(
      try thread.clone(
        CloneArguments(
          flags: [.memory, .vfork], exitSignal: Signal.child, stack: 0, parentIdentifier: 0,
          childIdentifier: 0,
          threadPointer: 0)))
  }

  func clone3() throws(Errno) -> Int {
    guard b >= 64 else { throw .invalid }
    try checkExtension(known: 88)
    typealias Words = (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64)
    let words: Words = try UserSlice.load(a, (0, 0, 0, 0, 0, 0, 0, 0))
    guard words.4 <= 64, (words.5 == 0) == (words.6 == 0) else { throw .invalid }
    // CLONE_DETACHED and CSIGNAL have no meaning here.
    guard words.0 & 0xff == 0, words.0 & 0x40_0000 == 0 else { throw .invalid }
    if words.0 & 0x1_8000 != 0, words.4 != 0 { throw .invalid }
    // CLONE_NEWNS with CLONE_FS
    if words.0 & 0x2_0200 == 0x2_0200 { throw .invalid }
    var arguments = CloneArguments(
      flags: CloneFlags(rawValue: words.0), exitSignal: Int32(truncatingIfNeeded: words.4),
      stack: UInt(words.5) &+ UInt(words.6), parentIdentifier: UInt(words.3),
      childIdentifier: UInt(words.2), threadPointer: UInt(words.7))
    arguments.processFile = UInt(words.1)
    return Int(try thread.clone(arguments))
  }

  /// A structure at `a` of `b` bytes may be longer than the one known, with zeros: E2BIG otherwise.
  private func checkExtension(known: UInt) throws(Errno) {
    guard b <= 4096 else { throw .argumentListTooLong }
    guard b > known else { return }
    for byte in try UserSlice(a &+ known, Int(b - known)).bytes() where byte != 0 {
      throw .argumentListTooLong
    }
  }

  /// unshare(2): descriptors, the file system context and semaphore undos; there are no name spaces to leave.
  func unshare() throws(Errno) -> Int {
    let flags = a
    // CLONE_NEWTIME, VM, FS, FILES, SIGHAND, THREAD, NEWNS, SYSVSEM, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
    guard flags & ~0x7e07_0f80 == 0 else { throw .invalid }
    if flags & 0x7e02_0080 != 0 { throw .notPermitted }
    // CLONE_THREAD, CLONE_SIGHAND and CLONE_VM only say that there is one thread.
    if flags & 0x1_0900 != 0, process.threads.count > 1 { throw .invalid }
    if flags & 0x400 != 0, process.descriptors.users > 1 {
      guard process.descriptors.open.count <= process.descriptors.limit,
        (process.descriptors.open.last?.0 ?? 0) < Int32(1 << 20)
      else { throw .tooManyFiles }
      process.descriptors.users -= 1
      process.descriptors = process.descriptors.copy()
    }
    if flags & 0x200 != 0 { process.fileSystem = process.fileSystem.copy() }
    return 0
  }

  func execve() throws(Errno) -> Int {
    let path = try UserSlice.string(a)
    let arguments = try strings(b)
    let environment = try strings(c)
    return try execute(path, arguments, environment)
  }

  /// execveat(2). AT_EMPTY_PATH 0x1000, AT_SYMLINK_NOFOLLOW 0x100.
  func execveat() throws(Errno) -> Int {
    let flags = unsigned(e)
    guard flags & ~0x1100 == 0 else { throw .invalid }
    let name = try UserSlice.string(b)
    let (arguments, environment) = (try strings(c), try strings(d))
    if name.first == 0x2f, flags & 0x100 == 0 { return try execute(name, arguments, environment) }
    let directory = int(a)
    let place: Path
    if name.isEmpty {
      guard flags & 0x1000 != 0 else { throw .noSuchFile }
      guard let path = try description(directory).path else { throw .accessDenied }
      place = path
    } else {
      place = try process.fileSystem.resolve(
        name, at: try start(directory, name), followLast: flags & 0x100 == 0)
    }
    if place.inode.isSymlink { throw .tooManySymlinks }
    // What /proc and a script's interpreter see.
    var shown = bytes("/dev/fd/") + decimal(UInt64(max(0, directory)))
    if !name.isEmpty { shown = directory == SystemCall.workingDirectory ? name : shown + [0x2f] + name }
    return try execute(shown, arguments, environment, at: place)
  }

  private func strings(_ vector: UInt) throws(Errno) -> [[UInt8]] {
    var result: [[UInt8]] = []
    if vector == 0 { return result }
    var total = 0
    var at = vector
    while true {
      let address: UInt = try UserSlice.load(at, 0)
      if address == 0 { return result }
      let text = try UserSlice.string(address, limit: 131072)
      total += text.count + 9
      if total > 2 << 20 { throw .argumentListTooLong }
      result.append(text)
      at &+= 8
    }
  }

  /// `place`: the program's file when `path` does not lead there by itself (execveat).
  public func execute(
    _ path: [UInt8], _ arguments: [[UInt8]], _ environment: [[UInt8]], at place: Path? = nil
  ) throws(Errno) -> Int {
    let execution = try Execution(
      path: path, arguments: arguments.isEmpty ? [[]] : arguments, environment: environment
    ) { (name) throws(Errno) in
      if let place, name == path { return try openProgram(place) }
      return try openProgram(name)
    }
    let process = process
    let thread = thread
    if thread.isBorrowing {
      process.addressSpace = AddressSpace()
      process.addressSpaceIdentity = UInt(truncatingIfNeeded: process.pid)
      thread.execution = execution
      thread.startsProcess = true
      thread.depart(.giveBack)
      return 0
    }
    let former = thread.tid
    try process.endOtherThreads(thread)
    run(execution)
    thread.reportExecution(former: former)
    return 0
  }

  /// Set-user-ID and set-group-ID programs (execve(2)).
  private func takeOwnership(of execution: Execution) {
    var owner = process.credentials
    // A tracer must not get hold of rights that it has not (execve(2), "Effect on process attributes").
    let isHeld = process.hasNoNewPrivileges || thread.isTracedByOthers
    if !isHeld {
      if let user = execution.setsUser { owner.effectiveUser = user }
      if let group = execution.setsGroup { owner.effectiveGroup = group }
    }
    owner.savedUser = owner.effectiveUser
    owner.savedGroup = owner.effectiveGroup
    if owner.effectiveUser != process.credentials.effectiveUser
      || owner.effectiveGroup != process.credentials.effectiveGroup
    {
      process.dumpable = 0
      process.parentDeathSignal = 0
    }
    process.assume(owner)
    process.capabilities.execute(owner, file: isHeld ? nil : execution.capabilities)
  }

  /// Loads the program; past the point of no return a failure ends the process.
  func run(_ execution: Execution) {
    let process = process
    thread.prepareForExecution()
    if process.descriptors.users > 1 {
      process.descriptors.users -= 1
      process.descriptors = process.descriptors.copy()
    }
    process.descriptors.closeForExecution()
    takeOwnership(of: execution)
    do throws(Errno) {
      try execution.load(into: process.addressSpace, frame: frame, process: process)
    } catch {
      process.beginGroupExit(status: Signal.segmentation)
    }
  }
}
