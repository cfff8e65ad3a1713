/// Fragments of IPv4 packets until they are whole (RFC 815 in spirit): few packets at a time, for a short time.
struct Reassembly {
  private final class Partial {
    let source: IPv4Address
    let destination: IPv4Address
    let kind: UInt8
    let identification: UInt16
    let deadline: UInt64
    let storage = UnsafeMutableRawPointer.allocate(byteCount: 20 + 65535, alignment: 16)
    var pieces = RangeList(limit: 64)
    var total = -1

    init(_ packet: IPv4Packet, _ deadline: UInt64) {
      source = packet.source
      destination = packet.destination
      kind = packet.kind
      identification = packet.identification
      self.deadline = deadline
    }

    deinit { storage.deallocate() }

    func matches(_ packet: IPv4Packet) -> Bool {
      identification == packet.identification && source == packet.source && kind == packet.kind
        && destination == packet.destination
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
  mutating func add(_ packet: IPv4Packet, _ now: UInt64, _ deliver: (IPv4Packet) -> Void) {
    let start = packet.fragmentOffset
    let end = start + packet.payload.count
    guard end <= 65515, end > start, !packet.moreFragments || packet.payload.count % 8 == 0,
      let bytes = packet.payload.baseAddress
    else { return }
    let partial = find(packet, now)
    // Overlap is never legitimate (RFC 5722 reasons for IPv6, and attackers use it).
    if partial.pieces.covered(UInt32(start), UInt32(end)) > 0 || (partial.total >= 0 && end > partial.total) {
      return
    }
    guard partial.pieces.insert(SequenceRange(start: UInt32(start), end: UInt32(end))) else { return }
    (partial.storage + HeaderLength.ipv4 + start).copyMemory(from: bytes, byteCount: packet.payload.count)
    if !packet.moreFragments { partial.total = end }
    guard partial.total == partial.pieces.total, partial.pieces.ranges.count == 1 else { return }
    partials.removeAll { $0 === partial }
    let header = partial.storage
    header.copyMemory(from: packet.bytes.baseAddress ?? bytes, byteCount: HeaderLength.ipv4)
    header.put8(0, 0x45)
    header.put16(2, UInt16(HeaderLength.ipv4 + partial.total))
    header.put16(6, 0)
    let whole = UnsafeRawBufferPointer(start: header, count: HeaderLength.ipv4 + partial.total)
    if let packet = IPv4Packet(whole, checksumValidated: true) { deliver(packet) }
  }

  private mutating func find(_ packet: IPv4Packet, _ now: UInt64) -> Partial {
    if let known = partials.first(where: { $0.matches(packet) }) { return known }
    if partials.count >= Self.limit { partials.removeFirst() }
    let new = Partial(packet, now &+ Self.lifetime)
    partials.append(new)
    return new
  }
}
