import Net
import Testing

@Suite("Raw, ping and packet sockets") struct RawSocketTests {
  private func put(_ bytes: [UInt8], to target: IPAddress, _ socket: RawSocket, _ now: UInt64) throws {
    let region = try socket.sendRegion(bytes.count)
    region.copyBytes(from: bytes)
    try socket.commitSend(bytes.count, to: Endpoint(target, 0), now: now)
  }

  @Test("a ping socket hears the answers to its own questions only", arguments: [false, true])
  func ping(_ isIPv6: Bool) throws {
    let simulation = Simulation()
    simulation.enableIPv6()
    let kind: UInt8 = isIPv6 ? 58 : 1
    let target = isIPv6 ? Simulation.localB : IPAddress(Simulation.addressB)
    let one = RawSocket(simulation.a, isIPv6: isIPv6, kind: kind, isPing: true)
    let other = RawSocket(simulation.a, isIPv6: isIPv6, kind: kind, isPing: true)
    try other.bind(Endpoint(isIPv6 ? .any : .anyIPv4, 0))
    try put([isIPv6 ? 128 : 8, 0, 0, 0, 0, 0, 0, 1, 5, 6], to: target, one, simulation.now)
    simulation.run(50)
    let answer = try one.firstPacket()
    #expect(answer.source == target && answer.bytes.count == 10 && Array(answer.bytes[6...]) == [0, 1, 5, 6])
    #expect(throws: NetworkError.wouldBlock) { try other.firstPacket() }
    #expect(throws: NetworkError.invalid) {
      try put([0, 0, 0, 0, 0, 0, 0, 1], to: target, one, simulation.now)
    }
    one.close()
    other.close()
  }

  @Test("a raw socket gets the header, filters types and keeps within its limit")
  func raw() throws {
    let simulation = Simulation()
    let socket = RawSocket(simulation.b, isIPv6: false, kind: 1)
    let sender = RawSocket(simulation.a, isIPv6: false, kind: 1)
    let echo = Frames.withChecksum([8, 0, 0, 0, 0, 7, 0, 1], at: 2)
    try put(echo, to: IPAddress(Simulation.addressB), sender, simulation.now)
    simulation.run(50)
    #expect(try Array(socket.firstPacket().bytes[20...]) == echo)
    #expect(try sender.firstPacket().bytes.count == 28)
    socket.removeFirstPacket()
    socket.blocked[0] = 1 << 8
    for _ in 0..<3 { try put(echo, to: IPAddress(Simulation.addressB), sender, simulation.now) }
    simulation.run(50)
    #expect(throws: NetworkError.wouldBlock) { try socket.firstPacket() }
    socket.blocked[0] = 0
    for _ in 0..<5000 { try put(echo, to: IPAddress(Simulation.addressB), sender, simulation.now) }
    simulation.run(50)
    var count = 0
    while (try? socket.firstPacket()) != nil {
      socket.removeFirstPacket()
      count += 1
    }
    #expect(count > 100 && count < 1000)
  }

  @Test("a program writes its own IPv4 header, and an unknown protocol finds its raw socket")
  func ownHeader() throws {
    let simulation = Simulation()
    let receiver = RawSocket(simulation.b, isIPv6: false, kind: 99)
    let sender = RawSocket(simulation.a, isIPv6: false, kind: 255)
    let packet: [UInt8] = [0x45, 0, 0, 0, 0, 0, 0, 0, 9, 99, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2, 1, 2, 3]
    try put(packet, to: IPAddress(Simulation.addressB), sender, simulation.now)
    simulation.run(50)
    let got = try receiver.firstPacket()
    #expect(got.source == IPAddress(Simulation.addressA) && got.timeToLive == 9 && got.bytes.count == 23)
    #expect(throws: NetworkError.invalid) {
      try put([0x65, 0, 0], to: IPAddress(Simulation.addressB), sender, simulation.now)
    }
  }

  @Test("packet sockets see frames both ways and send their own")
  func packets() throws {
    let simulation = Simulation()
    let watcher = PacketSocket(simulation.a, isCooked: false, etherType: PacketSocket.everyType)
    let arp = PacketSocket(simulation.b, isCooked: true, etherType: 0x0806)
    let client = UDPSocket(simulation.a)
    try [1].withUnsafeBytes {
      try client.send($0, to: Endpoint(Simulation.addressB, 9), now: simulation.now)
    }
    simulation.run(50)
    var directions: [UInt8] = []
    while let frame = try? watcher.firstFrame() {
      directions.append(frame.direction)
      watcher.removeFirstFrame()
    }
    // The question, its answer, the datagram, the refusal.
    #expect(directions == [4, 0, 4, 0])
    #expect(try arp.firstFrame().bytes.count == 28)
    arp.removeFirstFrame()
    let sender = PacketSocket(simulation.a, isCooked: true, etherType: 0)
    let question: [UInt8] =
      [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 10, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]
    try question.withUnsafeBytes {
      try sender.send($0, to: .broadcast, etherType: 0x0806, now: simulation.now)
    }
    simulation.run(50)
    #expect(try [UInt8](arp.firstFrame().bytes) == question)
    #expect(try arp.firstFrame().direction == 1)
  }
}
