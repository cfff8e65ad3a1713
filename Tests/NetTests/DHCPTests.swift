import Net
import Testing

/// A server of one address, made of what the client sends.
private final class DHCPServer {
  let device = SimulatedDevice()
  let stack: NetworkStack
  var now: UInt64 = 1_000_000_000
  var address: [UInt8] = [192, 168, 7, 30]
  var lease: UInt32 = 3600
  var refuses = false
  var isSilent = false
  /// Types of the messages heard, and whether each was broadcast.
  private(set) var heard: [(type: UInt8, isBroadcast: Bool)] = []

  init() {
    stack = NetworkStack(device: device, macAddress: MACAddress(rawValue: 0x0200_0000_000A), randomSeed: 4)
  }

  /// Runs the clock, answering what comes.
  func run(_ seconds: UInt64) {
    let end = now + seconds * 1_000_000_000
    while true {
      stack.poll(now: now)
      while !device.sent.isEmpty { serve() }
      guard let next = stack.nextDeadline, max(next, now) <= end else { break }
      now = max(next, now + 1)
    }
    now = end
  }

  private func serve() {
    let frames = device.sent
    device.sent.removeAll()
    for (_, frame) in frames {
      if frame[12] == 8, frame[13] == 6 { answerARP(frame) }
      guard frame.count > 290, frame[12] == 8, frame[23] == 17, frame[37] == 67 else { continue }
      let message = Array(frame[42...])
      let type = message[242]
      heard.append((type, frame[30] == 255))
      guard !isSilent else { continue }
      answer(message, type == 1 ? 2 : refuses ? 6 : 5)
    }
  }

  private func answerARP(_ frame: [UInt8]) {
    let server: [UInt8] = [2, 0, 0, 0, 0, 2]
    let reply: [UInt8] =
      Array(frame[6..<12]) + server + [8, 6, 0, 1, 8, 0, 6, 4, 0, 2] + server + Array(frame[38..<42])
      + Array(frame[22..<32])
    reply.withUnsafeBytes { stack.receive(frame: $0, checksumValidated: true, now: now) }
  }

  func answer(_ request: [UInt8], _ type: UInt8, mutate: (inout [UInt8]) -> Void = { _ in }) {
    var message: [UInt8] = [2, 1, 6, 0] + Array(request[4..<8]) + [0, 0, 0x80, 0, 0, 0, 0, 0] + address
    message += [UInt8](repeating: 0, count: 8) + Array(request[28..<44])
    message += [UInt8](repeating: 0, count: 192) + [0x63, 0x82, 0x53, 0x63]
    message += [53, 1, type, 54, 4, 192, 168, 7, 1, 1, 4, 255, 255, 255, 0, 3, 4, 192, 168, 7, 1]
    message += [6, 8, 192, 168, 7, 2, 192, 168, 7, 3, 51, 4] + Frames.seconds(lease) + [255]
    mutate(&message)
    let length = message.count + 8
    let datagram: [UInt8] = [0, 67, 0, 68, UInt8(length >> 8), UInt8(length & 255), 0, 0] + message
    var frame = Frames.ipv4(kind: 17, payload: datagram)
    // From the server to everybody.
    frame.replaceSubrange(26..<34, with: [192, 168, 7, 1, 255, 255, 255, 255])
    frame.replaceSubrange(14..<34, with: Frames.withChecksum(cleared(frame), at: 10))
    frame.withUnsafeBytes { stack.receive(frame: $0, checksumValidated: true, now: now) }
  }

  private func cleared(_ frame: [UInt8]) -> [UInt8] {
    var header = Array(frame[14..<34])
    header[10] = 0
    header[11] = 0
    return header
  }
}

@Suite("DHCP") struct DHCPTests {
  @Test("an address is found with four messages")
  func lease() throws {
    let server = DHCPServer()
    server.stack.startDHCP(hostName: [0x61], now: server.now)
    server.run(1)
    #expect(server.heard.map { $0.type } == [1, 3])
    let lease = try #require(server.stack.lease)
    #expect(lease.address == IPv4Address(192, 168, 7, 30) && lease.prefixLength == 24)
    #expect(lease.gateway == IPv4Address(192, 168, 7, 1) && lease.nameServers.count == 2)
    #expect(server.stack.address == lease.address && server.stack.gatewayAddress == lease.gateway)
  }

  @Test("a lease is renewed from its server at half its time, and keeps the address")
  func renewal() throws {
    let server = DHCPServer()
    server.stack.startDHCP(hostName: [], now: server.now)
    server.run(1900)
    #expect(server.heard.map { $0.type } == [1, 3, 3])
    #expect(server.heard.last?.isBroadcast == false)
    server.run(20_000)
    #expect(server.stack.address == IPv4Address(192, 168, 7, 30))
    #expect(server.heard.count < 20)
  }

  @Test("without an answer the lease is asked for of everybody, then lost, and the search begins anew")
  func expiry() throws {
    let server = DHCPServer()
    server.stack.startDHCP(hostName: [], now: server.now)
    server.run(10)
    server.isSilent = true
    server.run(3550)
    #expect(server.stack.lease != nil)
    #expect(
      server.heard.contains { $0.type == 3 && !$0.isBroadcast } && server.heard.last?.isBroadcast == true)
    server.run(100)
    #expect(server.stack.lease == nil && server.stack.address.isAny)
    #expect(server.heard.last?.type == 1)
    server.isSilent = false
    server.address = [192, 168, 7, 31]
    server.run(200)
    #expect(server.stack.address == IPv4Address(192, 168, 7, 31))
  }

  @Test("a silent link is asked ever more seldom")
  func backoff() throws {
    let server = DHCPServer()
    server.isSilent = true
    server.stack.startDHCP(hostName: [], now: server.now)
    server.run(600)
    #expect((10...20).contains(server.heard.count))
  }

  @Test("a refusal begins the search anew, after a while")
  func refusal() throws {
    let server = DHCPServer()
    server.refuses = true
    server.stack.startDHCP(hostName: [], now: server.now)
    server.run(1)
    #expect(server.stack.lease == nil && server.heard.count == 2)
    server.run(15)
    #expect(server.stack.lease == nil && server.heard.count == 4)
    server.refuses = false
    server.run(100)
    #expect(server.stack.lease != nil)
  }

  @Test("answers to others, and broken ones, count for nothing")
  func hostile() throws {
    var random = RandomSource(seed: 8)
    let server = DHCPServer()
    server.isSilent = true
    server.stack.startDHCP(hostName: [], now: server.now)
    server.stack.poll(now: server.now)
    let request = try #require(server.device.sent.map { Array($0.1[42...]) }.first)
    let faults: [(inout [UInt8]) -> Void] = [
      { $0[4] ^= 1 }, { $0[28] ^= 1 }, { $0[236] = 0 }, { $0[0] = 1 }, { $0.removeLast(60) },
      { $0.replaceSubrange(16..<20, with: [0, 0, 0, 0]) },
      { $0.replaceSubrange(16..<20, with: [127, 0, 0, 1]) }, { $0[241] = 200 },
    ]
    for fault in faults { server.answer(request, 2, mutate: fault) }
    server.answer(request, 5)
    #expect(server.stack.lease == nil)
    for _ in 0..<20_000 {
      server.answer(request, UInt8(random.below(8))) { message in
        for _ in 0..<random.below(6) {
          message[
            random.below(2) == 0 ? random.below(message.count) : 236 + random.below(message.count - 236)] =
            UInt8(truncatingIfNeeded: random.next())
        }
        message.removeLast(random.below(4) == 0 ? random.below(60) : 0)
      }
      server.device.sent.removeAll()
    }
  }
}
