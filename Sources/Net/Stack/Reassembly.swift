/// Fragments of packets until they are whole (RFC 815 in spirit): few packets at a time, for a short time.
struct Reassembly {
  private final class Partial {
    let source: IPAddress
    let destination: IPAddress
    let kind: UInt8
    let identification: UInt32
    let deadline: UInt64
    let storage = UnsafeMutableRawPointer.allocate(byteCount: HeaderLength.ipv6 + 65535, alignment: 16)
    var pieces = RangeList(limit: 64)
    var total = -1
    /// An overlap was seen: nothing of this packet will be used (RFC 5722).
    var isBad = false
    var nextHeader: UInt8 = 0

    init(_ packet: IPPacket, _ deadline: UInt64) {
      source = packet.source
      destination = packet.destination
      kind = packet.kind
      identification = packet.identification
      self.deadline = deadline
    }

    deinit { storage.deallocate() }

    /// The whole packet behind a plain header made from a fragment's.
    func whole(like packet: IPPacket) -> IPPacket? {
      guard let header = packet.bytes.baseAddress else { return nil }
      let length = (packet.isIPv6 ? HeaderLength.ipv6 : HeaderLength.ipv4) + total
      let bytes = UnsafeRawBufferPointer(start: storage, count: length)
      if packet.isIPv6 {
        storage.copyMemory(from: header, byteCount: HeaderLength.ipv6)
        storage.put16(4, UInt16(truncatingIfNeeded: total))
        storage.put8(6, nextHeader)
        return IPPacket(ipv6: bytes)
      }
      storage.copyMemory(from: header, byteCount: HeaderLength.ipv4)
      storage.put8(0, 0x45)
      storage.put16(2, UInt16(truncatingIfNeeded: length))
      storage.put16(6, 0)
      return IPPacket(ipv4: bytes, checksumValidated: true)
    }

    func matches(_ packet: IPPacket) -> Bool {
      // IPv6 tells packets apart by addresses and number only (RFC 8200 section 4.5).
      identification == packet.identification && source == packet.source
        && (kind == packet.kind || packet.isIPv6) && destination == packet.destination
    }
  }

  private var partials: [Partial] = []
  private static let limit = 32
  private static let lifetime = 15 * Nanoseconds.second

  var deadline: UInt64 { partials.first?.deadline ?? .max }

  mutating func expire(_ now: UInt64) {
    while let first = partials.first, first.deadline <= now { partials.removeFirst() }
  }

  /// Adds a fragment and hands on the packet when it is whole.
  mutating func add(_ packet: IPPacket, _ now: UInt64, _ deliver: (IPPacket) -> Void) {
    let start = packet.fragmentOffset
    let end = start + packet.payload.count
    guard end <= (packet.isIPv6 ? 65535 : 65515), end > start,
      !packet.moreFragments || packet.payload.count % 8 == 0,
      let bytes = packet.payload.baseAddress
    else { return }
    let partial = find(packet, now)
    // Overlap is never legitimate (RFC 5722; attackers use it). An exact IPv4 repetition may be a duplicate.
    let repeated = partial.pieces.covered(UInt32(start), UInt32(end))
    if repeated > 0 || (partial.total >= 0 && end > partial.total) {
      if packet.isIPv6, repeated != end - start { partial.isBad = true }
      return
    }
    guard !partial.isBad, partial.pieces.insert(SequenceRange(start: UInt32(start), end: UInt32(end)))
    else { return }
    let header = packet.isIPv6 ? HeaderLength.ipv6 : HeaderLength.ipv4
    (partial.storage + header + start).copyMemory(from: bytes, byteCount: packet.payload.count)
    // RFC 8200 section 4.5: the first fragment says what the whole is.
    if start == 0 { partial.nextHeader = packet.kind }
    if !packet.moreFragments { partial.total = end }
    guard partial.total == partial.pieces.total, partial.pieces.ranges.count == 1 else { return }
    partials.removeAll { $0 === partial }
    if let whole = partial.whole(like: packet) { deliver(whole) }
  }

  private mutating func find(_ packet: IPPacket, _ now: UInt64) -> Partial {
    if let known = partials.first(where: { $0.matches(packet) }) { return known }
    if partials.count >= Self.limit { partials.removeFirst() }
    let new = Partial(packet, now &+ Self.lifetime)
    partials.append(new)
    return new
  }
}
