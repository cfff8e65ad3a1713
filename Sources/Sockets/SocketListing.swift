public import Net

/// What /proc/net tells of an ip(7) socket.
public struct InternetSocketListing {
  public var local: Endpoint
  /// Port 0 without a peer.
  public var remote: Endpoint
  /// As Linux numbers states (include/net/tcp_states.h); 7 for udp(7) sockets without a peer.
  public var state: UInt8
  /// Bytes that wait to be read, connections for a listening socket.
  public var receiveQueue: Int
  public var sendQueue: Int
  public var isTCP: Bool

  public init(
    local: Endpoint, remote: Endpoint, state: UInt8, receiveQueue: Int, sendQueue: Int, isTCP: Bool
  ) {
    self.local = local
    self.remote = remote
    self.state = state
    self.receiveQueue = receiveQueue
    self.sendQueue = sendQueue
    self.isTCP = isTCP
  }
}

extension InternetSocket {
  /// Nil for sockets that are neither bound nor connected.
  public var listing: InternetSocketListing? {
    if let socket = self as? TCPSocket {
      guard let local = socket.connection?.local ?? socket.listener?.local ?? socket.reservation?.endpoint
      else {
        return nil
      }
      return InternetSocketListing(
        local: local, remote: socket.connection?.remote ?? .any, state: socket.stateNumber,
        receiveQueue: socket.listener?.waitingConnections ?? readableBytes, sendQueue: unsentBytes,
        isTCP: true)
    }
    guard let datagrams = self as? DatagramSocket, datagrams.socket.local.port != 0 else { return nil }
    let socket = datagrams.socket
    return InternetSocketListing(
      local: socket.local, remote: socket.remote, state: socket.isConnected ? 1 : 7,
      receiveQueue: readableBytes, sendQueue: 0, isTCP: false)
  }
}

extension UnixSocket {
  /// The bound name as /proc/net/unix shows it: a path, `@` and an abstract name, or empty.
  public var listedName: [UInt8] {
    guard address.count > 2 else { return [] }
    var name = Array(address[2...])
    if name[0] == 0 {
      for index in name.indices where name[index] == 0 { name[index] = 0x40 }
      return name
    }
    if name.last == 0 { name.removeLast() }
    return name
  }

  /// As Linux numbers states (linux/net.h): 1 unconnected, 3 connected.
  public var listedState: UInt8 { peer == nil || isListening ? 1 : 3 }
  public var acceptsConnections: Bool { isListening }
}
