import CBareHost

/// A virtio device's registers, however it is attached (virtio 1.2, chapter 4). Kernel lock held (or start-up).
class VirtioTransport {
  /// Offers our features and takes those that both have; nil when the device refuses. Bits 0...63.
  final func negotiate(_ wanted: UInt64) -> UInt64? {
    status = 0
    status = 1  // ACKNOWLEDGE
    status = 3  // DRIVER
    let version1: UInt64 = 1 << 32
    let offered = deviceFeatures
    guard offered & version1 != 0 else { return nil }
    let accepted = offered & (wanted | version1)
    driverFeatures(accepted)
    status = 11  // FEATURES_OK
    return status & 8 != 0 ? accepted : nil
  }

  final func start() { status = 15 }  // DRIVER_OK

  var status: UInt32 {
    get { 0 }
    set {}
  }
  var deviceFeatures: UInt64 { 0 }
  func driverFeatures(_ features: UInt64) {}
  /// The most entries that queue `index` takes; 0 without such a queue.
  func queueCapacity(_ index: UInt32) -> Int { 0 }
  func enableQueue(_ index: UInt32, size: Int, descriptors: UInt64, available: UInt64, used: UInt64) {}
  func notify(_ index: UInt32) {}
  /// Takes the device's interrupt back, so that the next one comes.
  func acknowledge() {}
}

/// A device on virtio-mmio (virtio 1.2, 4.2.2), as QEMU's microvm and Firecracker have them.
final class MMIOTransport: VirtioTransport {
  private let base: UInt64

  private init(base: UInt64) { self.base = base }

  /// The first transport that has a device of `type`.
  static func find(_ type: UInt32, transports: Int) -> MMIOTransport? {
    for i in 0..<transports {
      let base = UInt64(EXOKERNEL_DEVICE_ADDRESS) + UInt64(i) * 512
      // "virt", version 2: the registers of virtio 1
      if bare_load(base) == 0x7472_6976, bare_load(base + 4) == 2, bare_load(base + 8) == type {
        return MMIOTransport(base: base)
      }
    }
    return nil
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
    store64(0x80, descriptors)
    store64(0x90, available)
    store64(0xa0, used)
    bare_store(base + 0x44, 1)
  }

  private func store64(_ offset: UInt64, _ value: UInt64) {
    bare_store(base + offset, UInt32(truncatingIfNeeded: value))
    bare_store(base + offset + 4, UInt32(truncatingIfNeeded: value >> 32))
  }

  override func notify(_ index: UInt32) { bare_store(base + 0x50, index) }

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

  private init(_ function: exokernel_function) {
    common = function.common
    notifications = function.notify
    multiplier = function.notify_multiplier
  }

  static func find(_ type: UInt32, _ information: UnsafePointer<exokernel_information>) -> PCITransport? {
    let count = Int(min(information.pointee.function_count, 8))
    return withUnsafeBytes(of: information.pointee.functions) { bytes -> PCITransport? in
      for i in 0..<count {
        let function = bytes.load(
          fromByteOffset: i * MemoryLayout<exokernel_function>.stride, as: exokernel_function.self)
        if function.type == type { return PCITransport(function) }
      }
      return nil
    }
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
    store64(0x20, descriptors)
    store64(0x28, available)
    store64(0x30, used)
    bare_store16(common + 0x1c, 1)
  }

  private func store64(_ offset: UInt64, _ value: UInt64) {
    bare_store(common + offset, UInt32(truncatingIfNeeded: value))
    bare_store(common + offset + 4, UInt32(truncatingIfNeeded: value >> 32))
  }

  override func notify(_ index: UInt32) {
    bare_store16(common + 0x16, UInt16(index))
    let offset = UInt64(bare_load16(common + 0x1e))
    bare_store16(notifications + offset * multiplier, UInt16(index))
  }
}
