// Processor records come from the frame allocator, never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CExokernel

/// The machine's processors: their tables, and how they start.
enum Processors {
  static let maximum = 16
  nonisolated(unsafe) static var count = 0
  nonisolated(unsafe) private static var pages: [16 of UInt64] = .init(repeating: 0)
  nonisolated(unsafe) private static var vectors: UInt64 = 0
  nonisolated(unsafe) private static var arrived: UInt32 = 0
  /// XCR0: x87, SSE, AVX, AVX-512 as far as the processor has them. The area has 3 KiB.
  nonisolated(unsafe) static var vectorFeatures: UInt64 = 3

  static func at(_ index: Int) -> UnsafeMutablePointer<exokernel_processor> {
    PhysicalMemory.pointer(pages[index]).assumingMemoryBound(to: exokernel_processor.self)
  }

  /// Whether one of the other processors is as asked for.
  @inline(__always)
  static func others(
    _ own: UnsafeMutablePointer<exokernel_processor>,
    contain isMeant: (UnsafeMutablePointer<exokernel_processor>) -> Bool
  ) -> Bool {
    for i in 0..<count where at(i) != own && isMeant(at(i)) { return true }
    return false
  }

  /// Adds a processor: record, descriptors at 1 KiB, task segment at 2 KiB, and a stack.
  private static func add() -> UnsafeMutablePointer<exokernel_processor> {
    let page = PhysicalMemory.takeRun(1)
    let stack = PhysicalMemory.takeRun(4)
    let faultStack = PhysicalMemory.takeRun(1)
    pages[count] = page
    let processor = at(count)
    processor.pointee.own = processor
    processor.pointee.index = UInt32(count)
    processor.pointee.queue = PhysicalMemory.pointer(PhysicalMemory.takeRun(RunQueue.frames))
      .assumingMemoryBound(to: ThreadPointer?.self)
    processor.pointee.armed_deadline = .max
    processor.pointee.call_at = .max
    processor.pointee.stack_top = PhysicalMemory.direct + stack + 4 * 4096
    processor.pointee.task_segment = PhysicalMemory.direct + page + 2048
    count += 1
    let segment = processor.pointee.task_segment
    let descriptors = PhysicalMemory.words(page + 1024)
    descriptors[1] = 0x0020_9a00_0000_0000  // 0x08 ring 0 code
    descriptors[2] = 0x0000_9200_0000_0000  // 0x10 ring 0 data
    descriptors[5] = 0x0000_f200_0000_0000  // 0x28 ring 3 data, as Linux numbers it
    descriptors[6] = 0x0020_fa00_0000_0000  // 0x30 ring 3 code
    descriptors[7] =
      0x67 | (segment & 0xff_ffff) << 16 | 0x89 << 40 | (segment >> 24 & 0xff) << 56
    descriptors[8] = segment >> 32
    // Interrupt stack 1: double faults. No I/O permission map (its offset lies beyond the limit).
    store(segment + 36, PhysicalMemory.direct + faultStack + 4096)
    store(segment + 100, 0x68 << 16)
    return processor
  }

  /// The task segment's fields are 4-byte aligned.
  private static func store(_ address: UInt64, _ value: UInt64) {
    device_store(address, UInt32(truncatingIfNeeded: value))
    device_store(address + 4, UInt32(truncatingIfNeeded: value >> 32))
  }

  /// The calling processor uses `table`, of `space`, from now on.
  static func show(
    _ space: UInt64, _ table: UInt64, on processor: UnsafeMutablePointer<exokernel_processor>
  ) {
    guard processor.pointee.table != table else { return }
    processor.pointee.space = space
    processor.pointee.table = table
    cpu_write_cr3(table)
  }

  static func setEntryStack(_ processor: UnsafeMutablePointer<exokernel_processor>, _ address: UInt64) {
    store(processor.pointee.task_segment + 4, address)
  }

  private static func makeVectors() {
    vectors = PhysicalMemory.takeRun(1)
    let table = PhysicalMemory.words(vectors)
    for vector in 0..<256 {
      let address = address_of_exokernel_vectors() + UInt64(vector) * 16
      // Ring 3 may raise #BP and #OF itself, and an old system call, nothing else.
      let level: UInt64 = vector == 3 || vector == 4 || vector == Traps.oldCall ? 3 : 0
      let stack: UInt64 = vector == 8 ? 1 : 0
      table[2 * vector] =
        address & 0xffff | 8 << 16 | stack << 32 | (0x8e | level << 5) << 40
        | (address >> 16 & 0xffff) << 48
      table[2 * vector + 1] = address >> 32
    }
  }

  /// Makes the calling processor the first one.
  static func prepareFirst() {
    makeVectors()
    enter(add())
  }

  /// The calling processor gets its tables and features.
  private static func enter(_ processor: UnsafeMutablePointer<exokernel_processor>) {
    let page = UInt64(UInt(bitPattern: processor))
    show(LibOS.top, LibOS.top, on: processor)
    exokernel_load_tables(page + 1024, 9 * 8 - 1, PhysicalMemory.direct + vectors)
    cpu_write_msr(0xc000_0101, page)  // GS
    cpu_write_msr(0xc000_0102, 0)
    cpu_write_msr(0xc000_0081, 0x0020_0008 << 32)  // STAR
    cpu_write_msr(0xc000_0082, address_of_exokernel_system_call_entry())
    cpu_write_msr(0xc000_0084, 0x4_7700)  // flags cleared on entry: TF, IF, DF, IOPL, NT, AC
    prepareFeatures()
    LocalAPIC.prepare()
    processor.pointee.apic_identifier = LocalAPIC.identifier
  }

  /// QEMU without KVM reads the stack of ring 3's `iretq` as ring 0 would, which SMAP then refuses.
  static var isEmulated: Bool {
    var leaf: [4 of UInt32] = .init(repeating: 0)
    identify(0x4000_0000, &leaf)
    return leaf[1] == 0x5447_4354  // "TCGT"
  }

  private static func prepareFeatures() {
    var leaf: [4 of UInt32] = .init(repeating: 0)
    identify(1, &leaf)
    guard leaf[2] & 1 << 26 != 0 else { panic("the processor has no XSAVE") }
    identify(7, &leaf)
    guard leaf[1] & 1 != 0 else { panic("the processor has no FSGSBASE (QEMU: -cpu max)") }
    // PGE, OSFXSR, OSXMMEXCPT, FSGSBASE, OSXSAVE; SMEP, SMAP and UMIP where they exist
    var features: UInt64 = 0x80 | 0x200 | 0x400 | 1 << 16 | 1 << 18
    if leaf[1] & 1 << 7 != 0 { features |= 1 << 20 }
    if leaf[1] & 1 << 20 != 0, !isEmulated { features |= 1 << 21 }
    if leaf[2] & 1 << 2 != 0 { features |= 1 << 11 }
    cpu_write_cr4(cpu_read_cr4() | features)
    // MP, NE, WP; not EM, TS, CD, NW
    cpu_write_cr0((cpu_read_cr0() | 0x1_0022) & ~0x6000_000c)
    identify(0xd, &leaf)
    vectorFeatures = UInt64(leaf[0]) & 0xe7
    if vectorFeatures & 0xe0 != 0xe0 { vectorFeatures &= 7 }
    cpu_write_xcr0(vectorFeatures)
  }

  /// Starts the other processors, as many as the machine says it has (QEMU's fw_cfg, key 5).
  static func startOthers() {
    let wanted = min(configured(), maximum)
    guard wanted > 1 else { return }
    let start = UnsafeRawPointer(bitPattern: UInt(address_of_exokernel_trampoline()))!
    let length = Int(address_of_exokernel_trampoline_end() - address_of_exokernel_trampoline())
    memcpyToPage(0x8000, start, length)
    // One at a time: they share the trampoline's stack.
    for index in 1..<wanted {
      let processor = add()
      exokernel_set_trampoline(processor.pointee.stack_top, UInt64(UInt(bitPattern: processor)))
      machine_store(&arrived, 0)
      LocalAPIC.start(index, page: 8)
      let deadline = Clock.now + 200_000_000
      while machine_load(&arrived) == 0, Clock.now < deadline { machine_pause() }
      if machine_load(&arrived) == 0 {
        count -= 1
        return
      }
    }
  }

  private static func memcpyToPage(_ physical: UInt64, _ source: UnsafeRawPointer, _ length: Int) {
    PhysicalMemory.pointer(physical).copyMemory(from: source, byteCount: length)
  }

  private static func configured() -> Int {
    func read(_ key: UInt16, _ bytes: Int) -> UInt64 {
      cpu_out16(0x510, key)
      var value: UInt64 = 0
      for i in 0..<bytes { value |= UInt64(cpu_in8(0x511)) << UInt64(8 * i) }
      return value
    }
    guard read(0, 4) == 0x554d_4551 else { return 1 }  // "QEMU"
    return Int(read(5, 2))
  }

  /// A processor that started: joins the others.
  static func join(_ processor: UnsafeMutablePointer<exokernel_processor>) -> Never {
    enter(processor)
    machine_store(&arrived, 1)
    Lock.acquire()
    let thread = Scheduler.choose()
    Isolation.leave(thread)
    Lock.release()
    exokernel_run(thread)
  }
}

@c(exokernel_processor_main)
public func exokernelProcessorMain(_ processor: UnsafeMutablePointer<exokernel_processor>) {
  Processors.join(processor)
}
