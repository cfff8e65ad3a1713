// Addresses here come from the hypervisor or the linker and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CExokernel

/// The image as the hypervisor put it into memory: its ELF header lies at `Boot.image`, with the program headers that
/// say where the rest is. It was checked when it was built, and it is ours: what is wrong ends the machine.
enum LibOSImage {
  private struct Segment {
    var kind: UInt32
    var flags: UInt32
    var offset: UInt64
    var virtual: UInt64
    var physical: UInt64
    var fileBytes: UInt64
    var bytes: UInt64
  }

  private static var header: UnsafeRawPointer {
    UnsafeRawPointer(bitPattern: UInt(PhysicalMemory.direct + Boot.image))!
  }

  private static var count: Int { Int(header.load(fromByteOffset: 56, as: UInt16.self)) }

  private static func segment(_ index: Int) -> Segment {
    let at = header + header.load(fromByteOffset: 32, as: Int.self) + index * 56
    return Segment(
      kind: at.load(as: UInt32.self), flags: at.load(fromByteOffset: 4, as: UInt32.self),
      offset: at.load(fromByteOffset: 8, as: UInt64.self),
      virtual: at.load(fromByteOffset: 16, as: UInt64.self),
      physical: at.load(fromByteOffset: 24, as: UInt64.self),
      fileBytes: at.load(fromByteOffset: 32, as: UInt64.self),
      bytes: at.load(fromByteOffset: 40, as: UInt64.self))
  }

  /// Keeps the image's memory out of the free frames.
  static func reserve() {
    guard header.load(as: UInt32.self) == 0x464c_457f, count < 32 else { panic("no image at 2 MiB") }
    for i in 0..<count where segment(i).kind == 1 {
      PhysicalMemory.reserve(segment(i).physical, segment(i).physical + segment(i).bytes)
    }
  }

  /// Maps the libOS, its archive, the launch record, devices' pages and the information page, and the arena's top.
  static func load(commandLine: UInt64) {
    for i in 0..<count {
      let segment = segment(i)
      if segment.kind == 1, segment.virtual >> 40 == 0x10 { mapLibOS(segment) }
      if segment.kind == 1, segment.virtual >> 40 == 0x2f {
        Boot.archive = (segment.physical, segment.fileBytes, segment.offset)
      }
      if segment.kind == 4 { readNotes(segment) }
    }
    guard LibOS.entries.start != 0 else { panic("the image has no note for the exokernel") }
    retainArchive()
    makeInformation(commandLine)
    LibOS.show(0x2f00_0000_0000, Boot.archive.start, Boot.archive.length, flags: Entry.noExecute)
    LibOS.show(0x2e10_0000_0000, Boot.record.start, Boot.record.length, flags: Entry.noExecute)
    MMIO.find(commandLine)
    _ = PageTable.page(LibOS.top, LibOS.arena)
    PCI.find()
  }

  /// The frame of the archive that holds byte `offset` of the image file; 0 outside.
  static func frame(_ offset: UInt64) -> UInt64 {
    let inside = offset &- Boot.archive.fileOffset
    return offset >= Boot.archive.fileOffset && inside < Boot.archive.length ? Boot.archive.start + inside : 0
  }

  /// The archive's own reference to its frames: programs that write get copies.
  private static func retainArchive() {
    var at: UInt64 = 0
    while at < Boot.archive.length {
      PhysicalMemory.retain(Boot.archive.start + at)
      at += 4096
    }
  }

  private static func mapLibOS(_ segment: Segment) {
    let start = segment.virtual & ~4095
    let end = (segment.virtual + segment.bytes + 4095) & ~4095
    var flags: UInt64 = segment.flags & 2 != 0 ? Entry.writable : 0
    if segment.flags & 1 == 0 { flags |= Entry.noExecute }
    LibOS.show(start, segment.physical & ~4095, end - start, flags: flags)
    LibOS.imageEnd = max(LibOS.imageEnd, end)
    if segment.flags & 2 != 0 {
      LibOS.dataStart = start
      LibOS.dataEnd = end
    }
  }

  /// Note "Swiftlet", type 1: the address of the entries in the libOS.
  private static func readNotes(_ segment: Segment) {
    var at = PhysicalMemory.direct + segment.physical
    let end = at + segment.fileBytes
    while at + 12 <= end {
      let words = UnsafePointer<UInt32>(bitPattern: UInt(at))!
      let name = (UInt64(words[0]) + 3) & ~3
      if words[0] == 9, words[2] == 1, words[3] == 0x6669_7753 {
        let address = UnsafeRawPointer(bitPattern: UInt(at + 12 + name))!.loadUnaligned(as: UInt64.self)
        let place = LibOS.readable(address)
        guard place != 0 else { panic("the note for the exokernel names no address of the libOS") }
        LibOS.entries = PhysicalMemory.pointer(place).load(as: exokernel_entries.self)
      }
      at += 12 + name + (UInt64(words[1]) + 3) & ~3
    }
  }

  private static func makeInformation(_ commandLine: UInt64) {
    Devices.information = PhysicalMemory.takeRun(1)
    let page = Devices.page
    page.pointee.archive_bytes = Boot.archive.length
    page.pointee.archive_file_offset = Boot.archive.fileOffset
    page.pointee.record_bytes = Boot.record.length
    page.pointee.time_stamp_base = Clock.base
    page.pointee.multiplier = Clock.multiplier
    page.pointee.realtime_base = Clock.realtimeBase
    page.pointee.has_keys = Isolation.hasKeys ? 1 : 0
    page.pointee.is_emulated = Processors.isEmulated ? 1 : 0
    if commandLine != 0 {
      let text = UnsafePointer<UInt8>(bitPattern: UInt(PhysicalMemory.direct + commandLine))!
      var length = 0
      while length < 1023, text[length] != 0 { length += 1 }
      page.pointee.command_line_bytes = UInt64(length)
      withUnsafeMutableBytes(of: &page.pointee.command_line) {
        $0.copyMemory(from: UnsafeRawBufferPointer(start: text, count: length))
      }
    }
    LibOS.show(0x2e00_0000_0000, Devices.information, 4096, flags: Entry.noExecute)
  }

  /// The arena is as large as what is left: it takes frames as it is touched.
  static func arenaComplete() {
    LibOS.arenaBytes = PhysicalMemory.left << 12
    Devices.page.pointee.arena_bytes = LibOS.arenaBytes
    Devices.page.pointee.free_frames = PhysicalMemory.left
  }

  /// The first thread of ring 3, in a space of its own. It has no block yet.
  static func firstThread() -> ThreadPointer {
    let space = AddressSpace.make()
    guard space != 0, let thread = Threads.make(block: 0, space: space) else {
      panic("no memory for the first thread")
    }
    thread.pointee.registers.rip = LibOS.entries.start
    thread.pointee.registers.rsp = LibOS.entries.stack_top
    return thread
  }
}
