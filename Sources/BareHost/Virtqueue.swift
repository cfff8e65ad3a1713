// Pages of queues come from the arena, never nil.
// swift-format-ignore-file: NeverForceUnwrap
import ABI
import CBareHost
import CMachine
import Tasks

/// A page of the arena that a device may use.
struct DevicePage {
  let address: UInt
  let physical: UInt64

  init() throws(Errno) {
    let offset = try frames.allocate(1)
    address = frames.base + offset
    physical = UInt64(try ExokernelCall.check(ExokernelCall.raw(EXOKERNEL_BIND, Int(offset), 4096)))
  }

  var bytes: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: UnsafeMutableRawPointer(bitPattern: address), count: 4096)
  }
}

/// A split virtqueue (virtio 1.2, 2.7) whose descriptor `i` always names page `i`. Kernel lock held.
///
/// What the device writes is checked: an index out of range ends the queue, not the libOS.
final class Virtqueue {
  let size: Int
  private let transport: VirtioTransport
  private let index: UInt32
  private let descriptors: UnsafeMutableRawPointer
  private let rings: UnsafeMutableRawPointer  // available at 0, used at 1024
  private(set) var pages: [DevicePage] = []
  private var free: [UInt16] = []
  private var nextAvailable: UInt16 = 0
  private var nextUsed: UInt16 = 0
  private(set) var isBroken = false

  private static let usedOffset = 1024
  private static let write: UInt16 = 2  // VIRTQ_DESC_F_WRITE: for the device to write
  private static let next: UInt16 = 1

  /// Nil when the device has no such queue.
  init?(_ transport: VirtioTransport, _ index: UInt32, atMost: Int) throws(Errno) {
    size = min(transport.queueCapacity(index), atMost, 256)
    guard size > 0 else { return nil }
    self.transport = transport
    self.index = index
    let table = try DevicePage()
    let ring = try DevicePage()
    descriptors = UnsafeMutableRawPointer(bitPattern: table.address)!
    rings = UnsafeMutableRawPointer(bitPattern: ring.address)!
    for i in 0..<size {
      pages.append(try DevicePage())
      free.append(UInt16(i))
    }
    transport.enableQueue(
      index, size: size, descriptors: table.physical, available: ring.physical,
      used: ring.physical + UInt64(Virtqueue.usedOffset))
  }

  var freeCount: Int { free.count }

  /// Takes a page to fill.
  func take() -> UInt16? { free.popLast() }

  func giveBack(_ page: UInt16) { free.append(page) }

  /// Offers a chain of pages, `lengths` bytes each of which the device reads, or writes.
  func offer(_ chain: [(page: UInt16, length: Int)], isWrite: Bool) {
    for i in chain.indices {
      let entry = descriptors + Int(chain[i].page) * 16
      let isLast = i + 1 == chain.count
      entry.storeBytes(of: pages[Int(chain[i].page)].physical, as: UInt64.self)
      entry.storeBytes(of: UInt32(chain[i].length), toByteOffset: 8, as: UInt32.self)
      entry.storeBytes(
        of: (isWrite ? Virtqueue.write : 0) | (isLast ? 0 : Virtqueue.next), toByteOffset: 12,
        as: UInt16.self)
      entry.storeBytes(of: isLast ? 0 : chain[i + 1].page, toByteOffset: 14, as: UInt16.self)
    }
    rings.storeBytes(of: chain[0].page, toByteOffset: 4 + Int(nextAvailable) % size * 2, as: UInt16.self)
    nextAvailable &+= 1
    bare_fence()
    rings.storeBytes(of: nextAvailable, toByteOffset: 2, as: UInt16.self)
    bare_fence()
  }

  /// Tells the device of what was offered, unless it said that it looks by itself (VIRTQ_USED_F_NO_NOTIFY).
  func notify() {
    if load16(Virtqueue.usedOffset) & 1 == 0 { transport.notify(index) }
  }

  var hasUsed: Bool { !isBroken && load16(Virtqueue.usedOffset + 2) != nextUsed }

  /// The next chain that the device has done with: its first page, and the bytes written.
  func nextDone() -> (page: UInt16, length: Int)? {
    guard hasUsed else { return nil }
    bare_fence()
    let at = Virtqueue.usedOffset + 4 + Int(nextUsed) % size * 8
    let page = rings.load(fromByteOffset: at, as: UInt32.self)
    let length = rings.load(fromByteOffset: at + 4, as: UInt32.self)
    nextUsed &+= 1
    guard page < UInt32(size) else {
      isBroken = true
      return nil
    }
    return (UInt16(page), Int(min(length, 4096)))
  }

  /// The pages of a chain that was read by the device are free again.
  func reclaim() {
    while let done = nextDone() {
      var page = done.page
      for _ in 0..<size {
        let entry = descriptors + Int(page) * 16
        let flags = entry.load(fromByteOffset: 12, as: UInt16.self)
        free.append(page)
        guard flags & Virtqueue.next != 0 else { break }
        page = entry.load(fromByteOffset: 14, as: UInt16.self)
        guard page < UInt16(size) else { break }
      }
    }
  }

  private func load16(_ offset: Int) -> UInt16 {
    UInt16(truncatingIfNeeded: bare_load16(UInt64(UInt(bitPattern: rings)) + UInt64(offset)))
  }
}
