import Net
import Testing

@Suite("TCP transfers over a bad link") struct TransferTests {
  /// Sends both ways at once, then closes both ends, and compares every byte.
  private func exchange(
    _ seed: UInt64, _ weather: Weather, _ size: Int, offloads: Bool = false, without: Int = 0
  ) throws {
    let simulation = Simulation(seed: seed, offloads: offloads)
    simulation.weather = weather
    simulation.a.offersSack = without & 1 == 0
    simulation.b.offersTimestamps = without & 2 == 0
    simulation.a.offersWindowScale = without & 4 == 0
    let (client, server, _) = try simulation.connectedPair()
    try simulation.exchange(client, server, seed, size)
    client.close(now: simulation.now)
    #expect(simulation.run { server.isReadable && server.readableBytes == 0 })
    server.close(now: simulation.now)
    #expect(simulation.run { server.state == .closed || server.state == .timeWait }, "seed \(seed)")
  }

  @Test("every byte arrives in order over a clean link")
  func clean() throws { try exchange(1, Weather(), 3_000_000) }

  @Test("every byte arrives in order with segmentation and checksums left to the link")
  func offloaded() throws { try exchange(2, Weather(), 3_000_000, offloads: true) }

  @Test("every byte arrives in order with loss, reordering and duplication", arguments: 1...60)
  func lossy(_ seed: Int) throws {
    let weather = Weather(
      loss: seed % 7 * 15, duplication: seed % 3 * 20, reordering: seed % 5 * 50,
      delay: UInt64(seed % 4) * 10_000_000 + 100_000)
    try exchange(UInt64(seed), weather, 200_000, offloads: seed % 4 == 0)
  }

  @Test("a peer without SACK, timestamps or window scaling gets every byte too", arguments: 0...31)
  func oldPeer(_ seed: Int) throws {
    try exchange(UInt64(seed), Weather(loss: 30, reordering: 30), 150_000, without: seed % 8)
  }

  @Test("a tenth of the frames lost costs time but no byte, and no retransmission timer storm")
  func tenthLost() throws { try exchange(99, Weather(loss: 100), 1_000_000) }
}
