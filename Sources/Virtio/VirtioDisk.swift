// Pages have addresses, never nil.
// swift-format-ignore-file: NeverForceUnwrap
public import ABI
import Tasks

/// A virtio block device (virtio 1.2, 5.2), driven a call at a time; a call has as many requests with the device at once
/// as there are slots. Data goes through pages of our own, so that no device ever holds an address of anything else.
/// Kernel lock held for every call.
public final class VirtioDisk {
  /// Bytes.
  public let size: UInt64
  public let isReadOnly: Bool
  public let discards: Bool
  private let transport: VirtioTransport
  private let queue: Virtqueue
  private let platform: any DevicePlatform
  private let flushes: Bool
  private let pagesPerSlot: Int
  private let mostDiscarded: UInt64
  /// The device's view of slot `i`: a request's header at `32 * i`, its status at `32 * i + 16`.
  private let headers: DevicePage
  private var pages: [DevicePage] = []
  private var freeSlots: [Int] = []

  private enum Kind {
    static let read: UInt32 = 0
    static let write: UInt32 = 1
    static let flush: UInt32 = 4
    static let discard: UInt32 = 11
  }
  private enum Feature {
    static let segmentMaximum: UInt64 = 1 << 2
    static let readOnly: UInt64 = 1 << 5
    static let flush: UInt64 = 1 << 9
    static let discard: UInt64 = 1 << 13
  }
  private static let mostPagesPerSlot = 30
  private static let mostSlots = 128

  /// Takes about `pageCount` pages for data. Nil when the device cannot be used or memory is short.
  public init?(_ transport: VirtioTransport, pageCount: Int, _ platform: any DevicePlatform) {
    let wanted = Feature.segmentMaximum | Feature.readOnly | Feature.flush | Feature.discard
    guard let features = transport.negotiate(wanted) else { return nil }
    let sectors = transport.configuration64(0)
    guard sectors > 0, sectors < 1 << 52 else { return nil }
    size = sectors << 9
    isReadOnly = features & Feature.readOnly != 0
    flushes = features & Feature.flush != 0
    discards = features & Feature.discard != 0
    // Without the feature a request may have one segment only.
    let segments = features & Feature.segmentMaximum != 0 ? Int(transport.configuration(12)) : 1
    mostDiscarded = discards ? UInt64(transport.configuration(36)) << 9 : 0
    self.transport = transport
    self.platform = platform
    do throws(Errno) {
      guard let queue = try Virtqueue(transport, 0, atMost: 256, platform), queue.size >= 4 else {
        return nil
      }
      self.queue = queue
      pagesPerSlot = max(1, min(segments, VirtioDisk.mostPagesPerSlot, queue.size - 2, pageCount))
      headers = try platform.makePage()
      let slots = min(queue.size / (pagesPerSlot + 2), max(1, pageCount / pagesPerSlot), VirtioDisk.mostSlots)
      for slot in 0..<slots {
        freeSlots.append(slot)
        for _ in 0..<pagesPerSlot { pages.append(try platform.makePage()) }
      }
    } catch { return nil }
    transport.start()
  }

  /// Fills `bytes`; EIO.
  public func read(_ bytes: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(Errno) {
    try transfer(Kind.read, offset, bytes)
  }

  public func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(Errno) {
    // Only read from: the requests of writing copy out of it.
    try transfer(Kind.write, offset, UnsafeMutableRawBufferPointer(mutating: bytes))
  }

  /// Returns when every write before it is durable. A device without the feature writes through.
  public func flush() throws(Errno) {
    if flushes { try run(Kind.flush, sector: 0, UnsafeMutableRawBufferPointer(start: nil, count: 0)) }
  }

  /// Says that nobody needs the contents any more: they may read as anything. EOPNOTSUPP.
  public func discard(at offset: UInt64, count: UInt64) throws(Errno) {
    guard discards, mostDiscarded > 0 else { throw .notSupported }
    guard (offset | count) & 511 == 0, offset <= size, count <= size - offset else { throw .inputOutput }
    var done: UInt64 = 0
    while done < count {
      let length = min(count - done, mostDiscarded)
      // struct virtio_blk_discard_write_zeroes
      var range: (UInt64, UInt32, UInt32) = ((offset + done) >> 9, UInt32(length >> 9), 0)
      try withUnsafeMutableBytes(of: &range) { (bytes) throws(Errno) in
        try run(Kind.discard, sector: 0, UnsafeMutableRawBufferPointer(rebasing: bytes[..<16]))
      }
      done += length
    }
  }

  // MARK: Requests

  /// What a slot's request is about: so many bytes of the caller's from `start` on.
  private struct Request {
    var start: Int
    var length: Int
  }

  private func transfer(_ kind: UInt32, _ offset: UInt64, _ bytes: UnsafeMutableRawBufferPointer)
    throws(Errno)
  {
    let count = UInt64(bytes.count)
    guard (offset | count) & 511 == 0, offset <= size, count <= size - offset else { throw .inputOutput }
    if count > 0 { try run(kind, sector: offset >> 9, bytes) }
  }

  /// Has the device do it all: requests are offered while there are slots, and waited for together.
  private func run(_ kind: UInt32, sector: UInt64, _ bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
    var requests = [Request](repeating: Request(start: 0, length: 0), count: pages.count / pagesPerSlot)
    var offered = 0
    var inFlight = 0
    var isComplete = false
    var failed = queue.isBroken
    while !failed && !isComplete || inFlight > 0 {
      while !failed, !isComplete, let slot = freeSlots.popLast() {
        let length = min(bytes.count - offered, pagesPerSlot << 12)
        requests[slot] = Request(start: offered, length: length)
        let part = UnsafeMutableRawBufferPointer(rebasing: bytes[offered..<offered + length])
        offer(slot, kind, sector + UInt64(offered >> 9), part)
        offered += length
        inFlight += 1
        isComplete = offered == bytes.count
      }
      queue.notify()
      let seen = platform.interrupts
      transport.acknowledge()
      var progress = false
      while let slot = nextDone() {
        progress = true
        inFlight -= 1
        if status(slot) != 0 { failed = true }
        if kind == Kind.read, !failed { copyOut(slot, requests[slot], bytes) }
        freeSlots.append(slot)
      }
      if queue.isBroken {
        // Its requests may still write to their pages: those are never used for anything else.
        transport.status = 0
        throw .inputOutput
      }
      if !progress, inFlight > 0 { platform.waitForInterrupt(after: seen) }
    }
    if failed { throw .inputOutput }
  }

  private func nextDone() -> Int? { queue.nextDone().map { Int($0.first) / (pagesPerSlot + 2) } }

  private func status(_ slot: Int) -> UInt8 { headers.bytes[32 * slot + 16] }

  private func offer(_ slot: Int, _ kind: UInt32, _ sector: UInt64, _ bytes: UnsafeMutableRawBufferPointer) {
    let header = headers.bytes.baseAddress! + 32 * slot
    header.storeBytes(of: kind, as: UInt32.self)
    header.storeBytes(of: 0, toByteOffset: 4, as: UInt32.self)
    header.storeBytes(of: sector, toByteOffset: 8, as: UInt64.self)
    header.storeBytes(of: 0xff, toByteOffset: 16, as: UInt8.self)
    let first = UInt16(slot * (pagesPerSlot + 2))
    let count = (bytes.count + 4095) >> 12
    queue.describe(
      Virtqueue.Part(
        descriptor: first, physical: headers.physical + UInt64(32 * slot), length: 16, isForDevice: true),
      next: first + 1)
    for i in 0..<count {
      let page = pages[slot * pagesPerSlot + i]
      let length = min(4096, bytes.count - i << 12)
      if kind != Kind.read {
        page.bytes.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[i << 12..<i << 12 + length]))
      }
      queue.describe(
        Virtqueue.Part(
          descriptor: first + 1 + UInt16(i), physical: page.physical, length: length,
          isForDevice: kind != Kind.read), next: first + 2 + UInt16(i))
    }
    queue.describe(
      Virtqueue.Part(
        descriptor: first + 1 + UInt16(count), physical: headers.physical + UInt64(32 * slot + 16), length: 1,
        isForDevice: false), next: nil)
    queue.offer(first)
  }

  private func copyOut(_ slot: Int, _ request: Request, _ bytes: UnsafeMutableRawBufferPointer) {
    var done = 0
    while done < request.length {
      let length = min(4096, request.length - done)
      let page = pages[slot * pagesPerSlot + done >> 12]
      let start = request.start + done
      UnsafeMutableRawBufferPointer(rebasing: bytes[start..<start + length])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: page.bytes[..<length]))
      done += length
    }
  }
}
