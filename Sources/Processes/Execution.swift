public import ABI
public import CMachine
public import Tasks
public import VFS

/// A program about to be run (execve(2)): everything that can be refused has been checked when it exists.
public struct Execution {
  let program: ELFHeader
  let file: OpenFile
  let interpreter: ELFHeader?
  let interpreterFile: OpenFile?
  var arguments: [[UInt8]]
  let environment: [[UInt8]]
  let path: [UInt8]

  /// Opens `path` for execution; permissions are the opener's to check.
  public typealias Opener = ([UInt8]) throws(Errno) -> OpenFile

  static let maximumArgumentBytes = 2 << 20

  /// ENOEXEC, ENOENT (also of an interpreter), EACCES, ELOOP, E2BIG.
  public init(path: [UInt8], arguments: [[UInt8]], environment: [[UInt8]], open: Opener) throws(Errno) {
    var name = path
    var list = arguments
    var depth = 0
    var opened = try open(name)
    while let script = try Execution.script(opened) {
      depth += 1
      if depth > 4 { throw .tooManySymlinks }
      var rest = Array(list.dropFirst())
      rest.insert(name, at: 0)
      if !script.argument.isEmpty { rest.insert(script.argument, at: 0) }
      rest.insert(script.interpreter, at: 0)
      list = rest
      name = script.interpreter
      opened = try open(name)
    }
    file = opened
    program = try ELFHeader(opened)
    if let place = program.interpreter {
      var wanted = try ELFHeader.read(opened, place.offset, place.length)
      while wanted.last == 0 { wanted.removeLast() }
      let loader = try open(wanted)
      interpreterFile = loader
      interpreter = try ELFHeader(loader)
    } else {
      interpreterFile = nil
      interpreter = nil
    }
    self.path = path
    self.arguments = list
    self.environment = environment
    var total = 0
    for text in list { total += text.count + 9 }
    for text in environment { total += text.count + 9 }
    if total > Execution.maximumArgumentBytes { throw .argumentListTooLong }
  }

  /// The user and the group that a set-user-ID or set-group-ID program runs as; scripts do not count.
  public var setsUser: UInt32? {
    file.inode.status.mode & 0o4000 != 0 && !isUntrusted ? file.inode.status.user : nil
  }
  /// MS_NOSUID
  private var isUntrusted: Bool { (file.path.map { MountTable.flags($0) } ?? 0) & 2 != 0 }
  public var setsGroup: UInt32? {
    file.inode.status.mode & 0o2010 == 0o2010 && !isUntrusted ? file.inode.status.group : nil
  }

  /// The file's own capabilities (capabilities(7)); scripts do not count.
  public var capabilities: FileCapabilities? {
    guard !isUntrusted, file.inode.mayHaveAttributes else { return nil }
    return (try? file.inode.extendedAttribute(bytes("security.capability"))).flatMap { FileCapabilities($0) }
  }

  /// The `#!` line: interpreter and at most one argument.
  private static func script(_ file: OpenFile) throws(Errno) -> (interpreter: [UInt8], argument: [UInt8])? {
    let head = try ELFHeader.read(file, 0, 256)
    guard head.count > 2, head[0] == 0x23, head[1] == 0x21 else { return nil }
    guard let end = head.firstIndex(of: 0x0a) ?? (head.count < 256 ? head.count : nil) else {
      throw .notExecutable
    }
    let line = head[2..<end]
    let isBlank = { (byte: UInt8) in byte == 0x20 || byte == 0x09 }
    guard let start = line.firstIndex(where: { !isBlank($0) }) else { throw .notExecutable }
    let stop = line[start...].firstIndex(where: isBlank) ?? end
    var argument = Array(line[stop...].drop(while: isBlank))
    while let last = argument.last, isBlank(last) || last == 0x0d { argument.removeLast() }
    return (Array(line[start..<stop]), argument)
  }

  /// Replaces the current process's memory by the program and points the frame at it. There is no way back: a
  /// failure here ends the process with SIGSEGV or SIGKILL, as on Linux.
  public func load(into space: AddressSpace, frame: UnsafeMutablePointer<trap_frame>, process: Process)
    throws(Errno)
  {
    space.clear()
    try ProgramSlots.show()
    let base = try program.isPositionIndependent ? Execution.programBase(program, process) : 0
    try Execution.map(program, file, at: base, in: space)
    var entry = base &+ program.entry
    var interpreterBase: UInt = 0
    if let interpreter, let interpreterFile {
      let span = interpreter.span
      interpreterBase = try space.findFree(span.high - span.low) - span.low
      try Execution.map(interpreter, interpreterFile, at: interpreterBase, in: space)
      entry = interpreterBase &+ interpreter.entry
    }
    space.heapStart = (base + program.span.high + 0x10_0000) & ~4095
    space.heapEnd = space.heapStart
    let stack = try makeStack(space, process, base: base, interpreterBase: interpreterBase)
    frame.pointee = trap_frame()
    frame.pointee.rip = UInt64(entry)
    frame.pointee.rsp = UInt64(stack)
    frame.pointee.rflags = 0x202
    frame.pointee.kind = UInt64(TRAP_RETURN)
    host.setThreadPointer(0)
    finish(process)
  }

  private func finish(_ process: Process) {
    process.threads[0].threadPointer = 0
    process.hasExecuted = true
    let slash = path.lastIndex(of: 0x2f)
    process.name = Array(path[(slash.map { $0 + 1 } ?? 0)...].prefix(15))
    process.threads[0].name = process.name
    process.commandLine = []
    for argument in arguments { process.commandLine += argument + [0] }
    process.executable = file.path
  }

  // Where Linux puts position-independent programs, without the low bits' randomness but with some of the high ones.
  private static func programBase(_ header: ELFHeader, _ process: Process) throws(Errno) -> UInt {
    var random: UInt32 = 0
    // ADDR_NO_RANDOMIZE (personality(2)): debuggers want a program where it was.
    let isFixed = process.personality & 0x4_0000 != 0
    if !isFixed { withUnsafeMutableBytes(of: &random) { host.fillRandom($0) } }
    return 0x5555_5555_4000 + UInt(random & 0xffff) << 12 - (header.span.low)
  }

  private static func map(_ header: ELFHeader, _ file: OpenFile, at base: UInt, in space: AddressSpace)
    throws(Errno)
  {
    for segment in header.segments {
      let start = (base &+ segment.address) & ~4095
      let fileEnd = base &+ segment.address &+ segment.fileSize
      let end = (base &+ segment.address &+ segment.memorySize + 4095) & ~4095
      let shownEnd = (fileEnd + 4095) & ~4095
      if segment.fileSize > 0 {
        try space.map(
          VirtualMemoryArea(
            start: start, end: shownEnd, protection: segment.protection, isShared: false, inode: file.inode,
            offset: segment.offset & ~4095, path: file.path, frames: nil))
        if segment.memorySize > segment.fileSize, segment.protection.contains(.write) {
          try UserSlice(fileEnd, Int(shownEnd - fileEnd)).clear(Int(shownEnd - fileEnd))
        }
      }
      let zeroStart = segment.fileSize > 0 ? shownEnd : start
      if end > zeroStart {
        try space.map(
          VirtualMemoryArea(
            start: zeroStart, end: end, protection: segment.protection, isShared: false, inode: nil,
            offset: 0,
            path: nil, frames: nil))
      }
    }
  }

  /// Maps the stack, with the arguments, environment and auxiliary vector (System V ABI, x86-64, 3.4.1) on it.
  private func makeStack(_ space: AddressSpace, _ process: Process, base: UInt, interpreterBase: UInt)
    throws(Errno)
    -> UInt
  {
    let limit = process.limits[ResourceLimit.stack].soft
    let size = UInt(min(max(limit, 256 << 10), 64 << 20)) & ~4095
    let top = UserSlice.limit - (16 << 20)
    try space.map(
      VirtualMemoryArea(
        start: top - size, end: top, protection: [.read, .write], isShared: false, inode: nil, offset: 0,
        path: nil,
        frames: nil, isStack: true))
    var stack = StackBuilder(top: top)
    let name = try stack.push(path + [0])
    let platform = try stack.push([0x78, 0x38, 0x36, 0x5f, 0x36, 0x34, 0])
    var random = [UInt8](repeating: 0, count: 16)
    random.withUnsafeMutableBytes { host.fillRandom($0) }
    let randomAddress = try stack.push(random)
    space.environmentEnd = stack.pointer
    var environmentAddresses: [UInt] = []
    for text in environment.reversed() { environmentAddresses.append(try stack.push(text + [0])) }
    space.environmentStart = stack.pointer
    space.argumentsEnd = stack.pointer
    var argumentAddresses: [UInt] = []
    for text in arguments.reversed() { argumentAddresses.append(try stack.push(text + [0])) }
    space.argumentsStart = stack.pointer
    var words: [UInt] = [UInt(arguments.count)]
    words += argumentAddresses.reversed()
    words.append(0)
    words += environmentAddresses.reversed()
    words.append(0)
    let owner = process.credentials
    let vectorStart = words.count
    space.environment = []
    for text in environment { space.environment += text + [0] }
    words += [
      3, base + programHeaders, 4, 56, 5, UInt(program.programHeaderCount), 6, 4096, 7, interpreterBase,
    ]
    words += [8, 0, 9, base &+ program.entry, 11, UInt(owner.realUser), 12, UInt(owner.effectiveUser)]
    words += [13, UInt(owner.realGroup), 14, UInt(owner.effectiveGroup), 17, 100, 25, randomAddress]
    let isSecure = owner.realUser != owner.effectiveUser || owner.realGroup != owner.effectiveGroup
    words += [23, isSecure ? 1 : 0]
    if !host.virtualSharedObject.isEmpty { words += [33, host.virtualSharedObject.lowerBound] }
    words += [31, name, 15, platform, 51, 4096 + UInt(machine_vector_state_size()), 0, 0]
    space.auxiliaryVector = Array(words[vectorStart...])
    return try stack.finish(words)
  }

  /// Where the program headers end up: in the segment that holds their file offset.
  private var programHeaders: UInt {
    for segment in program.segments
    where UInt(segment.offset) <= program.programHeaderOffset
      && program.programHeaderOffset < UInt(segment.offset) + segment.fileSize
    {
      return segment.address + (program.programHeaderOffset - UInt(segment.offset))
    }
    return program.programHeaderOffset
  }
}

/// Fills a new stack from the top down.
struct StackBuilder {
  var pointer: UInt

  init(top: UInt) { pointer = top - 16 }

  mutating func push(_ bytes: [UInt8]) throws(Errno) -> UInt {
    pointer -= UInt(bytes.count)
    try UserSlice(pointer, bytes.count).store(bytes)
    return pointer
  }

  mutating func finish(_ words: [UInt]) throws(Errno) -> UInt {
    pointer = (pointer - UInt(words.count * 8)) & ~15
    var at = pointer
    for word in words {
      try UserSlice.store(word, at: at)
      at += 8
    }
    return pointer
  }
}
