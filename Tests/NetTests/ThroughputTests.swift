import Foundation
import Net
import Testing

@Suite("Efficiency") struct ThroughputTests {
  @Test(
    "a transfer over a clean link needs no retransmission and few acknowledgements", arguments: [false, true])
  func frames(_ offloads: Bool) throws {
    let simulation = Simulation(offloads: offloads)
    let (client, server, _) = try simulation.connectedPair()
    let data = randomBytes(4_000_000, 1)
    var sent = 0
    var got = 0
    let before = simulation.framesCarried
    let start = simulation.now
    #expect(
      simulation.run {
        if sent < data.count { sent += (try? write(data[sent...], to: client, now: simulation.now)) ?? 0 }
        got += readAll(server, now: simulation.now).count
        simulation.collect()
        return got == data.count
      })
    #expect(client.retransmissions == 0)
    let frames = simulation.framesCarried - before
    #expect(frames < (offloads ? 500 : 4_000_000 / 1448 * 2))
    // A round trip of 2 ms and growing windows: well below a second.
    #expect(simulation.now - start < 500_000_000)
  }

  @Test("one lost frame among many costs no timeout when SACK tells of it")
  func oneLoss() throws {
    let simulation = Simulation()
    let (client, server, _) = try simulation.connectedPair()
    let data = randomBytes(1_000_000, 1)
    var sent = 0
    var got: [UInt8] = []
    var count = 0
    simulation.filter = { fromA, bytes in
      guard fromA, bytes.count > 1000 else { return false }
      count += 1
      return count == 100 || count == 103 || count == 110
    }
    let start = simulation.now
    #expect(
      simulation.run {
        if sent < data.count { sent += (try? write(data[sent...], to: client, now: simulation.now)) ?? 0 }
        got += readAll(server, now: simulation.now)
        simulation.collect()
        return got.count == data.count
      })
    #expect(got == data)
    #expect(client.retransmissions == 3)
    #expect(simulation.now - start < 150_000_000)
  }

  @Test("loopback moves bytes fast")
  func loopbackSpeed() throws {
    let stack = NetworkStack(device: nil, macAddress: MACAddress(rawValue: 2), randomSeed: 3)
    let listener = try stack.listen(try stack.reserveTCP(Endpoint(.any, 80)), backlog: 5)
    let client = TCPConnection(stack)
    try client.connect(to: Endpoint(.loopback, 80), from: nil, now: 1_000_000)
    let server = try listener.accept()
    let total = 1 << 30
    var got = 0
    var now: UInt64 = 1_000_000
    let start = ContinuousClock.now
    while got < total {
      let region = try client.writableRegion()
      if !region.isEmpty { client.commitWrite(region.count, now: now) }
      while server.readableBytes > 0 {
        let count = server.readableRegion().count
        got += count
        server.consume(count, now: now)
      }
      now += 10_000
      if region.isEmpty { stack.poll(now: now) }
    }
    print("loopback: 1 GiB in \(ContinuousClock.now - start), \(client.retransmissions) retransmissions")
    #expect(client.retransmissions == 0)
  }

  @Test("connections come and go without leaving anything behind")
  func churn() throws {
    let stack = NetworkStack(device: nil, macAddress: MACAddress(rawValue: 2), randomSeed: 3)
    let listener = try stack.listen(try stack.reserveTCP(Endpoint(.any, 80)), backlog: 5)
    var now: UInt64 = 1_000_000
    let start = ContinuousClock.now
    for _ in 0..<20_000 {
      let client = TCPConnection(stack)
      try client.connect(to: Endpoint(.loopback, 80), from: nil, now: now)
      let server = try listener.accept()
      _ = try write([1, 2, 3], to: client, now: now)
      #expect(readAll(server, now: now) == [1, 2, 3])
      server.close(now: now)
      client.close(now: now)
      now += 1000
    }
    print("20000 connections in \(ContinuousClock.now - start)")
    #expect(stack.connectionCount == 0)
  }
}
