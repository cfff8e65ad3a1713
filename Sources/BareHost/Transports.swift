import CBareHost
import Virtio

/// A device on virtio-mmio (virtio 1.2, 4.2.2), as QEMU's microvm and Firecracker have them.
final class MMIOTransport: VirtioTransport {
  private let base: UInt64

  let type: UInt32

  /// Nil when no device is behind the registers at `base`.
  init?(base: UInt64) {
    // "virt", version 2: the registers of virtio 1
    guard bare_load(base) == 0x7472_6976, bare_load(base + 4) == 2 else { return nil }
    self.base = base
    type = bare_load(base + 8)
  }

  override var status: UInt32 {
    get { bare_load(base + 0x70) }
    set { bare_store(base + 0x70, newValue) }
  }

  override var deviceFeatures: UInt64 {
    bare_store(base + 0x14, 1)
    let high = UInt64(bare_load(base + 0x10))
    bare_store(base + 0x14, 0)
    return high << 32 | UInt64(bare_load(base + 0x10))
  }

  override func driverFeatures(_ features: UInt64) {
    bare_store(base + 0x24, 1)
    bare_store(base + 0x20, UInt32(truncatingIfNeeded: features >> 32))
    bare_store(base + 0x24, 0)
    bare_store(base + 0x20, UInt32(truncatingIfNeeded: features))
  }

  override func queueCapacity(_ index: UInt32) -> Int {
    bare_store(base + 0x30, index)
    return Int(bare_load(base + 0x34))
  }

  override func enableQueue(
    _ index: UInt32, size: Int, descriptors: UInt64, available: UInt64, used: UInt64
  ) {
    bare_store(base + 0x30, index)
    bare_store(base + 0x38, UInt32(size))
    store64(base + 0x80, descriptors)
    store64(base + 0x90, available)
    store64(base + 0xa0, used)
    bare_store(base + 0x44, 1)
  }

  override func notify(_ index: UInt32) { bare_store(base + 0x50, index) }

  override func configuration(_ offset: UInt64) -> UInt32 { bare_load(base + 0x100 + offset) }
  override func setConfiguration(_ offset: UInt64, _ value: UInt32) {
    bare_store(base + 0x100 + offset, value)
  }
  override var generation: UInt32 { bare_load(base + 0xfc) }

  override func acknowledge() {
    let pending = bare_load(base + 0x60)
    if pending != 0 { bare_store(base + 0x64, pending) }
  }
}

/// A device on virtio-pci (virtio 1.2, 4.1), as QEMU's q35 has them. The exokernel has found it and bound its
/// interrupt.
final class PCITransport: VirtioTransport {
  private let common: UInt64
  private let notifications: UInt64
  private let multiplier: UInt64

  private let device: UInt64

  init(_ function: exokernel_function) {
    common = function.common
    notifications = function.notify
    multiplier = function.notify_multiplier
    device = function.device
  }

  override var status: UInt32 {
    get { UInt32(bare_load8(common + 0x14)) }
    set { bare_store8(common + 0x14, UInt8(truncatingIfNeeded: newValue)) }
  }

  override var deviceFeatures: UInt64 {
    bare_store(common, 1)
    let high = UInt64(bare_load(common + 4))
    bare_store(common, 0)
    return high << 32 | UInt64(bare_load(common + 4))
  }

  override func driverFeatures(_ features: UInt64) {
    bare_store16(common + 0x10, 0)  // MSI-X vector of changes of the configuration
    bare_store(common + 8, 1)
    bare_store(common + 12, UInt32(truncatingIfNeeded: features >> 32))
    bare_store(common + 8, 0)
    bare_store(common + 12, UInt32(truncatingIfNeeded: features))
  }

  override func queueCapacity(_ index: UInt32) -> Int {
    bare_store16(common + 0x16, UInt16(index))
    return Int(bare_load16(common + 0x18))
  }

  override func enableQueue(
    _ index: UInt32, size: Int, descriptors: UInt64, available: UInt64, used: UInt64
  ) {
    bare_store16(common + 0x16, UInt16(index))
    bare_store16(common + 0x18, UInt16(size))
    bare_store16(common + 0x1a, 0)  // MSI-X vector
    store64(common + 0x20, descriptors)
    store64(common + 0x28, available)
    store64(common + 0x30, used)
    bare_store16(common + 0x1c, 1)
  }

  override func notify(_ index: UInt32) {
    bare_store16(common + 0x16, UInt16(index))
    let offset = UInt64(bare_load16(common + 0x1e))
    bare_store16(notifications + offset * multiplier, UInt16(index))
  }
  override func configuration(_ offset: UInt64) -> UInt32 { device == 0 ? 0 : bare_load(device + offset) }
  override func setConfiguration(_ offset: UInt64, _ value: UInt32) {
    if device != 0 { bare_store(device + offset, value) }
  }
  override var generation: UInt32 { UInt32(bare_load8(common + 0x15)) }
}

/// The virtio devices of the machine.
struct DeviceList {
  private let information: UnsafePointer<exokernel_information>

  init(_ information: UnsafePointer<exokernel_information>) { self.information = information }

  /// Calls `body` with the transport of each device of `type`, in the order of their addresses.
  func forEach(_ type: UInt32, _ body: (VirtioTransport) -> Void) {
    withUnsafeBytes(of: information.pointee.transports) { addresses in
      for i in 0..<Int(min(information.pointee.transport_count, 32)) {
        let base = addresses.load(fromByteOffset: i * 8, as: UInt64.self)
        if let transport = MMIOTransport(base: base), transport.type == type { body(transport) }
      }
    }
    withUnsafeBytes(of: information.pointee.functions) { functions in
      for i in 0..<Int(min(information.pointee.function_count, 24)) {
        let function = functions.load(
          fromByteOffset: i * MemoryLayout<exokernel_function>.stride, as: exokernel_function.self)
        if function.type == UInt64(type) { body(PCITransport(function)) }
      }
    }
  }

  func first(_ type: UInt32) -> VirtioTransport? {
    var found: VirtioTransport?
    forEach(type) { if found == nil { found = $0 } }
    return found
  }
}

/// A register of 64 bits, as two of 32: virtio 1.2, 4.1.3.1 and 4.2.2.
private func store64(_ address: UInt64, _ value: UInt64) {
  bare_store(address, UInt32(truncatingIfNeeded: value))
  bare_store(address + 4, UInt32(truncatingIfNeeded: value >> 32))
}
