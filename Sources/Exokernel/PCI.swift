import CExokernel

/// Virtio functions on PCI (virtio 1.2, 4.1): found at start-up, when their registers become pages of the libOS and
/// their interrupts ours. The firmware has given them addresses.
enum PCI {
  private static let window: UInt64 = 0x2d00_2000_0000
  /// Functions that the information page has room for.
  private static let most = 24

  private static func read(_ function: UInt32, _ offset: UInt32) -> UInt32 {
    cpu_out32(0xcf8, 0x8000_0000 | function << 8 | offset & 0xfc)
    return cpu_in32(0xcfc)
  }

  private static func write(_ function: UInt32, _ offset: UInt32, _ value: UInt32) {
    cpu_out32(0xcf8, 0x8000_0000 | function << 8 | offset & 0xfc)
    cpu_out32(0xcfc, value)
  }

  private static func byte(_ function: UInt32, _ offset: UInt32) -> UInt32 {
    read(function, offset) >> ((offset & 3) * 8) & 0xff
  }

  /// Lists the virtio functions of bus 0 in the information page.
  static func find() {
    cpu_out32(0xcf8, 0x8000_0000)
    guard cpu_in32(0xcf8) == 0x8000_0000 else { return }
    for device in 0..<UInt32(32) {
      let last: UInt32 = byte(device << 3, 0x0e) & 0x80 != 0 ? 8 : 1
      for number in 0..<last { look(device << 3 | number) }
    }
  }

  private static func look(_ function: UInt32) {
    let identity = read(function, 0)
    let count = Int(Devices.page.pointee.function_count)
    guard identity & 0xffff == 0x1af4, count < most else { return }
    let number = UInt64(identity >> 16)
    // Transitional devices say their type as the subsystem.
    let type = number >= 0x1040 ? number - 0x1040 : UInt64(read(function, 0x2c) >> 16)
    var entry = exokernel_function(type: type, common: 0, notify: 0, device: 0, notify_multiplier: 0)
    // Memory and bus master, no INTx
    write(function, 4, read(function, 4) & 0xffff | 0x406)
    let base = window + UInt64(count) << 21
    var interrupt: UInt32 = 0
    var at = byte(function, 0x34)
    var steps = 0
    while at >= 0x40, steps < 48 {
      steps += 1
      switch byte(function, at) {
      case 0x11: interrupt = at
      case 0x09: register(function, at, base, &entry)
      default: break
      }
      at = byte(function, at + 1)
    }
    guard entry.common != 0, entry.notify != 0 else { return }
    // Without MSI-X nobody is interrupted: the driver looks by itself.
    if interrupt != 0 { enableInterrupt(function, interrupt) }
    withUnsafeMutableBytes(of: &Devices.page.pointee.functions) {
      $0.storeBytes(
        of: entry, toByteOffset: count * MemoryLayout<exokernel_function>.stride, as: exokernel_function.self)
    }
    Devices.page.pointee.function_count += 1
  }

  /// A virtio_pci_cap: shows its registers to ring 3 and notes where.
  private static func register(
    _ function: UInt32, _ at: UInt32, _ base: UInt64, _ entry: inout exokernel_function
  ) {
    let kind = byte(function, at + 3)
    guard kind == 1 || kind == 2 || kind == 4 else { return }
    let bar = byte(function, at + 4)
    let offset = UInt64(read(function, at + 8))
    let length = UInt64(read(function, at + 12))
    guard bar < 6, length > 0, length <= 0x4_0000 else { return }
    let physical = address(function, bar) + offset
    let place = base + UInt64(kind - 1) << 19
    LibOS.show(
      place, physical & ~4095, (physical & 4095) + length,
      flags: Entry.writable | Entry.noExecute | Entry.uncached)
    switch kind {
    case 1: entry.common = place | physical & 4095
    case 2:
      entry.notify = place | physical & 4095
      entry.notify_multiplier = UInt64(read(function, at + 16))
    default: entry.device = place | physical & 4095
    }
  }

  private static func address(_ function: UInt32, _ bar: UInt32) -> UInt64 {
    let low = read(function, 0x10 + bar * 4)
    let high = low & 6 == 4 ? UInt64(read(function, 0x14 + bar * 4)) : 0
    return high << 32 | UInt64(low & ~15)
  }

  /// MSI-X with every queue on entry 0, which interrupts processor 0 (PCI 3.0, 6.8.2).
  private static func enableInterrupt(_ function: UInt32, _ at: UInt32) {
    let table = read(function, at + 4)
    let physical = address(function, table & 7) + UInt64(table & ~7)
    // The table is ring 0's alone: mapped here only.
    let place = LibOS.range.upperBound
    guard let slot = PageTable.page(LibOS.top, place) else { panic("no memory for the devices' tables") }
    slot.pointee = Entry(
      physical & ~4095 | Entry.present | Entry.writable | Entry.uncached | Entry.noExecute)
    cpu_flush_page(place)
    let first = place + (physical & 4095)
    device_store(first, 0xfee0_0000 | Processors.at(0).pointee.apic_identifier << 12)
    device_store(first + 4, 0)
    device_store(first + 8, UInt32(LocalAPIC.deviceVector))
    device_store(first + 12, 0)
    slot.pointee = Entry(0)
    cpu_flush_page(place)
    write(function, at, read(function, at) & ~0x4000_0000 | 0x8000_0000)
  }
}
