import Net
import Testing

@Suite("IPv6 neighbours, routers and addresses") struct DiscoveryTests {
  private static let prefix: UInt64 = 0x2001_0DB8_0001_0000
  private static let global = IPAddress(high: prefix, low: 0x0000_00FF_FE00_000A)

  private func advertised(_ frame: [UInt8] = Frames.advertisement()) -> Simulation {
    let simulation = Simulation()
    simulation.enableIPv6()
    simulation.inject(frame)
    simulation.run(2000)
    return simulation
  }

  @Test("the link-local address is used after its check, not before")
  func linkLocal() throws {
    let simulation = Simulation()
    simulation.a.enableIPv6(now: simulation.now)
    simulation.run(500)
    #expect(simulation.a.interfaceAddresses.first?.isTentative == true)
    #expect(!simulation.a.isLocal(Simulation.localA))
    simulation.run(1000)
    #expect(simulation.a.isLocal(Simulation.localA))
  }

  @Test("two that begin to use the same address at once both leave it")
  func duplicateAtOnce() throws {
    let device = SimulatedDevice()
    let stack = NetworkStack(
      device: device, macAddress: MACAddress(rawValue: 0x0200_0000_000A), randomSeed: 1)
    stack.enableIPv6(now: 1)
    stack.poll(now: 1)
    let probe = try #require(device.sent.map { $0.1 }.last { $0.count > 54 && $0[54] == 135 })
    probe.withUnsafeBytes { stack.receive(frame: $0, checksumValidated: false, now: 2) }
    #expect(stack.interfaceAddresses.first?.isDuplicate == true)
    stack.poll(now: 5_000_000_000)
    #expect(!stack.isLocal(Simulation.localA))
  }

  @Test("an address that a neighbour defends is not used, and the neighbour keeps it")
  func duplicateLater() throws {
    let simulation = Simulation()
    simulation.enableIPv6()
    simulation.b.addIPv6(Simulation.localA, prefixLength: 64, now: simulation.now)
    simulation.run(3000)
    #expect(simulation.b.interfaceAddresses.last?.isDuplicate == true)
    #expect(simulation.a.isLocal(Simulation.localA) && !simulation.b.isLocal(Simulation.localA))
  }

  @Test("routers are asked for three times, then no more")
  func solicitations() throws {
    let simulation = Simulation()
    var count = 0
    simulation.filter = { fromA, bytes in
      if fromA, bytes.count > 54, bytes[20] == 58, bytes[54] == 133 { count += 1 }
      return false
    }
    simulation.enableIPv6()
    simulation.run(60_000)
    #expect(count == 3)
  }

  @Test("a router's prefix makes an address, a route and a name server")
  func advertisement() throws {
    let simulation = advertised()
    let stack = simulation.a
    #expect(stack.isLocal(Self.global))
    #expect(stack.defaultRouters.map { $0.address } == [Frames.address(Frames.router)])
    #expect(stack.nameServersIPv6 == [IPAddress(high: 0x2001_0DB8 << 32, low: 0x53)])
    let far = IPAddress(high: 0x2A00 << 48, low: 1)
    #expect(stack.neighbourAddress(toward: far) == Frames.address(Frames.router))
    #expect(try stack.sourceAddress(toward: far) == Self.global)
    let near = IPAddress(high: Self.prefix, low: 99)
    #expect(stack.neighbourAddress(toward: near) == near)
    #expect(try stack.sourceAddress(toward: Simulation.localB) == Simulation.localA)
  }

  @Test("without a router far addresses are unreachable")
  func noRouter() throws {
    let simulation = Simulation()
    simulation.enableIPv6()
    #expect(throws: NetworkError.networkUnreachable) {
      try simulation.a.sourceAddress(toward: IPAddress(high: 0x2A00 << 48, low: 1))
    }
  }

  @Test("lifetimes end: first preference, then the router, then the address")
  func lifetimes() throws {
    let simulation = advertised(Frames.advertisement(valid: 4000, preferred: 100, router: 200))
    simulation.run(110_000)
    #expect(simulation.a.interfaceAddresses.last?.isDeprecated == true)
    #expect(simulation.a.defaultRouters.count == 1)
    simulation.run(100_000)
    #expect(simulation.a.defaultRouters.isEmpty)
    #expect(simulation.a.isLocal(Self.global))
    simulation.run(4_000_000)
    #expect(!simulation.a.isLocal(Self.global))
    #expect(simulation.a.nameServersIPv6.isEmpty)
  }

  @Test("a forged short lifetime shortens an address to two hours only")
  func twoHours() throws {
    let simulation = advertised(Frames.advertisement(valid: 86400))
    simulation.inject(Frames.advertisement(valid: 1, preferred: 1))
    simulation.run(7_000_000)
    #expect(simulation.a.isLocal(Self.global))
    simulation.run(300_000)
    #expect(!simulation.a.isLocal(Self.global))
  }

  @Test("advertisements from afar, from no router or with broken options count for nothing")
  func badAdvertisements() throws {
    var broken = Frames.advertisement()
    broken[54 + 17] = 0
    let frames = [
      Frames.advertisement(hopLimit: 254), Frames.advertisement(from: Frames.bytes(Self.global)), broken,
    ]
    for frame in frames {
      let simulation = advertised(frame)
      #expect(simulation.a.defaultRouters.isEmpty && simulation.a.interfaceAddresses.count == 1)
    }
  }

  @Test("a flood of routers and prefixes stays within bounds")
  func flood() throws {
    let simulation = Simulation()
    simulation.enableIPv6()
    for index in 0..<500 {
      var router = Frames.router
      router[14] = UInt8(index & 255)
      router[13] = UInt8(index >> 8)
      var message: [UInt8] = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 64, 0xc0]
      message += Frames.seconds(86400) + Frames.seconds(86400) + [0, 0, 0, 0]
      message += [0x20, 1, 0x0d, 0xb8, UInt8(index >> 8), UInt8(index & 255)]
      message += [UInt8](repeating: 0, count: 10)
      simulation.inject(Frames.icmpv6(from: router, to: Frames.allNodes, message))
    }
    #expect(simulation.a.defaultRouters.count == 8)
    #expect(simulation.a.interfaceAddresses.count <= 16 && simulation.a.onLinkPrefixes.count <= 16)
  }

  @Test("a neighbour that does not answer makes the host unreachable")
  func unreachable() throws {
    let simulation = Simulation()
    simulation.enableIPv6()
    let client = TCPConnection(simulation.a)
    let nobody = IPAddress(high: 0xFE80 << 48, low: 77)
    try client.connect(to: Endpoint(nobody, 9), from: nil, now: simulation.now)
    simulation.run(5000)
    #expect(client.takeError() == .hostUnreachable)
  }

  @Test("without the override flag an answer does not change a known neighbour")
  func override() throws {
    let simulation = Simulation()
    simulation.enableIPv6()
    _ = try simulation.connectedPair(to: Simulation.localB)
    func answer(_ flags: UInt8) -> [UInt8] {
      Frames.icmpv6(
        from: Frames.bytes(Simulation.localB), to: Frames.bytes(Simulation.localA),
        [136, 0, 0, 0, flags, 0, 0, 0] + Frames.bytes(Simulation.localB) + [2, 1, 2, 0, 0, 0, 0, 0x99])
    }
    func known() -> MACAddress? {
      simulation.a.neighbourEntries.first { $0.address == Simulation.localB }?.mac
    }
    simulation.inject(answer(0x40))
    #expect(known() == MACAddress(rawValue: 0x0200_0000_000B))
    simulation.inject(answer(0x60))
    #expect(known() == MACAddress(rawValue: 0x0200_0000_0099))
  }

  @Test("groups are reported when joined, when left and when a router asks")
  func membership() throws {
    let simulation = Simulation()
    simulation.enableIPv6()
    simulation.run(20_000)
    var reports: [[UInt8]] = []
    simulation.filter = { fromA, bytes in
      if fromA { reports.append(bytes) }
      return false
    }
    let groups = [IPAddress(IPv4Address(239, 1, 2, 3)), IPAddress(high: 0xFF05 << 48, low: 0x1234)]
    for group in groups { try simulation.a.join(group, now: simulation.now) }
    simulation.run(5000)
    #expect(reports.count == 4, "each twice")
    #expect(reports.contains { $0[12] == 8 && Array($0[38...]).first == 0x22 && $0[46] == 4 })
    #expect(reports.contains { $0[12] == 0x86 && $0[62] == 143 && $0[70] == 4 })
    reports.removeAll()
    simulation.inject(
      Frames.icmpv6(
        from: Frames.router, to: Frames.allNodes, hopLimit: 1,
        [130, 0, 0, 0, 0, 100, 0, 0] + [UInt8](repeating: 0, count: 20)))
    simulation.run(1000)
    #expect(reports.count == 1 && reports[0].count == 14 + 40 + 8 + 8 + 20 * 2)
    reports.removeAll()
    for group in groups { simulation.a.leave(group, now: simulation.now) }
    simulation.run(5000)
    #expect(reports.count == 4)
  }
}
