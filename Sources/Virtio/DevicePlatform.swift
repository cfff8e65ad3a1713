public import ABI

/// A page of memory that a device may use.
public struct DevicePage {
  public let address: UInt
  /// Where the device finds it.
  public let physical: UInt64

  public init(address: UInt, physical: UInt64) {
    self.address = address
    self.physical = physical
  }

  public var bytes: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: UnsafeMutableRawPointer(bitPattern: address), count: 4096)
  }
}

/// What drivers need of the host that they are part of.
public protocol DevicePlatform: AnyObject {
  /// A page for good. ENOMEM.
  func makePage() throws(Errno) -> DevicePage
  /// Counts the interrupts of all devices.
  var interrupts: UInt32 { get }
  /// Sleeps until `interrupts` is not `seen` any more; may return early, or after a while all the same.
  func waitForInterrupt(after seen: UInt32)
}
