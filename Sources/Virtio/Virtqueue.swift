// Pages have addresses, never nil.
// swift-format-ignore-file: NeverForceUnwrap
import ABI
import CMachine

/// A split virtqueue (virtio 1.2, 2.7). Kernel lock held.
///
/// What the device writes is checked, and nothing that it could have written is used as our own memory: a chain that
/// was not offered ends the queue, not the libOS.
public final class Virtqueue {
  public let size: Int
  private let transport: VirtioTransport
  private let index: UInt32
  private let descriptors: UnsafeMutableRawPointer
  private let rings: UnsafeMutableRawPointer  // available at 0, used at 1024
  private var nextAvailable: UInt16 = 0
  private var nextUsed: UInt16 = 0
  /// By its first descriptor: whether a chain is with the device.
  private var isOffered: [Bool]
  /// The device broke the rules: nothing that it says counts any more.
  public private(set) var isBroken = false

  private static let usedOffset = 1024
  private static let next: UInt16 = 1
  private static let write: UInt16 = 2  // VIRTQ_DESC_F_WRITE: for the device to write

  /// A part of a chain: memory that the device reads, or writes.
  struct Part {
    var descriptor: UInt16
    var physical: UInt64
    var length: Int
    var isForDevice: Bool
  }

  /// Nil when the device has no such queue.
  init?(_ transport: VirtioTransport, _ index: UInt32, atMost: Int, _ platform: any DevicePlatform)
    throws(Errno)
  {
    let most = min(transport.queueCapacity(index), atMost, 256)
    guard most > 0 else { return nil }
    // A power of two
    size = 1 << (Int.bitWidth - 1 - most.leadingZeroBitCount)
    self.transport = transport
    self.index = index
    let table = try platform.makePage()
    let ring = try platform.makePage()
    descriptors = UnsafeMutableRawPointer(bitPattern: table.address)!
    rings = UnsafeMutableRawPointer(bitPattern: ring.address)!
    isOffered = [Bool](repeating: false, count: size)
    transport.enableQueue(
      index, size: size, descriptors: table.physical, available: ring.physical,
      used: ring.physical + UInt64(Virtqueue.usedOffset))
  }

  /// Describes a part of a chain; `next` is the descriptor of the part that follows it.
  func describe(_ part: Part, next: UInt16?) {
    let entry = descriptors + Int(part.descriptor) * 16
    entry.storeBytes(of: part.physical, as: UInt64.self)
    entry.storeBytes(of: UInt32(part.length), toByteOffset: 8, as: UInt32.self)
    entry.storeBytes(
      of: (part.isForDevice ? 0 : Virtqueue.write) | (next == nil ? 0 : Virtqueue.next), toByteOffset: 12,
      as: UInt16.self)
    entry.storeBytes(of: next ?? 0, toByteOffset: 14, as: UInt16.self)
  }

  /// Offers the chain that begins with `first`; `notify` tells the device.
  func offer(_ first: UInt16) {
    isOffered[Int(first)] = true
    rings.storeBytes(of: first, toByteOffset: 4 + Int(nextAvailable) % size * 2, as: UInt16.self)
    nextAvailable &+= 1
    machine_fence()
    rings.storeBytes(of: nextAvailable, toByteOffset: 2, as: UInt16.self)
    machine_fence()
  }

  /// Tells the device of what was offered, unless it said that it looks by itself (VIRTQ_USED_F_NO_NOTIFY).
  func notify() {
    if load16(Virtqueue.usedOffset) & 1 == 0 { transport.notify(index) }
  }

  /// The device is to interrupt for no chain of this queue (VIRTQ_AVAIL_F_NO_INTERRUPT): it is looked at anyway.
  func silence() { rings.storeBytes(of: 1, as: UInt16.self) }

  /// May be asked without the kernel lock.
  var hasUsed: Bool { !isBroken && load16(Virtqueue.usedOffset + 2) != nextUsed }

  /// The next chain that the device has done with: its first descriptor, and the bytes written.
  func nextDone() -> (first: UInt16, length: Int)? {
    guard hasUsed else { return nil }
    machine_fence()
    let at = Virtqueue.usedOffset + 4 + Int(nextUsed) % size * 8
    let first = rings.load(fromByteOffset: at, as: UInt32.self)
    let length = rings.load(fromByteOffset: at + 4, as: UInt32.self)
    nextUsed &+= 1
    guard first < UInt32(size), isOffered[Int(first)] else {
      isBroken = true
      return nil
    }
    isOffered[Int(first)] = false
    return (UInt16(first), Int(length))
  }

  private func load16(_ offset: Int) -> UInt16 {
    machine_load_device16(UnsafeRawPointer(rings + offset).assumingMemoryBound(to: UInt16.self))
  }
}
