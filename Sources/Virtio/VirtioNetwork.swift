import ABI
import Tasks

/// A virtio network device (virtio 1.2, 5.1) with one pair of queues. Kernel lock held for every call.
public final class VirtioNetwork {
  private let queues: QueuePair
  private var receive: PageQueue { queues.receive }
  private var transmit: PageQueue { queues.transmit }
  /// virtio_net_hdr with num_buffers.
  private static let header = 12

  /// `pollDevices` looks here without the kernel lock: references must not be counted.
  public func keepForEver() {
    neverCount(self)
    queues.keepForEver()
  }

  public init?(_ transport: VirtioTransport, _ platform: any DevicePlatform) {
    // CSUM, GUEST_CSUM, HOST_TSO4, HOST_TSO6, MRG_RXBUF
    let offloads: UInt64 = 1 << 0 | 1 << 11 | 1 << 12
    let wanted: UInt64 = offloads | 1 << 1 | 1 << 15
    guard let features = transport.negotiate(wanted), features & 1 << 15 != 0,
      let pair = QueuePair(transport, receives: 256, transmits: 256, platform)
    else { return nil }
    queues = pair
    completesFrames = features & offloads == offloads
  }

  /// The device adds checksums up and cuts TCP frames of both kinds of IP.
  public let completesFrames: Bool

  public var hasInput: Bool { receive.hasUsed }

  public func acknowledge() { queues.transport.acknowledge() }

  /// One frame behind a `virtio_net_hdr` of ten bytes; EAGAIN with none.
  public func read(_ bytes: UnsafeMutableRawBufferPointer) -> Int {
    guard let first = receive.nextDone() else { return -11 }
    let page = receive.pages[Int(first.page)].bytes
    let buffers = Int(page.loadUnaligned(fromByteOffset: 10, as: UInt16.self))
    var count = 0
    func append(_ source: UnsafeMutableRawBufferPointer, _ from: Int, _ to: Int) {
      guard from < to, count + to - from <= bytes.count else { return }
      UnsafeMutableRawBufferPointer(rebasing: bytes[count..<count + to - from])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: source[from..<to]))
      count += to - from
    }
    append(page, 0, min(10, first.length))
    append(page, VirtioNetwork.header, first.length)
    receive.offer(first.page)
    if buffers > 1 {
      for _ in 1..<buffers {
        guard let next = receive.nextDone() else { break }
        append(receive.pages[Int(next.page)].bytes, 0, next.length)
        receive.offer(next.page)
      }
    }
    if !receive.hasUsed { receive.notify() }
    return count
  }

  /// Sends one frame; `header` is a `virtio_net_hdr` of ten bytes. EAGAIN when the queue is full.
  public func write(header: UnsafeRawBufferPointer, _ bytes: UnsafeRawBufferPointer) -> Int {
    transmit.reclaim()
    let total = VirtioNetwork.header + bytes.count
    guard header.count == 10, transmit.freeCount * 4096 >= total else { return -11 }
    var chain: [(page: UInt16, length: Int)] = []
    var done = 0
    while done < bytes.count || chain.isEmpty {
      guard let page = transmit.take() else { return -11 }
      let target = transmit.pages[Int(page)].bytes
      var start = 0
      if chain.isEmpty {
        target.copyMemory(from: header)
        target.storeBytes(of: 0, toByteOffset: 10, as: UInt16.self)
        start = VirtioNetwork.header
      }
      let count = min(4096 - start, bytes.count - done)
      UnsafeMutableRawBufferPointer(rebasing: target[start..<start + count])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[done..<done + count]))
      done += count
      chain.append((page, start + count))
    }
    transmit.offer(chain, isForDevice: true)
    transmit.notify()
    return header.count + bytes.count
  }
}
