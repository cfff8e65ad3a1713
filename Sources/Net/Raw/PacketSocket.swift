/// A frame that a packet(7) socket has seen.
public struct ObservedFrame {
  /// 1 for loopback, 2 for the link.
  public let interface: Int32
  public let etherType: UInt16
  /// Ethernet address of the sender.
  public let source: MACAddress
  /// PACKET_HOST 0, PACKET_BROADCAST 1, PACKET_MULTICAST 2, PACKET_OTHERHOST 3, PACKET_OUTGOING 4.
  public let direction: UInt8
  /// The frame, or for SOCK_DGRAM what follows its Ethernet header. Valid until it is removed.
  public let bytes: UnsafeRawBufferPointer
}

/// A packet(7) socket: sees the frames of the link and the packets of loopback, and sends frames as they are.
/// Calls are serialised by the owner of the stack.
public final class PacketSocket {
  unowned(unsafe) let stack: NetworkStack
  public unowned(unsafe) var observer: (any SocketObserver)?
  /// SOCK_DGRAM: without the Ethernet header.
  public let isCooked: Bool
  /// An Ethernet type, 3 (ETH_P_ALL) for every frame both ways, or 0 for none.
  public var etherType: UInt16
  /// Frames of this interface only, or 0.
  public var interface: Int32 = 0
  public var receiveLimit = 256 << 10
  public private(set) var dropped: UInt32 = 0
  private var queue = PacketQueue<ObservedFrame>()
  private var isOpen = true

  public static let everyType: UInt16 = 3

  public init(_ stack: NetworkStack, isCooked: Bool, etherType: UInt16) {
    self.stack = stack
    self.isCooked = isCooked
    self.etherType = etherType
    stack.packetSockets.append(self)
  }

  deinit { queue.removeAll() }

  public var isReadable: Bool { !queue.isEmpty }
  public var readableBytes: Int { queue.firstCount }

  public func close() {
    guard isOpen else { return }
    isOpen = false
    observer = nil
    stack.packetSockets.removeAll { $0 === self }
    queue.removeAll()
  }

  /// The oldest frame. Throws `wouldBlock`.
  public func firstFrame() throws(NetworkError) -> ObservedFrame {
    guard let first = queue.first else { throw .wouldBlock }
    return first
  }

  public func removeFirstFrame() { queue.removeFirst() }

  /// Frames that had no room, counted from zero again (PACKET_STATISTICS).
  public func takeDropped() -> UInt32 {
    let count = dropped
    dropped = 0
    return count
  }

  fileprivate func see(_ frame: UnsafeRawBufferPointer, _ interface: Int32, _ direction: UInt8) {
    let type = frame.word16(12)
    guard self.interface == 0 || self.interface == interface else { return }
    guard etherType == Self.everyType || (etherType == type && etherType != 0 && direction != 4) else {
      return
    }
    let bytes = isCooked ? frame.part(HeaderLength.ethernet, frame.count) : frame
    let isKept = queue.append(bytes, limit: receiveLimit) {
      ObservedFrame(
        interface: interface, etherType: type, source: frame.mac(6), direction: direction, bytes: $0)
    }
    if isKept { observer?.socketDidChange() } else { dropped &+= 1 }
  }

  /// Sends a frame, or for SOCK_DGRAM a payload behind a header made here. Throws `messageTooLong`, `networkUnreachable`.
  public func send(
    _ bytes: UnsafeRawBufferPointer, to destination: MACAddress, etherType: UInt16, now: UInt64
  ) throws(NetworkError) {
    guard let device = stack.device, interface != 1 else { throw .networkUnreachable }
    let header = isCooked ? HeaderLength.ethernet : 0
    guard bytes.count + header <= stack.linkMTU + HeaderLength.ethernet else { throw .messageTooLong }
    guard isCooked || bytes.count >= HeaderLength.ethernet else { throw .invalid }
    let frame = stack.frame
    if isCooked {
      frame.putMAC(0, destination)
      frame.putMAC(6, stack.macAddress)
      frame.put16(12, etherType)
    }
    if let source = bytes.baseAddress { (frame + header).copyMemory(from: source, byteCount: bytes.count) }
    let whole = UnsafeRawBufferPointer(start: frame, count: header + bytes.count)
    stack.observe(whole, outgoing: true)
    device.transmit(TransmitOffload(), whole)
  }
}

extension NetworkStack {
  /// Shows a frame of the link to packet sockets.
  func observe(_ frame: UnsafeRawBufferPointer, outgoing: Bool) {
    guard frame.count >= HeaderLength.ethernet else { return }
    let destination = frame.mac(0)
    var direction: UInt8 = 4
    if !outgoing {
      direction = destination == macAddress ? 0 : destination == .broadcast ? 1 : 3
      if destination != .broadcast, destination.rawValue >> 40 & 1 != 0 { direction = 2 }
    }
    for socket in packetSockets { socket.see(frame, 2, direction) }
  }

  /// Shows a packet of loopback, behind an Ethernet header of zeros as Linux has it.
  func observeLoopback(_ packet: UnsafeRawBufferPointer) {
    let frame = UnsafeMutableRawBufferPointer.allocate(
      byteCount: HeaderLength.ethernet + packet.count, alignment: 16)
    defer { frame.deallocate() }
    guard let start = frame.baseAddress, let source = packet.baseAddress else { return }
    for offset in 0..<HeaderLength.ethernet { start.put8(offset, 0) }
    start.put16(12, packet.byte(0) >> 4 == 6 ? EtherType.ipv6 : EtherType.ipv4)
    (start + HeaderLength.ethernet).copyMemory(from: source, byteCount: packet.count)
    for socket in packetSockets { socket.see(UnsafeRawBufferPointer(frame), 1, 0) }
  }
}
