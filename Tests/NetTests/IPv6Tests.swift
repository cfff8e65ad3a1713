import Net
import Testing

@Suite("IPv6") struct IPv6Tests {
  /// Sends both ways at once over link-local addresses and compares every byte.
  private func exchange(_ seed: UInt64, _ weather: Weather, _ size: Int, offloads: Bool = false) throws {
    let simulation = Simulation(seed: seed, offloads: offloads)
    simulation.enableIPv6()
    simulation.weather = weather
    let (client, server, _) = try simulation.connectedPair(to: Simulation.localB)
    #expect(server.remote.address == Simulation.localA)
    try simulation.exchange(client, server, seed, size)
    client.close(now: simulation.now)
    server.close(now: simulation.now)
  }

  @Test("every byte arrives over a clean IPv6 link", arguments: [false, true])
  func clean(_ offloads: Bool) throws { try exchange(1, Weather(), 2_000_000, offloads: offloads) }

  @Test("every byte arrives over IPv6 with loss, reordering and duplication", arguments: 1...24)
  func lossy(_ seed: Int) throws {
    let weather = Weather(
      loss: seed % 7 * 15, duplication: seed % 3 * 20, reordering: seed % 5 * 50,
      delay: UInt64(seed % 4) * 10_000_000 + 100_000)
    try exchange(UInt64(seed), weather, 150_000, offloads: seed % 4 == 0)
  }

  @Test("IPv6 segments fill the MTU and no more")
  func segmentSize() throws {
    let simulation = Simulation()
    simulation.enableIPv6()
    var longest = 0
    simulation.filter = { _, bytes in
      longest = max(longest, bytes.count)
      return false
    }
    let (client, server, _) = try simulation.connectedPair(to: Simulation.localB)
    _ = try write(randomBytes(100_000, 1)[...], to: client, now: simulation.now)
    simulation.run(500)
    #expect(server.readableBytes == 100_000)
    #expect(longest == 14 + 1500)
  }

  @Test("a listener on :: hears both families, and one restricted to IPv6 leaves IPv4 to another")
  func dualStack() throws {
    let simulation = Simulation()
    simulation.enableIPv6()
    let both = try simulation.b.listen(try simulation.b.reserveTCP(Endpoint(.any, 80)), backlog: 8)
    #expect(throws: NetworkError.addressInUse) {
      _ = try simulation.b.reserveTCP(Endpoint(.anyIPv4, 80))
    }
    #expect(throws: NetworkError.addressInUse) {
      _ = try simulation.b.reserveTCP(Endpoint(Simulation.addressB, 80))
    }
    for address in [IPAddress(Simulation.addressB), Simulation.localB] {
      let client = TCPConnection(simulation.a)
      try client.connect(to: Endpoint(address, 80), from: nil, now: simulation.now)
      #expect(simulation.run { client.state == .established && both.isReadable })
      #expect(try both.accept().local.address == address)
    }
    let six = try simulation.b.listen(
      try simulation.b.reserveTCP(Endpoint(.any, 81), onlyIPv6: true), backlog: 8)
    let refused = TCPConnection(simulation.a)
    try refused.connect(to: Endpoint(Simulation.addressB, 81), from: nil, now: simulation.now)
    simulation.run(100)
    #expect(refused.takeError() == .connectionRefused)
    let four = try simulation.b.listen(try simulation.b.reserveTCP(Endpoint(.anyIPv4, 81)), backlog: 8)
    for (address, listener) in [(IPAddress(Simulation.addressB), four), (Simulation.localB, six)] {
      let client = TCPConnection(simulation.a)
      try client.connect(to: Endpoint(address, 81), from: nil, now: simulation.now)
      #expect(simulation.run { listener.isReadable })
      _ = try listener.accept()
    }
  }

  @Test("datagrams up to 60000 bytes are cut and put together", arguments: [0, 1, 1452, 1453, 9000, 60000])
  func fragments(_ size: Int) throws {
    let simulation = Simulation()
    simulation.enableIPv6()
    simulation.weather.reordering = 300
    simulation.weather.duplication = 100
    let server = UDPSocket(simulation.b)
    try server.bind(Endpoint(.any, 53))
    let client = UDPSocket(simulation.a)
    // Only a few frames wait for a neighbour to answer.
    try [1].withUnsafeBytes { try client.send($0, to: Endpoint(Simulation.localB, 54), now: simulation.now) }
    simulation.run(50)
    let data = randomBytes(size, 3)
    try data.withUnsafeBytes {
      try client.send($0, to: Endpoint(Simulation.localB, 53), now: simulation.now)
    }
    simulation.run(500)
    let datagram = try #require(try server.firstDatagram())
    #expect([UInt8](datagram.payload) == data)
    #expect(datagram.source.address == Simulation.localA)
  }

  @Test("a datagram of overlapping fragments is thrown away")
  func overlap() throws {
    let simulation = Simulation()
    simulation.enableIPv6()
    let server = UDPSocket(simulation.a)
    try server.bind(Endpoint(.any, 53))
    let own = Frames.bytes(Simulation.localA)
    func fragment(_ offset: Int, more: Bool, _ bytes: ArraySlice<UInt8>, _ number: UInt8) -> [UInt8] {
      let header: [UInt8] = [
        17, 0, UInt8(offset >> 8), UInt8(offset & 255) | (more ? 1 : 0), 0, 0, 0, number,
      ]
      return Frames.ipv6(44, from: Frames.router, to: own, payload: header + bytes)
    }
    let plain: [UInt8] = [0, 9, 0, 53, 0, 32, 0, 0] + randomBytes(24, 1)
    let pseudo = Frames.router + own + [0, 0, 0, 32, 0, 0, 0, 17]
    let datagram = Frames.withChecksum(plain, at: 6, pseudo: pseudo)
    simulation.inject(fragment(16, more: false, datagram[16...], 1))
    simulation.inject(fragment(0, more: true, datagram[..<16], 1))
    #expect(try server.firstDatagram().map { [UInt8]($0.payload) } == Array(datagram[8...]))
    server.removeFirstDatagram()
    simulation.inject(fragment(0, more: true, datagram[..<16], 2))
    simulation.inject(fragment(8, more: true, datagram[8..<24], 2))
    simulation.inject(fragment(16, more: false, datagram[16...], 2))
    #expect(throws: NetworkError.wouldBlock) { try server.firstDatagram() }
  }

  @Test("a closed port is told of, over UDP and TCP")
  func refused() throws {
    let simulation = Simulation()
    simulation.enableIPv6()
    let client = UDPSocket(simulation.a)
    try client.connect(Endpoint(Simulation.localB, 9))
    try [1, 2].withUnsafeBytes { try client.send($0, now: simulation.now) }
    simulation.run(100)
    #expect(client.takeError() == .connectionRefused)
    let stream = TCPConnection(simulation.a)
    try stream.connect(to: Endpoint(Simulation.localB, 9), from: nil, now: simulation.now)
    simulation.run(100)
    #expect(stream.takeError() == .connectionRefused)
  }

  @Test("a router that says too big makes segments smaller, and the bytes arrive")
  func packetTooBig() throws {
    let simulation = Simulation()
    simulation.enableIPv6()
    let (client, server, _) = try simulation.connectedPair(to: Simulation.localB)
    var told = 0
    simulation.filter = { fromA, bytes in
      guard fromA, bytes.count > 14 + 1300 else { return false }
      told += 1
      let message: [UInt8] = [2, 0, 0, 0, 0, 0, 5, 20] + Array(bytes[14..<min(bytes.count, 1200)])
      simulation.inject(
        Frames.icmpv6(from: Frames.router, to: Frames.bytes(Simulation.localA), hopLimit: 64, message))
      return true
    }
    let data = randomBytes(50_000, 4)
    _ = try write(data[...], to: client, now: simulation.now)
    #expect(simulation.run(seconds: 60) { server.readableBytes == data.count })
    #expect(told > 0 && client.maximumSegmentSize <= 1300 - 60)
  }

  @Test("extension headers are skipped, and bad ones refused")
  func extensions() throws {
    let simulation = Simulation()
    simulation.enableIPv6()
    let own = Frames.bytes(Simulation.localA)
    let peer = Frames.bytes(Simulation.localB)
    var answers: [[UInt8]] = []
    simulation.filter = { fromA, bytes in
      if fromA, bytes.count > 54, bytes[20] == 58, bytes[54] < 130 { answers.append(Array(bytes[54...])) }
      return false
    }
    func send(_ next: UInt8, _ headers: [UInt8]) -> [UInt8]? {
      let echo = Frames.icmpv6(from: peer, to: own, [128, 0, 0, 0, 0, 1, 0, 2])
      answers.removeAll()
      simulation.inject(Frames.ipv6(next, from: peer, to: own, payload: headers + echo[54...]))
      simulation.run(10)
      return answers.first
    }
    #expect(send(58, [])?.first == 129)
    #expect(send(0, [58, 0, 5, 2, 0, 0, 1, 0])?.first == 129, "router alert")
    #expect(send(60, [60, 0, 1, 4, 0, 0, 0, 0, 58, 0, 1, 4, 0, 0, 0, 0])?.first == 129)
    #expect(send(43, [58, 0, 0, 0, 0, 0, 0, 0])?.first == 129, "a route at its end")
    #expect(send(44, [58, 0, 0, 0, 0, 0, 0, 1])?.first == 129, "an atomic fragment")
    let route = send(43, [58, 0, 0, 1, 0, 0, 0, 0])
    #expect(route?[0..<2] == [4, 0] && route?[7] == 42, "a route that goes on")
    #expect(send(60, [58, 0, 0xc1, 4, 0, 0, 0, 0])?[0..<2] == [4, 2], "an unknown option")
    #expect(send(60, [58, 0, 0x41, 4, 0, 0, 0, 0]) == nil, "an option to be dropped for")
    #expect(send(60, [0, 0, 1, 4, 0, 0, 0, 0])?[0..<2] == [4, 1], "hop-by-hop not at the beginning")
    #expect(send(253, [])?[0..<2] == [4, 1], "an unknown protocol")
    let long = (0..<12).flatMap { _ in [60, 0, 1, 4, 0, 0, 0, 0] as [UInt8] }
    #expect(send(60, long) == nil, "an endless chain")
  }

  @Test("mapped and loopback addresses do not come from outside")
  func martians() throws {
    let simulation = Simulation()
    simulation.enableIPv6()
    let before = simulation.framesCarried
    let loopback = Frames.bytes(.loopbackIPv6)
    let mapped = Frames.bytes(IPAddress(Simulation.addressB))
    let own = Frames.bytes(Simulation.localA)
    for (source, target) in [(loopback, own), (mapped, own), (Frames.router, loopback), (own, own)] {
      simulation.inject(Frames.icmpv6(from: source, to: target, [128, 0, 0, 0, 0, 1, 0, 2]))
    }
    simulation.run(100)
    #expect(simulation.framesCarried == before)
  }
}
