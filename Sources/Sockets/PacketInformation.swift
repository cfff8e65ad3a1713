import ABI
import Net
import Tasks

/// Ancillary data of ip(7) and ipv6(7): what came with a datagram, and what one is sent with.
extension InternetSocket {
  /// What the program has asked to be told of each datagram.
  func packetInformation(
    from source: IPAddress, to target: IPAddress, _ timeToLive: UInt8, _ trafficClass: UInt8
  ) -> [SocketControlItem] {
    var items: [SocketControlItem] = []
    let isLocal = source.isLoopback || Network.stack.isLocal(source)
    let interface = isLocal ? 1 : InternetSocket.linkInterface
    if target.isIPv4 {
      if options.tellsPacketInfo {
        // struct in_pktinfo: interface, own address, destination of the header.
        var own = target.ipv4
        if !Network.stack.isLocal(target) { own = Network.stack.address }
        items.append(
          SocketControlItem(
            level: 0, type: 8,
            data: Socket.bytes(interface) + InternetSocket.bytes(own) + InternetSocket.bytes(target.ipv4)))
      }
      if options.tellsTypeOfService {
        items.append(SocketControlItem(level: 0, type: 1, data: [trafficClass]))
      }
      if options.tellsTimeToLive {
        items.append(SocketControlItem(level: 0, type: 2, data: Socket.bytes(Int32(timeToLive))))
      }
    }
    guard isIPv6 else { return items }
    if options.tellsPacketInfoIPv6 {
      items.append(
        SocketControlItem(
          level: 41, type: 50, data: InternetSocket.bytes(target) + Socket.bytes(interface)))
    }
    if options.tellsHopLimit, !target.isIPv4 {
      items.append(SocketControlItem(level: 41, type: 52, data: Socket.bytes(Int32(timeToLive))))
    }
    if options.tellsTrafficClass, !target.isIPv4 {
      items.append(SocketControlItem(level: 41, type: 67, data: Socket.bytes(Int32(trafficClass))))
    }
    return items
  }

  /// IP_PKTINFO, IP_TTL, IP_TOS and their IPv6 relatives of sendmsg(2). EINVAL, ENODEV.
  func datagramOptions(_ control: SocketControl) throws(Errno) -> DatagramOptions {
    var result = DatagramOptions()
    for item in control.items {
      switch (item.level, item.type) {
      case (0, 8):
        guard item.data.count >= 12 else { throw .invalid }
        try checkInterface(InternetSocket.word(item.data, 0))
        let own = IPv4Address(item.data[4], item.data[5], item.data[6], item.data[7])
        if !own.isAny { result.source = IPAddress(own) }
      case (0, 2), (41, 52): result.timeToLive = try byte(item, least: item.level == 0 ? 1 : 0)
      case (0, 1), (41, 67): result.trafficClass = try byte(item, least: 0)
      case (41, 50):
        guard item.data.count >= 20 else { throw .invalid }
        try checkInterface(InternetSocket.word(item.data, 16))
        let own = InternetSocket.address(item.data, 0)
        if !own.isAny { result.source = own }
      default: break
      }
    }
    return result
  }

  private func checkInterface(_ index: Int32) throws(Errno) {
    guard index == 0 || InterfaceRequest.exists(index) else { throw .operationNotOnDevice }
  }

  /// A number of one byte, given as one byte or as an int; nil for -1, the usual value.
  private func byte(_ item: SocketControlItem, least: Int32) throws(Errno) -> UInt8? {
    if item.data.count == 1 { return item.data[0] }
    guard item.data.count >= 4 else { throw .invalid }
    let number = InternetSocket.word(item.data, 0)
    if number == -1, item.level == 41 { return nil }
    guard number >= least, number <= 255 else { throw .invalid }
    return UInt8(number)
  }
}
