// Addresses here come from the hypervisor or the linker and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CExokernel

/// What PVH hands over (Xen's `hvm_start_info`, docs/misc/pvh), read while the first GiB is still mapped at the top.
private struct StartInformation {
  private let base: UInt64

  init(_ address: UInt64) { base = PhysicalMemory.direct + address }

  private func word(_ offset: UInt64) -> UInt64 {
    UnsafePointer<UInt64>(bitPattern: UInt(base + offset))!.pointee
  }
  var isValid: Bool { UInt32(truncatingIfNeeded: word(0)) == 0x336e_c578 }
  var moduleCount: UInt64 { word(8) >> 32 }
  var modules: UInt64 { word(16) }
  var commandLine: UInt64 { word(24) }
  var memoryMap: UInt64 { word(40) }
  var memoryMapCount: UInt64 { word(48) & 0xffff_ffff }
}

/// From the first instruction of Swift to the first of ring 3.
enum Boot {
  /// Where the exokernel's own code and data lie.
  static let low: UInt64 = 0xffff_ffff_8000_0000
  /// The exokernel's own memory ends here; the image's ELF header lies here.
  static let image: UInt64 = 0x20_0000

  nonisolated(unsafe) static var archive: (start: UInt64, length: UInt64, fileOffset: UInt64) = (0, 0, 0)
  nonisolated(unsafe) static var record: (start: UInt64, length: UInt64) = (0, 0)

  fileprivate static func findMemory(_ start: StartInformation) {
    guard start.isValid, start.memoryMapCount > 0 else { panic("no PVH memory map") }
    for i in 0..<start.memoryMapCount {
      let entry = UnsafePointer<UInt64>(bitPattern: UInt(PhysicalMemory.direct + start.memoryMap + i * 24))!
      // Type 1 is memory. Nothing is taken from below 2 MiB.
      if entry[2] & 0xffff_ffff == 1 { PhysicalMemory.add(max(entry[0], image), entry[0] + entry[1]) }
    }
    if start.moduleCount > 0 {
      let module = UnsafePointer<UInt64>(bitPattern: UInt(PhysicalMemory.direct + start.modules))!
      record = (module[0], module[1])
      PhysicalMemory.reserve(record.start, record.start + record.length)
    }
    LibOSImage.reserve()
  }

  /// The template of top tables: all memory at `direct`, the exokernel's code and data, each as it may be used.
  static func makeTables() {
    LibOS.top = PhysicalMemory.takeRun(1)
    let end = PhysicalMemory.top
    var at: UInt64 = 0
    while at < end || at < 1 << 32 {
      // Beyond memory only the pages of devices below 4 GiB, uncached.
      if at < end { mapLarge(at, 0) } else if at >= 0xfe00_0000 { mapLarge(at, Entry.uncached) }
      at += 0x20_0000
    }
    mapOwn(address_of_exokernel_text_start(), address_of_exokernel_text_end(), 0)
    mapOwn(address_of_exokernel_rodata_start(), address_of_exokernel_rodata_end(), Entry.noExecute)
    mapOwn(address_of_exokernel_data_start(), address_of_exokernel_end(), Entry.noExecute | Entry.writable)
  }

  private static func mapLarge(_ address: UInt64, _ flags: UInt64) {
    var table = LibOS.top
    for step in 0..<2 { table = below(table, 4 - step, PhysicalMemory.direct + address) }
    PageTable.slot(table, 2, PhysicalMemory.direct + address).pointee = Entry(
      address | Entry.present | Entry.writable | Entry.large | Entry.noExecute | flags)
  }

  private static func below(_ table: UInt64, _ level: Int, _ address: UInt64) -> UInt64 {
    let slot = PageTable.slot(table, level, address)
    if !slot.pointee.isPresent { slot.pointee = Entry(PhysicalMemory.takeRun(1) | 3) }
    return slot.pointee.address
  }

  private static func mapOwn(_ start: UInt64, _ end: UInt64, _ flags: UInt64) {
    var at = start
    while at < end {
      var table = LibOS.top
      for step in 0..<3 { table = below(table, 4 - step, at) }
      PageTable.slot(table, 1, at).pointee = Entry((at - low) | Entry.present | flags)
      at += 4096
    }
  }
}

@c(exokernel_main)
public func exokernelMain(_ startInformation: UInt64) {
  Console.prepare()
  Boot.showDirect()
  let start = StartInformation(startInformation)
  Boot.findMemory(start)
  PhysicalMemory.begin()
  Boot.makeTables()
  Flush.waiting = PhysicalMemory.takeRun(1)
  LocalAPIC.silenceOldControllers()
  Processors.prepareFirst()
  Clock.prepare()
  Threads.prepare()
  LibOSImage.load(commandLine: start.isValid ? start.commandLine : 0)
  LocalAPIC.openPins(0xfec0_0000)
  LocalAPIC.openPins(0xfec1_0000)
  Processors.startOthers()
  Devices.page.pointee.processors = UInt64(Processors.count)
  LibOSImage.arenaComplete()
  Lock.acquire()
  let thread = LibOSImage.firstThread()
  Scheduler.ready(thread)
  let first = Scheduler.choose()
  Lock.release()
  exokernel_run(first)
}

extension Boot {
  /// Until the tables are made, the boot table shows the first GiB at `direct` too.
  static func showDirect() {
    let table = UnsafeMutablePointer<UInt64>(bitPattern: UInt(address_of_exokernel_boot_table()))!
    table[256] = table[0]
    cpu_write_cr3(address_of_exokernel_boot_table() - low)
  }
}
