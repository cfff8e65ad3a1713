// The command line's address is never nil.
// swift-format-ignore-file: NeverForceUnwrap
import BootParameters
import CExokernel

/// Devices belong to the libOS: it sees their registers at a fixed place and sleeps on a word that their interrupts
/// count up. Exokernel lock held.
enum Devices {
  /// Physical address of the information page.
  nonisolated(unsafe) static var information: UInt64 = 0
  static var page: UnsafeMutablePointer<exokernel_information> {
    PhysicalMemory.pointer(information).assumingMemoryBound(to: exokernel_information.self)
  }

  /// A device interrupted.
  static func signal() {
    guard let word = LibOS.word(LibOS.entries.device_word) else { return }
    _ = machine_add(word, 1)
    _ = Parking.unpark(LibOS.entries.device_word, most: .max)
  }
}

/// Virtio devices on virtio-mmio (virtio 1.2, 4.2), which nothing lists but the hypervisor's command line: found at
/// start-up, when their registers become pages of the libOS.
enum MMIO {
  private static let window = UInt64(EXOKERNEL_DEVICE_ADDRESS)
  private static let most = 32

  /// Shows the transports that the command line names; without any those of QEMU's microvm, 24 of 512 bytes.
  static func find(_ commandLine: UInt64) {
    let page = Devices.page
    let length = Int(page.pointee.command_line_bytes)
    if commandLine != 0, length > 0 {
      let start = UnsafeRawPointer(bitPattern: UInt(PhysicalMemory.direct + commandLine))!
      var parameters = DeviceParameters(UnsafeRawBufferPointer(start: start, count: length))
      while let device = parameters.next() { add(device) }
    }
    guard page.pointee.transport_count == 0 else { return }
    LibOS.show(window, 0xfeb0_0000, 0x3000, flags: Entry.writable | Entry.noExecute | Entry.uncached)
    for i in 0..<UInt64(24) { note(window + i * 512) }
  }

  /// A page each: neighbours that share one are shown twice.
  private static func add(_ device: DeviceParameter) {
    let count = Devices.page.pointee.transport_count
    guard count < most, device.base & 3 == 0, device.base < 1 << 46, device.size >= 0x100,
      device.base & 4095 <= 4096 - 0x100
    else { return }
    let place = window + 0x10_0000 + count << 13
    let length: UInt64 = device.base & 4095 <= 4096 - 0x200 ? 4096 : 8192
    LibOS.show(
      place, device.base & ~4095, length, flags: Entry.writable | Entry.noExecute | Entry.uncached)
    note(place | device.base & 4095)
  }

  private static func note(_ address: UInt64) {
    let index = Int(Devices.page.pointee.transport_count)
    withUnsafeMutableBytes(of: &Devices.page.pointee.transports) {
      $0.storeBytes(of: address, toByteOffset: index * 8, as: UInt64.self)
    }
    Devices.page.pointee.transport_count += 1
  }
}
