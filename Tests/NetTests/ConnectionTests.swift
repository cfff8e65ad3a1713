import Net
import Testing

@Suite("TCP connections") struct ConnectionTests {
  @Test("closing both ends goes through FIN-WAIT, CLOSE-WAIT and LAST-ACK to TIME-WAIT")
  func closeStates() throws {
    let simulation = Simulation()
    let (client, server, _) = try simulation.connectedPair()
    try client.shutdown(read: false, write: true, now: simulation.now)
    #expect(client.state == .finWait1)
    simulation.run(100)
    #expect(client.state == .finWait2)
    #expect(server.state == .closeWait)
    #expect(server.isReadable && server.hasPeerHangup)
    server.close(now: simulation.now)
    #expect(server.state == .lastAck)
    simulation.run(100)
    #expect(server.state == .closed)
    #expect(client.state == .timeWait)
    simulation.run(61_000)
    #expect(simulation.a.nextDeadline == nil)
  }

  @Test("a half-closed connection still carries data the other way")
  func halfClose() throws {
    let simulation = Simulation()
    let (client, server, _) = try simulation.connectedPair()
    try client.shutdown(read: false, write: true, now: simulation.now)
    simulation.run(50)
    _ = try write([1, 2, 3], to: server, now: simulation.now)
    simulation.run(50)
    #expect(readAll(client, now: simulation.now) == [1, 2, 3])
    #expect(throws: NetworkError.brokenPipe) { try client.writableRegion() }
  }

  @Test("both ends closing at once end in TIME-WAIT")
  func simultaneousClose() throws {
    let simulation = Simulation()
    let (client, server, _) = try simulation.connectedPair()
    try client.shutdown(read: false, write: true, now: simulation.now)
    try server.shutdown(read: false, write: true, now: simulation.now)
    simulation.run(200)
    #expect(client.state == .timeWait)
    #expect(server.state == .timeWait)
  }

  @Test("both ends opening at once make one connection")
  func simultaneousOpen() throws {
    let simulation = Simulation()
    let a = TCPConnection(simulation.a)
    let b = TCPConnection(simulation.b)
    let portA = try simulation.a.reserveTCP(Endpoint(Simulation.addressA, 1000))
    let portB = try simulation.b.reserveTCP(Endpoint(Simulation.addressB, 2000))
    try a.connect(to: portB.endpoint, from: portA, now: simulation.now)
    try b.connect(to: portA.endpoint, from: portB, now: simulation.now)
    #expect(simulation.run(seconds: 10) { a.state == .established && b.state == .established })
    _ = try write([7], to: a, now: simulation.now)
    simulation.run(100)
    #expect(readAll(b, now: simulation.now) == [7])
  }

  @Test("an abort resets the peer")
  func reset() throws {
    let simulation = Simulation()
    let (client, server, _) = try simulation.connectedPair()
    client.abort(now: simulation.now)
    simulation.run(50)
    #expect(server.state == .closed)
    #expect(server.takeError() == .connectionReset)
    #expect(server.takeError() == nil)
    #expect(throws: NetworkError.brokenPipe) { try server.writableRegion() }
  }

  @Test("closing with unread data resets the peer")
  func closeUnread() throws {
    let simulation = Simulation()
    let (client, server, _) = try simulation.connectedPair()
    _ = try write([1], to: client, now: simulation.now)
    simulation.run(50)
    server.close(now: simulation.now)
    simulation.run(50)
    #expect(client.takeError() == .connectionReset)
  }

  @Test("a port nobody listens on refuses")
  func refused() throws {
    let simulation = Simulation()
    let client = TCPConnection(simulation.a)
    try client.connect(to: Endpoint(Simulation.addressB, 9), from: nil, now: simulation.now)
    simulation.run(100)
    #expect(client.state == .closed)
    #expect(client.takeError() == .connectionRefused)
  }

  @Test("a refused connection can be tried again, and the retry survives a lost SYN")
  func tryAgain() throws {
    let simulation = Simulation()
    let client = TCPConnection(simulation.a)
    try client.connect(to: Endpoint(Simulation.addressB, 80), from: nil, now: simulation.now)
    #expect(throws: NetworkError.already) {
      try client.connect(to: Endpoint(Simulation.addressB, 80), from: nil, now: simulation.now)
    }
    simulation.run(100)
    #expect(client.takeError() == .connectionRefused)
    let listener = try simulation.b.listen(try simulation.b.reserveTCP(Endpoint(.any, 80)), backlog: 1)
    var dropped = false
    simulation.filter = { _, _ in
      defer { dropped = true }
      return !dropped
    }
    try client.connect(to: Endpoint(Simulation.addressB, 80), from: nil, now: simulation.now)
    simulation.run(3000)
    #expect(dropped && client.state == .established && listener.isReadable)
    #expect(throws: NetworkError.isConnected) {
      try client.connect(to: Endpoint(Simulation.addressB, 80), from: nil, now: simulation.now)
    }
  }

  @Test("the user timeout ends a connection whose peer is silent")
  func userTimeout() throws {
    let simulation = Simulation()
    let (client, _, _) = try simulation.connectedPair()
    client.options.userTimeout = 5_000_000_000
    simulation.filter = { _, _ in true }
    _ = try write([1], to: client, now: simulation.now)
    simulation.run(4000)
    #expect(client.state == .established)
    simulation.run(10_000)
    #expect(client.takeError() == .timedOut)
  }

  @Test("a neighbour that does not answer makes the host unreachable")
  func unreachable() throws {
    let simulation = Simulation()
    let client = TCPConnection(simulation.a)
    try client.connect(to: Endpoint(IPv4Address(10, 0, 0, 77), 9), from: nil, now: simulation.now)
    simulation.run(5000)
    #expect(client.takeError() == .hostUnreachable)
    let other = TCPConnection(simulation.a)
    #expect(throws: NetworkError.networkUnreachable) {
      try other.connect(to: Endpoint(IPv4Address(8, 8, 8, 8), 9), from: nil, now: simulation.now)
    }
  }

  @Test("a lost SYN is sent again, and a connection nobody answers times out")
  func synLoss() throws {
    let simulation = Simulation()
    var dropped = 0
    simulation.filter = { fromA, bytes in
      guard fromA, bytes.count > 47, bytes[23] == 6, bytes[47] == 2, dropped < 2 else { return false }
      dropped += 1
      return true
    }
    _ = try simulation.connectedPair()
    #expect(dropped == 2)
    let client = TCPConnection(simulation.a)
    simulation.filter = { _, bytes in bytes[12] == 8 && bytes[13] == 0 }
    try client.connect(to: Endpoint(Simulation.addressB, 80), from: nil, now: simulation.now)
    simulation.run(200_000)
    #expect(client.takeError() == .timedOut)
  }

  @Test("a reader that stops closes the window, and starting again opens it")
  func zeroWindow() throws {
    let simulation = Simulation()
    var options = TCPOptions()
    options.receiveLimit = 8192
    let (client, server, _) = try simulation.connectedPair(options)
    let data = randomBytes(100_000, 5)
    var sent = 0
    _ = simulation.run(seconds: 30) {
      sent += (try? write(data[sent...], to: client, now: simulation.now)) ?? 0
      return false
    }
    #expect(server.readableBytes <= 8192)
    var got: [UInt8] = []
    // Window updates may be lost: the probe must find out.
    simulation.weather.loss = 300
    let done = simulation.run(seconds: 3600) {
      got += readAll(server, now: simulation.now)
      if sent < data.count { sent += (try? write(data[sent...], to: client, now: simulation.now)) ?? 0 }
      return got.count == data.count
    }
    #expect(done)
    #expect(got == data)
  }

  @Test("a full backlog drops SYNs until something is accepted")
  func backlog() throws {
    let simulation = Simulation()
    let listener = try simulation.b.listen(try simulation.b.reserveTCP(Endpoint(.any, 80)), backlog: 2)
    var clients: [TCPConnection] = []
    for _ in 0..<6 {
      let client = TCPConnection(simulation.a)
      try client.connect(to: Endpoint(Simulation.addressB, 80), from: nil, now: simulation.now)
      clients.append(client)
    }
    simulation.run(200)
    #expect(listener.waitingConnections == 3)
    for _ in 0..<3 { _ = try listener.accept() }
    #expect(throws: NetworkError.wouldBlock) { try listener.accept() }
    simulation.run(20_000)
    #expect(listener.waitingConnections == 3)
    listener.close(now: simulation.now)
    simulation.run(1000)
    #expect(clients.filter { $0.state == .closed }.count == 3)
  }

  @Test("a flood of SYNs stays within bounds and real clients get in afterwards")
  func synFlood() throws {
    let simulation = Simulation()
    let listener = try simulation.b.listen(try simulation.b.reserveTCP(Endpoint(.any, 80)), backlog: 2)
    simulation.filter = { fromA, bytes in fromA && bytes.count > 47 && bytes[23] == 6 && bytes[47] != 2 }
    for _ in 0..<2000 {
      let client = TCPConnection(simulation.a)
      try client.connect(to: Endpoint(Simulation.addressB, 80), from: nil, now: simulation.now)
      simulation.run(3)
      client.close(now: simulation.now)
    }
    #expect(simulation.b.connectionCount <= 256)
    simulation.filter = nil
    simulation.run(130_000)
    // A few of the last did finish their handshake when their FIN got through, and wait to be accepted.
    while let late = try? listener.accept() { late.close(now: simulation.now) }
    simulation.run(1000)
    #expect(simulation.b.connectionCount == 0)
    let client = TCPConnection(simulation.a)
    try client.connect(to: Endpoint(Simulation.addressB, 80), from: nil, now: simulation.now)
    simulation.run(100)
    #expect(listener.isReadable)
  }

  @Test("an honest client gets in while SYNs from nowhere flood the port")
  func connectDuringFlood() throws {
    let simulation = Simulation()
    let listener = try simulation.b.listen(try simulation.b.reserveTCP(Endpoint(.any, 80)), backlog: 2)
    let honest = TCPConnection(simulation.a)
    for index in 0..<1000 {
      let port = UInt16(2000 + index)
      var frame = Frames.ipv4(
        kind: 6,
        payload: [
          UInt8(port >> 8), UInt8(port & 255), 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, 0x50, 2, 9, 9, 0, 0, 0, 0,
        ])
      frame.replaceSubrange(26..<34, with: [10, 0, 0, 1, 10, 0, 0, 2])
      // A's answers to what it never asked would end the flood's handshakes: lose them.
      simulation.filter = { fromA, bytes in fromA && bytes.count > 47 && bytes[23] == 6 && bytes[47] & 4 != 0
      }
      frame.withUnsafeBytes { simulation.b.receive(frame: $0, checksumValidated: true, now: simulation.now) }
      if index == 600 {
        try honest.connect(to: Endpoint(Simulation.addressB, 80), from: nil, now: simulation.now)
      }
      if index % 10 == 0 { simulation.run(1) }
    }
    simulation.run(50)
    #expect(simulation.b.connectionCount <= 257)
    #expect(honest.state == .established)
    #expect(try listener.accept().remote == honest.local)
  }

  @Test("a new SYN reuses a conversation in TIME-WAIT")
  func timeWaitReuse() throws {
    let simulation = Simulation()
    let (client, server, listener) = try simulation.connectedPair()
    let port = client.local.port
    server.close(now: simulation.now)
    simulation.run(100)
    client.close(now: simulation.now)
    simulation.run(100)
    #expect(server.state == .timeWait)
    let bound = try simulation.a.reserveTCP(Endpoint(Simulation.addressA, port))
    let again = TCPConnection(simulation.a)
    try again.connect(to: Endpoint(Simulation.addressB, 80), from: bound, now: simulation.now)
    simulation.run(100)
    #expect(again.state == .established)
    #expect(listener.isReadable)
  }

  @Test("keep-alive finds a dead peer")
  func keepAlive() throws {
    let simulation = Simulation()
    var options = TCPOptions()
    options.keepAlive = true
    options.keepAliveIdle = 1_000_000_000
    options.keepAliveInterval = 1_000_000_000
    options.keepAliveCount = 3
    let (client, server, _) = try simulation.connectedPair(options)
    simulation.run(20_000)
    #expect(client.state == .established)
    simulation.filter = { _, _ in true }
    simulation.run(20_000)
    #expect(client.takeError() == .timedOut)
    #expect(server.state == .closed)
  }

  /// A bare segment as if from A's end of a connection to B.
  private func forged(_ client: TCPConnection, _ sequence: UInt32, _ flags: UInt8) -> [UInt8] {
    func bytes(_ value: UInt32) -> [UInt8] {
      (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(24 - 8 * $0)) }
    }
    let ports = [UInt8(client.local.port >> 8), UInt8(client.local.port & 255), 0, 80]
    let segment =
      ports + bytes(sequence) + bytes(client.sequenceNumbers.receive) + [0x50, flags, 1, 0, 0, 0, 0, 0]
    var frame = Frames.ipv4(kind: 6, payload: segment)
    // The same header sum holds with the addresses exchanged.
    frame.replaceSubrange(26..<34, with: [10, 0, 0, 1, 10, 0, 0, 2])
    return frame
  }

  @Test("only a reset with the exact sequence number resets; a SYN never does")
  func blindReset() throws {
    let simulation = Simulation()
    let (client, server, _) = try simulation.connectedPair()
    let next = client.sequenceNumbers.send
    for (sequence, flags) in [(next &+ 100, UInt8(4)), (next &- 1, 4), (next, 2), (next &+ 5, 2)] {
      let before = simulation.framesCarried
      forged(client, sequence, flags).withUnsafeBytes {
        simulation.b.receive(frame: $0, checksumValidated: true, now: simulation.now)
      }
      #expect(server.state == .established)
      simulation.run(10)
      #expect(simulation.framesCarried - before == (sequence == next &- 1 ? 0 : 1), "one challenge ACK")
    }
    forged(client, next, 4).withUnsafeBytes {
      simulation.b.receive(frame: $0, checksumValidated: true, now: simulation.now)
    }
    #expect(server.takeError() == .connectionReset)
  }

  @Test("a cork holds short segments back until it is pulled")
  func cork() throws {
    let simulation = Simulation()
    let (client, server, _) = try simulation.connectedPair()
    client.options.cork = true
    _ = try write([1, 2, 3], to: client, now: simulation.now)
    simulation.run(50)
    #expect(server.readableBytes == 0)
    client.options.cork = false
    simulation.run(5)
    #expect(server.readableBytes == 3)
  }

  @Test("a deferred connection is accepted with its first data")
  func deferAccept() throws {
    let simulation = Simulation()
    var options = TCPOptions()
    options.deferAccept = true
    let listener = try simulation.b.listen(
      try simulation.b.reserveTCP(Endpoint(.any, 80)), backlog: 4, options: options)
    let client = TCPConnection(simulation.a)
    try client.connect(to: Endpoint(Simulation.addressB, 80), from: nil, now: simulation.now)
    simulation.run(100)
    #expect(client.state == .established && !listener.isReadable)
    _ = try write([9], to: client, now: simulation.now)
    simulation.run(10)
    #expect(readAll(try listener.accept(), now: simulation.now) == [9])
  }

  @Test("Nagle holds small writes back and TCP_NODELAY does not")
  func nagle() throws {
    for noDelay in [false, true] {
      let simulation = Simulation()
      var options = TCPOptions()
      options.noDelay = noDelay
      let (client, server, _) = try simulation.connectedPair(options)
      let before = simulation.framesCarried
      for index in 0..<10 { _ = try write([UInt8(index)], to: client, now: simulation.now) }
      simulation.run(1)
      simulation.run(1)
      #expect(server.readableBytes == (noDelay ? 10 : 1))
      #expect(simulation.framesCarried - before >= (noDelay ? 10 : 1))
      simulation.run(100)
      #expect(readAll(server, now: simulation.now) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    }
  }

  @Test("listeners with SO_REUSEPORT share the connections")
  func reusePort() throws {
    let simulation = Simulation()
    var listeners: [TCPListener] = []
    for _ in 0..<4 {
      let held = try simulation.b.reserveTCP(Endpoint(.any, 80), reusePort: true)
      listeners.append(try simulation.b.listen(held, backlog: 100))
    }
    #expect(throws: NetworkError.addressInUse) { try simulation.b.reserveTCP(Endpoint(.any, 80)) }
    for _ in 0..<80 {
      let client = TCPConnection(simulation.a)
      try client.connect(to: Endpoint(Simulation.addressB, 80), from: nil, now: simulation.now)
    }
    simulation.run(5000)
    #expect(listeners.reduce(0) { $0 + $1.waitingConnections } == 80)
    #expect(listeners.allSatisfy { $0.waitingConnections > 5 })
  }

  @Test("loopback carries a transfer within the calls themselves")
  func loopback() throws {
    let stack = NetworkStack(device: nil, macAddress: MACAddress(rawValue: 2), randomSeed: 3)
    let listener = try stack.listen(try stack.reserveTCP(Endpoint(.any, 80)), backlog: 5)
    let client = TCPConnection(stack)
    try client.connect(to: Endpoint(.loopback, 80), from: nil, now: 1_000_000)
    #expect(client.state == .established)
    let server = try listener.accept()
    let data = randomBytes(2_000_000, 8)
    var got: [UInt8] = []
    var sent = 0
    var now: UInt64 = 1_000_000
    while got.count < data.count, now < 2_000_000_000 {
      sent += try write(data[sent...], to: client, now: now)
      got += readAll(server, now: now)
      now += 1000
      stack.poll(now: now)
    }
    #expect(got == data)
    #expect(now < 200_000_000)
    let refused = TCPConnection(stack)
    try refused.connect(to: Endpoint(.loopback, 81), from: nil, now: now)
    #expect(refused.takeError() == .connectionRefused)
  }
}
