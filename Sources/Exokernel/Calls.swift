import CExokernel

/// The exokernel's calls (exokernel_calls.h says what each may be given). Everything is checked here: a wrong argument
/// is an error of the caller, never a fault of ring 0.
enum Calls {
  static let invalid: Int64 = -22
  static let noMemory: Int64 = -12
  static let again: Int64 = -11
  static let notFound: Int64 = -3
  static let missing: Int64 = -38

  static func dispatch(_ thread: ThreadPointer) {
    let registers = thread.pointee.registers
    let (a, b, c, d) = (registers.rdi, registers.rsi, registers.rdx, registers.r10)
    let space = thread.pointee.space
    let result: Int64
    switch Int(truncatingIfNeeded: registers.rax) {
    case EXOKERNEL_MAP: result = map(space, a, b, c, d)
    case EXOKERNEL_UNMAP: result = unmap(space, a, b)
    case EXOKERNEL_PROTECT: result = protect(space, a, b, c)
    case EXOKERNEL_MOVE: result = move(space, a, b, c)
    case EXOKERNEL_DISCARD: result = discard(space, a, b)
    case EXOKERNEL_RELEASE: result = release(a, b)
    case EXOKERNEL_START_THREAD: result = start(thread, block: a, isProcess: false, entry: b)
    case EXOKERNEL_START_PROCESS: result = start(thread, block: a, isProcess: true, entry: 0)
    case EXOKERNEL_END_THREAD: result = end(thread, a)
    case EXOKERNEL_PARK: result = park(thread, a, b, c)
    case EXOKERNEL_UNPARK: result = unpark(a, b)
    case EXOKERNEL_KICK: result = kick(a)
    case EXOKERNEL_ADOPT: result = adopt(thread, a)
    case EXOKERNEL_YIELD:
      Scheduler.yield(thread)
      result = 0
    case EXOKERNEL_SCHEDULE: result = schedule(a, b, c, d)
    case EXOKERNEL_WRITE_CONSOLE: result = writeConsole(a, b, c)
    case EXOKERNEL_READ_CONSOLE: result = readConsole(a, b)
    case EXOKERNEL_BIND: result = bind(a, b)
    case EXOKERNEL_LEAVE: return leave(thread)
    case EXOKERNEL_ISOLATE:
      result = Isolation.begin(a) ? 0 : invalid
    case EXOKERNEL_TIME: result = time(a, b)
    case EXOKERNEL_MEMORY: result = memory(a)
    case EXOKERNEL_SURRENDER: result = exchange(a, b, PhysicalMemory.surrender)
    case EXOKERNEL_TAKE_BACK: result = exchange(a, b, PhysicalMemory.takeBack)
    case EXOKERNEL_GUARD: result = guardPage(a)
    case EXOKERNEL_EXIT: PowerOff.end(status: UInt8(truncatingIfNeeded: a))
    default: result = missing
    }
    // A thread that has ended has no registers any more.
    if thread.pointee.state != UInt32(THREAD_FREE) {
      thread.pointee.registers.rax = UInt64(bitPattern: result)
    }
  }

  // MARK: Memory

  /// A page-aligned range of the program's part of the address space.
  private static func isRange(_ start: UInt64, _ length: UInt64) -> Bool {
    guard (start | length) & 4095 == 0, length > 0, length <= AddressSpace.limit,
      start >= AddressSpace.lowest, start <= AddressSpace.limit - length
    else { return false }
    return start + length <= LibOS.range.lowerBound || start >= LibOS.range.upperBound
  }

  private static func isArenaRange(_ offset: UInt64, _ length: UInt64) -> Bool {
    (offset | length) & 4095 == 0 && length > 0 && length <= LibOS.arenaBytes
      && offset <= LibOS.arenaBytes - length
  }

  private static func finish(_ space: UInt64, _ succeeded: Bool) -> Int64 {
    Flush.flush(space)
    return succeeded ? 0 : noMemory
  }

  private static func map(
    _ space: UInt64, _ start: UInt64, _ length: UInt64, _ what: UInt64, _ offset: UInt64
  )
    -> Int64
  {
    let kind = what >> 8
    guard isRange(start, length), what & 0xf0 == 0, kind >= Entry.anonymous,
      kind <= Entry.copyOnWrite || kind == Entry.image,
      kind == Entry.anonymous || (offset & 4095 == 0 && offset <= AddressSpace.limit)
    else { return invalid }
    let place = kind == Entry.anonymous ? 0 : offset
    return finish(
      space,
      AddressSpace.set(space, start, start + length, kind: kind, protection: what & 15, offset: place))
  }

  private static func unmap(_ space: UInt64, _ start: UInt64, _ length: UInt64) -> Int64 {
    guard isRange(start, length) else { return invalid }
    return finish(
      space, AddressSpace.set(space, start, start + length, kind: Entry.none, protection: 0, offset: 0))
  }

  private static func protect(_ space: UInt64, _ start: UInt64, _ length: UInt64, _ protection: UInt64)
    -> Int64
  {
    guard isRange(start, length), protection & ~15 == 0 else { return invalid }
    return finish(space, AddressSpace.protect(space, start, start + length, protection))
  }

  private static func move(_ space: UInt64, _ from: UInt64, _ length: UInt64, _ to: UInt64) -> Int64 {
    guard isRange(from, length), isRange(to, length), from + length <= to || to + length <= from else {
      return invalid
    }
    return finish(space, AddressSpace.move(space, from: from, length: length, to: to))
  }

  private static func discard(_ space: UInt64, _ start: UInt64, _ length: UInt64) -> Int64 {
    guard isRange(start, length) else { return invalid }
    AddressSpace.discard(space, start, start + length)
    return finish(space, true)
  }

  private static func release(_ offset: UInt64, _ length: UInt64) -> Int64 {
    guard isArenaRange(offset, length) else { return invalid }
    LibOS.release(offset, length)
    return finish(0, true)
  }

  private static func guardPage(_ offset: UInt64) -> Int64 {
    guard isArenaRange(offset, 4096) else { return invalid }
    return finish(0, LibOS.guardPage(offset))
  }

  /// Pins a page of the arena for good: a device may write to it.
  private static func bind(_ offset: UInt64, _ length: UInt64) -> Int64 {
    guard isArenaRange(offset, length), length == 4096 else { return invalid }
    let frame = LibOS.arenaFrame(offset)
    guard frame != 0 else { return noMemory }
    PhysicalMemory.retain(frame)
    return Int64(frame)
  }

  /// Frames go to or come from whoever the machine runs on: their numbers fill the page.
  private static func exchange(_ offset: UInt64, _ most: UInt64, _ next: () -> UInt64) -> Int64 {
    guard isArenaRange(offset, 4096) else { return invalid }
    let page = LibOS.arenaFrame(offset)
    guard page != 0 else { return noMemory }
    let numbers = PhysicalMemory.pointer(page).assumingMemoryBound(to: UInt32.self)
    var count = 0
    while count < min(most, 1024) {
      let frame = next()
      if frame == 0 { break }
      numbers[count] = UInt32(truncatingIfNeeded: frame >> 12)
      count += 1
    }
    return Int64(count)
  }

  // MARK: Threads

  private static func start(_ thread: ThreadPointer, block: UInt64, isProcess: Bool, entry: UInt64) -> Int64 {
    guard let pointee = LibOS.block(block), entry == 0 || LibOS.isCode(entry) else { return invalid }
    var space = thread.pointee.space
    if isProcess {
      space = AddressSpace.copy(space)
      Flush.flush(thread.pointee.space)
      guard space != 0 else { return noMemory }
    } else {
      PhysicalMemory.retain(space)
    }
    guard let made = Threads.make(block: block, space: space) else {
      AddressSpace.release(space)
      return noMemory
    }
    // The libOS leaves vector registers alone: what is in them now is the program's.
    Scheduler.save(thread)
    let area = Threads.vectorOffset
    (UnsafeMutableRawPointer(made) + area).copyMemory(
      from: UnsafeRawPointer(thread) + area, byteCount: 4096 - area)
    made.pointee.fs_base = pointee.pointee.fs_base != 0 ? pointee.pointee.fs_base : thread.pointee.fs_base
    if !isCanonical(made.pointee.fs_base) { made.pointee.fs_base = 0 }
    Scheduler.account(thread, Clock.now)
    made.pointee.processor = thread.pointee.processor
    made.pointee.key = thread.pointee.key
    made.pointee.rank = thread.pointee.rank
    made.pointee.weight = thread.pointee.weight
    made.pointee.is_round_robin = thread.pointee.is_round_robin
    if entry != 0 {
      // A thread of the libOS itself, on its libOS stack; a return address would lie at rsp.
      made.pointee.registers.rip = entry
      made.pointee.registers.rsp = (UInt64(UInt(bitPattern: pointee.pointee.frame)) & ~15) &- 72
    }
    pointee.pointee.host_thread = UInt64(made.pointee.identifier)
    Scheduler.ready(made)
    return Int64(made.pointee.identifier)
  }

  static func isCanonical(_ address: UInt64) -> Bool { address >> 47 == 0 || address >> 47 == 0x1_ffff }

  private static func end(_ thread: ThreadPointer, _ word: UInt64) -> Int64 {
    guard let place = LibOS.word(word) else { return invalid }
    Threads.end(thread)
    machine_store(place, 0)
    return 0
  }

  private static func park(_ thread: ThreadPointer, _ word: UInt64, _ expected: UInt64, _ deadline: UInt64)
    -> Int64
  {
    guard let place = LibOS.word(word) else { return invalid }
    guard machine_load(place) == UInt32(truncatingIfNeeded: expected) else { return again }
    if deadline != .max, deadline <= Clock.now { return 0 }
    Parking.park(thread, word, deadline: deadline)
    return 0
  }

  private static func unpark(_ word: UInt64, _ most: UInt64) -> Int64 {
    guard word & 3 == 0 else { return invalid }
    return Int64(Parking.unpark(word, most: most))
  }

  private static func kick(_ identifier: UInt64) -> Int64 {
    guard let thread = Threads.find(UInt32(truncatingIfNeeded: identifier)) else { return notFound }
    if thread.pointee.state == UInt32(THREAD_RUNNING) {
      thread.pointee.is_kicked = 1
      let processor = Processors.at(Int(thread.pointee.processor))
      LocalAPIC.interrupt(processor.pointee.apic_identifier, vector: LocalAPIC.kickVector)
    } else {
      Traps.kicked(thread)
    }
    return 0
  }

  private static func adopt(_ thread: ThreadPointer, _ block: UInt64) -> Int64 {
    guard let pointee = LibOS.block(block) else { return invalid }
    thread.pointee.block = block
    pointee.pointee.host_thread = UInt64(thread.pointee.identifier)
    cpu_write_msr(0xc000_0102, block)
    return 0
  }

  /// The program goes on with the registers in its block's frame, unless something waits for the libOS.
  private static func leave(_ thread: ThreadPointer) {
    guard Isolation.mode == .paging, let block = LibOS.block(thread.pointee.block) else {
      thread.pointee.registers.rax = UInt64(bitPattern: invalid)
      return
    }
    let address = UInt64(UInt(bitPattern: block.pointee.frame))
    let place = address & 15 == 0 && address >= LibOS.arena ? LibOS.writable(address) : 0
    guard block.pointee.attention == 0, place != 0,
      place & 4095 <= 4096 - UInt64(MemoryLayout<trap_frame>.size)
    else { return }
    let from = PhysicalMemory.pointer(place).assumingMemoryBound(to: trap_frame.self).pointee
    // TF, and the arithmetic flags; interrupts stay on, the rest is not for programs.
    let flags = from.kind == 0 ? 0x202 : from.rflags & 0x240dd5 | 0x202
    thread.pointee.registers = exokernel_registers(
      r15: from.r15, r14: from.r14, r13: from.r13, r12: from.r12, rbp: from.rbp, rbx: from.rbx, r10: from.r10,
      r9: from.r9, r8: from.r8, rdx: from.rdx, rsi: from.rsi, rdi: from.rdi, rax: from.rax,
      rcx: from.kind == 0 ? from.rip : from.rcx, r11: from.kind == 0 ? 0x202 : from.r11, vector: 0, error: 0,
      rip: isCanonical(from.rip) ? from.rip : 0, cs: 0x33, rflags: flags, rsp: from.rsp, ss: 0x2b)
    thread.pointee.is_program = 1
  }

  private static func time(_ identifier: UInt64, _ whole: UInt64) -> Int64 {
    guard let thread = Threads.find(UInt32(truncatingIfNeeded: identifier)) else { return notFound }
    let now = Clock.now
    var running: UInt64 = 0
    for i in 0..<Processors.count {
      guard let other = Processors.at(i).pointee.thread, other.pointee.state == UInt32(THREAD_RUNNING),
        other == thread || whole != 0 && other.pointee.space == thread.pointee.space
      else { continue }
      running += now > other.pointee.run_start ? now - other.pointee.run_start : 0
    }
    let used = whole != 0 ? AddressSpace.used(thread.pointee.space) : thread.pointee.used
    return Int64(truncatingIfNeeded: used &+ running)
  }

  private static func memory(_ identifier: UInt64) -> Int64 {
    guard let thread = Threads.find(UInt32(truncatingIfNeeded: identifier)) else { return notFound }
    return Int64(AddressSpace.frames(thread.pointee.space))
  }

  private static func schedule(
    _ identifier: UInt64, _ policy: UInt64, _ priority: UInt64, _ niceness: UInt64
  ) -> Int64 {
    guard let thread = Threads.find(UInt32(truncatingIfNeeded: identifier)) else { return notFound }
    let isRealTime = policy == 1 || policy == 2
    guard policy <= 6, niceness < 40, isRealTime ? (1...100).contains(priority) : priority == 0 else {
      return invalid
    }
    Scheduler.change(thread, policy: policy, priority: priority, niceness: Int(niceness) - 20)
    return 0
  }

  // MARK: Console

  private static func writeConsole(_ stream: UInt64, _ address: UInt64, _ length: UInt64) -> Int64 {
    guard stream == 1 || stream == 2 else { return invalid }
    let count = min(length, 4096 - address & 4095)
    let place = LibOS.readable(address)
    guard place != 0 else { return invalid }
    Console.write(stream, PhysicalMemory.pointer(place), Int(count))
    return Int64(count)
  }

  private static func readConsole(_ address: UInt64, _ length: UInt64) -> Int64 {
    let place = LibOS.writable(address)
    guard place != 0 else { return invalid }
    let count = min(length, 4096 - address & 4095)
    var done: UInt64 = 0
    while done < count, let byte = Console.read() {
      PhysicalMemory.pointer(place + done).storeBytes(of: byte, as: UInt8.self)
      done += 1
    }
    return done > 0 ? Int64(done) : again
  }
}
