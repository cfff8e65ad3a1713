/// A virtio device's registers, however it is attached (virtio 1.2, chapter 4). Kernel lock held (or start-up).
open class VirtioTransport {
  public init() {}

  /// Offers our features and takes those that both have; nil when the device refuses. Bits 0...63.
  public final func negotiate(_ wanted: UInt64) -> UInt64? {
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

  public final func start() { status = 15 }  // DRIVER_OK

  /// Eight bytes of the device's configuration that change together (virtio 1.2, 2.5.1).
  public final func configuration64(_ offset: UInt64) -> UInt64 {
    for _ in 0..<100 {
      let before = generation
      let value = UInt64(configuration(offset)) | UInt64(configuration(offset + 4)) << 32
      if generation == before { return value }
    }
    return 0
  }

  open var status: UInt32 {
    get { 0 }
    set {}
  }
  open var deviceFeatures: UInt64 { 0 }
  open func driverFeatures(_ features: UInt64) {}
  /// The most entries that queue `index` takes; 0 without such a queue.
  open func queueCapacity(_ index: UInt32) -> Int { 0 }
  open func enableQueue(_ index: UInt32, size: Int, descriptors: UInt64, available: UInt64, used: UInt64) {}
  open func notify(_ index: UInt32) {}
  /// Takes the device's interrupt back, so that the next one comes.
  open func acknowledge() {}
  /// Four bytes of the device's configuration.
  open func configuration(_ offset: UInt64) -> UInt32 { 0 }
  open func setConfiguration(_ offset: UInt64, _ value: UInt32) {}
  /// Changes with the configuration.
  open var generation: UInt32 { 0 }
}
