public import ABI
import Net
public import Tasks
public import VFS

/// A udp(7) socket.
public final class DatagramSocket: InternetSocket {
  let socket: UDPSocket

  public init(domain: Int32 = InternetSocket.family, flags: UInt32) {
    socket = UDPSocket(Network.stack, unbound: domain == InternetSocket.familyIPv6 ? .any : .anyIPv4)
    super.init(domain: domain, type: 2, protocolNumber: 17, flags: flags)
    socket.observer = self
  }

  public override func bind(_ address: [UInt8]) throws(Errno) {
    let endpoint = try boundEndpoint(address)
    do throws(NetworkError) { try socket.bind(endpoint) } catch { throw error.number }
  }

  public override func connect(_ address: [UInt8]) throws(Errno) {
    let endpoint = try peerEndpoint(address)
    do throws(NetworkError) { try socket.connect(endpoint) } catch { throw error.number }
  }

  public override func name() throws(Errno) -> [UInt8] { bytes(socket.local) }

  public override func peerName() throws(Errno) -> [UInt8] {
    guard socket.isConnected else { throw .notConnected }
    return bytes(socket.remote)
  }

  public override func send(
    _ slices: [UserSlice], flags: MessageFlags, destination: [UInt8]?, control: SocketControl
  ) throws(Errno) -> Int {
    if flags.contains(.outOfBand) { throw .notSupported }
    var target: Endpoint?
    if let destination, !destination.isEmpty {
      // udp(7) takes AF_UNSPEC for AF_INET here.
      target = try peerEndpoint(destination)
      if target == nil, !isIPv6 { target = try boundEndpoint(destination) }
      if target?.port == 0 { throw .invalid }
    }
    let special = try datagramOptions(control)
    return try transmit(slices) { (count) throws(NetworkError) in
      try socket.sendRegion(count)
    } commit: {
      (count) throws(NetworkError) in
      try socket.commitSend(count, to: target, with: special, now: now)
    }
  }

  public override func receive(_ slices: [UserSlice], flags: MessageFlags) throws(Errno) -> SocketMessage {
    if flags.contains(.outOfBand) { throw .notSupported }
    guard let datagram = try nextDatagram(flags) else { return SocketMessage() }
    var message = try SocketMessage(datagram.payload, to: slices, flags)
    message.address = bytes(datagram.source)
    message.control.items = packetInformation(
      from: datagram.source.address, to: datagram.destination.address, datagram.timeToLive,
      datagram.trafficClass)
    if !flags.contains(.peek) { socket.removeFirstDatagram() }
    return message
  }

  /// Waits for a datagram; nil after shutdown(2).
  private func nextDatagram(_ flags: MessageFlags) throws(Errno) -> Datagram? {
    try wait(flags) { () throws(NetworkError) in try socket.firstDatagram() }
  }

  public override func shutdown(_ how: Int32) throws(Errno) {
    guard (0...2).contains(how) else { throw .invalid }
    do throws(NetworkError) { try socket.shutdown(read: how != 1, write: how != 0) } catch {
      throw error.number
    }
  }

  public override func readiness() -> Readiness {
    var result: Readiness = []
    if socket.isReadable { result.insert(.readable) }
    if socket.isWritable { result.insert(.writable) }
    if socket.hasPeerHangup { result.insert(.readHangup) }
    if socket.hasHangup { result.insert(.hangup) }
    if socket.hasError { result.insert(.error) }
    return result
  }

  public override func released() {
    leaveGroups()
    socket.close()
    if !queue.isEmpty { queue.wake() }
  }

  override func takeError() -> Errno? { socket.takeError()?.number }
  override var isBound: Bool { socket.local.port != 0 }
  override var readableBytes: Int { socket.readableBytes }

  override func optionsChanged() {
    socket.options.reuseAddress = options.reuseAddress
    socket.options.reusePort = options.reusePort
    socket.options.broadcast = options.broadcast
    socket.options.timeToLive = options.timeToLive
    socket.options.hopLimit = options.hopLimit
    socket.options.multicastTimeToLive = options.multicastTimeToLive
    socket.options.multicastHopLimit = options.multicastHopLimit
    socket.options.loopsMulticast = options.loopsMulticast
    socket.options.typeOfService = UInt8(truncatingIfNeeded: options.typeOfService)
    socket.options.trafficClass = UInt8(truncatingIfNeeded: options.trafficClass)
    socket.options.onlyIPv6 = options.onlyIPv6
    socket.options.receiveLimit = max(2304, Int(options.receiveBuffer))
  }
}
