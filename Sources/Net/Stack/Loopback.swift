/// One packet on its way from the stack to itself.
struct LoopbackPacket {
  let storage: UnsafeMutableRawPointer
  let capacity: Int
  let length: Int
  var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: storage, count: length) }
}

/// Packets to own addresses, in order. Buffers are kept for reuse; over the byte limit packets are dropped.
struct LoopbackQueue {
  private var packets = Queue<LoopbackPacket>()
  private var small: [UnsafeMutableRawPointer] = []
  private var large: [UnsafeMutableRawPointer] = []
  private var queuedBytes = 0

  private static let smallSize = 2048
  // An IPv6 header and the largest payload.
  private static let largeSize = 65536 + 64
  private static let limit = 32 << 20
  private static let spares = 64

  var isEmpty: Bool { packets.isEmpty }

  mutating func append(_ bytes: UnsafeRawBufferPointer) {
    guard let source = bytes.baseAddress, bytes.count <= Self.largeSize else { return }
    let capacity = bytes.count <= Self.smallSize ? Self.smallSize : Self.largeSize
    guard queuedBytes + capacity <= Self.limit else { return }
    let spare = capacity == Self.smallSize ? small.popLast() : large.popLast()
    let storage = spare ?? UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 16)
    storage.copyMemory(from: source, byteCount: bytes.count)
    queuedBytes += capacity
    packets.append(LoopbackPacket(storage: storage, capacity: capacity, length: bytes.count))
  }

  mutating func removeFirst() -> LoopbackPacket? {
    guard let packet = packets.removeFirst() else { return nil }
    queuedBytes -= packet.capacity
    return packet
  }

  mutating func recycle(_ packet: LoopbackPacket) {
    if packet.capacity == Self.smallSize, small.count < Self.spares {
      small.append(packet.storage)
    } else if packet.capacity == Self.largeSize, large.count < Self.spares {
      large.append(packet.storage)
    } else {
      packet.storage.deallocate()
    }
  }

  mutating func deallocate() {
    while let packet = packets.removeFirst() { packet.storage.deallocate() }
    for storage in small { storage.deallocate() }
    for storage in large { storage.deallocate() }
  }
}
