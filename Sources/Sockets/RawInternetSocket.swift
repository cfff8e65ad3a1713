import ABI
import Net
import Tasks
import VFS

/// A raw(7) socket of AF_INET or AF_INET6, or a ping socket (icmp(7)).
final class RawInternetSocket: InternetSocket {
  let socket: RawSocket

  init(domain: Int32, protocolNumber: Int32, isPing: Bool, flags: UInt32) {
    socket = RawSocket(
      Network.stack, isIPv6: domain == InternetSocket.familyIPv6, kind: UInt8(clamping: protocolNumber),
      isPing: isPing)
    super.init(domain: domain, type: isPing ? 2 : 3, protocolNumber: protocolNumber, flags: flags)
    socket.observer = self
  }

  override func bind(_ address: [UInt8]) throws(Errno) {
    let endpoint = try boundEndpoint(address)
    do throws(NetworkError) { try socket.bind(endpoint) } catch { throw error.number }
  }

  override func connect(_ address: [UInt8]) throws(Errno) {
    let target = try peer(address)
    do throws(NetworkError) { try socket.connect(target) } catch { throw error.number }
  }

  /// Ports mean nothing here, save a ping socket's own; those of raw IPv6 are to be zero or the protocol.
  private func peer(_ address: [UInt8]) throws(Errno) -> Endpoint? {
    guard var target = try endpoint(address) else { return nil }
    target.port = 0
    return target
  }

  /// An unbound ping socket gets its identifier when it first sends; raw sockets tell their protocol.
  override func name() throws(Errno) -> [UInt8] {
    var endpoint = socket.local
    if !socket.isPing, !isIPv6 { endpoint.port = UInt16(clamping: protocolNumber) }
    return bytes(endpoint)
  }

  override func peerName() throws(Errno) -> [UInt8] {
    guard let remote = socket.remote else { throw .notConnected }
    return bytes(remote)
  }

  override func send(
    _ slices: [UserSlice], flags: MessageFlags, destination: [UInt8]?, control: SocketControl
  ) throws(Errno) -> Int {
    if flags.contains(.outOfBand) { throw .notSupported }
    var target: Endpoint?
    if let destination, !destination.isEmpty { target = try peer(destination) }
    let special = try datagramOptions(control)
    return try transmit(slices) { (count) throws(NetworkError) in
      try socket.sendRegion(count)
    } commit: {
      (count) throws(NetworkError) in
      try socket.commitSend(count, to: target, with: special, now: now)
    }
  }

  override func receive(_ slices: [UserSlice], flags: MessageFlags) throws(Errno) -> SocketMessage {
    if flags.contains(.outOfBand) { throw .notSupported }
    let packet = try wait(flags) { () throws(NetworkError) in try socket.firstPacket() }
    var message = try SocketMessage(packet.bytes, to: slices, flags)
    message.address = bytes(Endpoint(packet.source, 0))
    message.control.items = packetInformation(
      from: packet.source, to: packet.destination, packet.timeToLive, packet.trafficClass)
    if !flags.contains(.peek) { socket.removeFirstPacket() }
    return message
  }

  override func shutdown(_ how: Int32) throws(Errno) {
    guard (0...2).contains(how) else { throw .invalid }
    guard socket.remote != nil else { throw .notConnected }
  }

  override func readiness() -> Readiness { socket.isReadable ? [.readable, .writable] : .writable }

  override func released() {
    leaveGroups()
    socket.close()
    if !queue.isEmpty { queue.wake() }
  }

  override var readableBytes: Int { socket.readableBytes }
  override var isBound: Bool { !socket.local.address.isAny }

  override func optionsChanged() {
    socket.timeToLive = isIPv6 ? options.hopLimit : options.timeToLive
    socket.multicastTimeToLive = isIPv6 ? options.multicastHopLimit : options.multicastTimeToLive
    socket.trafficClass = UInt8(truncatingIfNeeded: isIPv6 ? options.trafficClass : options.typeOfService)
    socket.loopsMulticast = options.loopsMulticast
    socket.receiveLimit = max(2304, Int(options.receiveBuffer))
  }

  // MARK: Filters

  /// ICMP_FILTER (raw(7)): a bit for each type that is not wanted; ICMP6_FILTER (RFC 3542 section 3.2) likewise.
  func rawOption(level: Int32, _ option: Int32) throws(Errno) -> [UInt8] {
    guard option == 1, !socket.isPing else { throw .noProtocolOption }
    var words: [Int32] = []
    for index in 0..<8 {
      words.append(Int32(truncatingIfNeeded: socket.blocked[index / 2] >> UInt64(index % 2 * 32)))
    }
    if level == 255, protocolNumber == 1 { return Socket.bytes(words[0]) }
    guard level == 58, protocolNumber == 58 else { throw .notSupported }
    var result: [UInt8] = []
    for word in words { result += Socket.bytes(word) }
    return result
  }

  func setRawOption(level: Int32, _ option: Int32, _ value: UserSlice) throws(Errno) {
    guard option == 1, !socket.isPing else { throw .noProtocolOption }
    let count = level == 58 ? 32 : 4
    guard protocolNumber == (level == 58 ? 58 : 1) else { throw .notSupported }
    let bytes = try value.prefix(min(count, value.count)).bytes()
    for (index, byte) in bytes.enumerated() {
      let shift = UInt64(index % 8 * 8)
      socket.blocked[index / 8] = socket.blocked[index / 8] & ~(0xFF << shift) | UInt64(byte) << shift
    }
  }
}
