/// A received packet, waiting.
public struct RawPacket {
  public let source: IPAddress
  public let destination: IPAddress
  public let timeToLive: UInt8
  public let trafficClass: UInt8
  /// What the program gets: for raw(7) the IPv4 header too, valid until the packet is removed.
  public let bytes: UnsafeRawBufferPointer
}

/// What raw and packet sockets keep for their reader, within a limit of bytes.
struct PacketQueue<Element> {
  private var elements = Queue<(Element, UnsafeMutableRawBufferPointer)>()
  private var queuedBytes = 0
  /// What each kept packet costs beyond its bytes.
  private static var overhead: Int { 256 }

  var isEmpty: Bool { elements.isEmpty }
  var first: Element? { elements.first?.0 }
  var firstCount: Int { elements.first?.1.count ?? 0 }

  /// Copies the bytes and keeps what `make` says of the copy; drops when there is no room.
  mutating func append(
    _ bytes: UnsafeRawBufferPointer, limit: Int, _ make: (UnsafeRawBufferPointer) -> Element
  ) -> Bool {
    guard queuedBytes + bytes.count + Self.overhead <= limit else { return false }
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: max(bytes.count, 1), alignment: 16)
    if let source = bytes.baseAddress, let target = copy.baseAddress {
      target.copyMemory(from: source, byteCount: bytes.count)
    }
    elements.append((make(UnsafeRawBufferPointer(start: copy.baseAddress, count: bytes.count)), copy))
    queuedBytes += copy.count + Self.overhead
    return true
  }

  mutating func removeFirst() {
    guard let (_, storage) = elements.removeFirst() else { return }
    queuedBytes -= storage.count + Self.overhead
    storage.deallocate()
  }

  mutating func removeAll() {
    while !isEmpty { removeFirst() }
  }
}

/// A raw(7) socket of one protocol, or a ping socket (SOCK_DGRAM with IPPROTO_ICMP or IPPROTO_ICMPV6, icmp(7)).
/// Calls are serialised by the owner of the stack.
public final class RawSocket {
  unowned(unsafe) let stack: NetworkStack
  public unowned(unsafe) var observer: (any SocketObserver)?
  public let isIPv6: Bool
  /// The protocol; 255 (IPPROTO_RAW) sends any and receives none.
  public let kind: UInt8
  public let isPing: Bool
  /// IP_HDRINCL: the program writes the IPv4 header.
  public var includesHeader: Bool
  public var receiveLimit = 256 << 10
  public var timeToLive: UInt8 = 64
  public var multicastTimeToLive: UInt8 = 1
  public var trafficClass: UInt8 = 0
  public var loopsMulticast = true
  /// IPV6_CHECKSUM: where the checksum of the protocol is, or -1 for none. ICMPv6's is always done.
  public var checksumOffset = -1
  /// ICMP_FILTER and ICMP6_FILTER: a bit for each message type that is not wanted.
  public var blocked: [UInt64] = [0, 0, 0, 0]
  /// The address bound to, or any; the port is the identifier of a ping socket.
  public internal(set) var local: Endpoint
  public internal(set) var remote: Endpoint?
  private var queue = PacketQueue<RawPacket>()
  private var isOpen = true

  public init(_ stack: NetworkStack, isIPv6: Bool, kind: UInt8, isPing: Bool = false) {
    self.stack = stack
    self.isIPv6 = isIPv6
    self.kind = kind
    self.isPing = isPing
    includesHeader = kind == 255 && !isIPv6
    local = Endpoint(isIPv6 ? .any : .anyIPv4, 0)
    stack.rawSockets.append(self)
  }

  deinit { queue.removeAll() }

  public var isReadable: Bool { !queue.isEmpty }
  public var readableBytes: Int { queue.firstCount }
  public static let largestPayload = 65535 - HeaderLength.ipv4

  /// Receives only what is sent to `address`; of a ping socket the port is the wanted identifier, 0 for a free one.
  public func bind(_ endpoint: Endpoint) throws(NetworkError) {
    let address = endpoint.address
    guard address.isAny || stack.isOwn(address) || address.isMulticast else { throw .addressNotAvailable }
    guard isPing else { return local = Endpoint(address, 0) }
    guard local.port == 0 else { throw .invalid }
    local = Endpoint(address, try identifier(endpoint.port))
  }

  private func identifier(_ wanted: UInt16) throws(NetworkError) -> UInt16 {
    func isTaken(_ number: UInt16) -> Bool {
      stack.rawSockets.contains { $0.isPing && $0.isIPv6 == isIPv6 && $0.local.port == number }
    }
    if wanted != 0 {
      guard !isTaken(wanted) else { throw .addressInUse }
      return wanted
    }
    for _ in 0..<1000 {
      let number = UInt16(1 + stack.random.below(65535))
      if !isTaken(number) { return number }
    }
    throw .addressInUse
  }

  public func connect(_ target: Endpoint?) throws(NetworkError) {
    guard let target else { return remote = nil }
    _ = try stack.sourceAddress(toward: target.loopbackIfAny.address)
    remote = target.loopbackIfAny
  }

  public func close() {
    guard isOpen else { return }
    isOpen = false
    observer = nil
    stack.rawSockets.removeAll { $0 === self }
    queue.removeAll()
  }

  /// The oldest packet. Throws `wouldBlock`.
  public func firstPacket() throws(NetworkError) -> RawPacket {
    guard let first = queue.first else { throw .wouldBlock }
    return first
  }

  public func removeFirstPacket() { queue.removeFirst() }

  /// True when the packet is for this socket.
  fileprivate func receive(_ packet: IPPacket) -> Bool {
    guard packet.isIPv6 == isIPv6, kind == packet.kind,
      local.address.hears(packet.destination, onlyIPv6: false)
    else { return false }
    if let remote, remote.address != packet.source { return false }
    if kind == IPProtocol.icmp || kind == IPProtocol.icmpv6 {
      let type = Int(packet.payload.byte(0))
      if blocked[type >> 6] >> UInt64(type & 63) & 1 != 0 { return false }
      if isPing {
        // Only answers, and only to the own questions.
        guard type == (isIPv6 ? Int(ICMPv6.echoReply) : Int(ICMP.echoReply)),
          packet.payload.word16(4) == local.port, local.port != 0
        else { return false }
      }
    }
    let bytes = isIPv6 || isPing ? packet.payload : packet.bytes
    let isKept = queue.append(bytes, limit: receiveLimit) {
      RawPacket(
        source: packet.source, destination: packet.destination, timeToLive: packet.timeToLive,
        trafficClass: packet.trafficClass, bytes: $0)
    }
    if isKept { observer?.socketDidChange() }
    return true
  }
}

extension NetworkStack {
  /// Hands copies to raw sockets; true when one wanted it.
  func deliverRaw(_ packet: IPPacket) -> Bool {
    var wasTaken = false
    for socket in rawSockets where socket.receive(packet) { wasTaken = wasTaken || !socket.isPing }
    return wasTaken
  }
}
