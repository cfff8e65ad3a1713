import ABI
import Net
import Tasks
import VFS

/// A packet(7) socket.
public final class LinkSocket: InternetSocket {
  let socket: PacketSocket
  private var received: UInt32 = 0

  private static var packetFamily: Int32 { 17 }

  /// `protocolNumber` is in network byte order, as programs give it. ESOCKTNOSUPPORT.
  public init(type: Int32, protocolNumber: Int32, flags: UInt32) throws(Errno) {
    guard type == 2 || type == 3 else { throw .socketTypeNotSupported }
    let etherType = UInt16(truncatingIfNeeded: protocolNumber).byteSwapped
    socket = PacketSocket(Network.stack, isCooked: type == 2, etherType: etherType)
    super.init(domain: LinkSocket.packetFamily, type: type, protocolNumber: protocolNumber, flags: flags)
    socket.observer = self
  }

  /// struct sockaddr_ll.
  private func linkAddress(_ etherType: UInt16, _ interface: Int32, _ direction: UInt8, _ mac: MACAddress?)
    -> [UInt8]
  {
    // ARPHRD_LOOPBACK 772, ARPHRD_ETHER 1
    let kind: [UInt8] = interface == 1 ? [0x04, 0x03] : [1, 0]
    var result: [UInt8] =
      [17, 0, UInt8(etherType >> 8), UInt8(etherType & 0xFF)] + Socket.bytes(interface) + kind
    result += [direction, mac == nil ? 0 : 6]
    for shift in stride(from: 40, through: 0, by: -8) {
      result.append(UInt8(truncatingIfNeeded: (mac?.rawValue ?? 0) >> UInt64(shift)))
    }
    return result + [0, 0]
  }

  public override func bind(_ address: [UInt8]) throws(Errno) {
    guard address.count >= 12 else { throw .invalid }
    guard address[0] == 17, address[1] == 0 else { throw .invalid }
    let interface = InternetSocket.word(address, 4)
    guard interface == 0 || InterfaceRequest.exists(interface) else { throw .operationNotOnDevice }
    let etherType = UInt16(address[2]) << 8 | UInt16(address[3])
    if etherType != 0 { socket.etherType = etherType }
    socket.interface = interface
  }

  public override func name() throws(Errno) -> [UInt8] {
    linkAddress(socket.etherType, socket.interface, 0, socket.interface == 2 ? Network.stack.macAddress : nil)
  }

  public override func send(
    _ slices: [UserSlice], flags: MessageFlags, destination: [UInt8]?, control: SocketControl
  ) throws(Errno) -> Int {
    var etherType = socket.etherType
    var target: UInt64 = 0
    var interface = socket.interface
    if let destination, !destination.isEmpty {
      // Linux does not look at the family, and programs leave it out.
      guard destination.count >= 18 else { throw .invalid }
      etherType = UInt16(destination[2]) << 8 | UInt16(destination[3])
      interface = InternetSocket.word(destination, 4)
      for index in 0..<6 { target = target << 8 | UInt64(destination[12 + index]) }
    }
    guard InterfaceRequest.exists(interface) else { throw .noSuchDevice }
    // Frames sent to lo come back to nobody here.
    guard interface == 2 else { return SliceCursor.total(slices) }
    let total = SliceCursor.total(slices)
    guard total <= 65536 else { throw .messageTooLong }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(total)
    for slice in slices { bytes += try slice.bytes() }
    let mac = MACAddress(rawValue: target)
    let failure = bytes.withUnsafeBytes { frame -> NetworkError? in
      do throws(NetworkError) { try socket.send(frame, to: mac, etherType: etherType, now: now) } catch {
        return error
      }
      return nil
    }
    if let failure { throw failure.number }
    Network.settle()
    return total
  }

  public override func receive(_ slices: [UserSlice], flags: MessageFlags) throws(Errno) -> SocketMessage {
    let frame = try wait(flags) { () throws(NetworkError) in try socket.firstFrame() }
    var message = try SocketMessage(frame.bytes, to: slices, flags)
    message.address = linkAddress(frame.etherType, frame.interface, frame.direction, frame.source)
    if !flags.contains(.peek) {
      received &+= 1
      socket.removeFirstFrame()
    }
    return message
  }

  public override func readiness() -> Readiness { socket.isReadable ? [.readable, .writable] : .writable }

  public override func released() {
    socket.close()
    if !queue.isEmpty { queue.wake() }
  }

  override var readableBytes: Int { socket.readableBytes }
  override func optionsChanged() { socket.receiveLimit = max(2304, Int(options.receiveBuffer)) }

  /// SOL_PACKET. Rings (PACKET_RX_RING) and filters are refused, so that programs read and filter themselves.
  public override func setOption(level: Int32, option: Int32, _ value: UserSlice) throws(Errno) {
    if level == 263 {
      // PACKET_ADD_MEMBERSHIP, _DROP_MEMBERSHIP, _COPY_THRESH, _ORIGDEV, _IGNORE_OUTGOING
      guard [1, 2, 7, 9, 23].contains(option) else { throw .noProtocolOption }
      return
    }
    if level == 1, option == 26 { throw .noProtocolOption }
    try super.setOption(level: level, option: option, value)
  }

  public override func getOption(level: Int32, option: Int32) throws(Errno) -> [UInt8] {
    guard level == 263 else { return try super.getOption(level: level, option: option) }
    guard option == 6 else { throw .noProtocolOption }
    // struct tpacket_stats counts from the last time it was asked for.
    let dropped = socket.takeDropped()
    let total = received &+ dropped
    received = 0
    return Socket.bytes(Int32(bitPattern: total)) + Socket.bytes(Int32(bitPattern: dropped))
  }
}
