import Foundation
import Net
import Testing

@Suite("Hostile frames") struct FuzzTests {
  static var frameCount: Int {
    Int(ProcessInfo.processInfo.environment["SWIFTLET_FUZZ_FRAMES"] ?? "") ?? 200_000
  }

  private static func residentPages() -> Int {
    let text = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
    let fields = text.split(separator: " ")
    return fields.count > 1 ? Int(fields[1]) ?? 0 : 0
  }

  /// Valid frames of a living conversation, to begin mutations from.
  private func recordedFrames() throws -> [[UInt8]] {
    let simulation = Simulation(seed: 5)
    var frames: [[UInt8]] = [
      Frames.arpReply, Frames.ipv4(kind: 1, payload: Frames.withChecksum([8, 0, 0, 0, 1, 2, 3, 4], at: 2)),
      Frames.ipv4(kind: 17, payload: [0, 9, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4]),
    ]
    simulation.weather.loss = 50
    simulation.weather.reordering = 100
    simulation.filter = { _, bytes in
      if frames.count < 400 { frames.append(bytes) }
      return false
    }
    let (client, server, _) = try simulation.connectedPair()
    _ = try write(randomBytes(100_000, 1)[...], to: client, now: simulation.now)
    _ = try write(randomBytes(100_000, 2)[...], to: server, now: simulation.now)
    simulation.run(3000)
    client.close(now: simulation.now)
    simulation.run(1000)
    return frames
  }

  @Test("no frame crashes the stack, and its memory stays bounded")
  func hostileFrames() throws {
    let corpus = try recordedFrames()
    let device = SimulatedDevice()
    let stack = NetworkStack(
      device: device, macAddress: MACAddress(rawValue: 0x0200_0000_000B), randomSeed: 9)
    stack.configure(address: Simulation.addressB, prefixLength: 24, gateway: .any)
    let listener = try stack.listen(try stack.reserveTCP(Endpoint(.any, 80)), backlog: 16)
    let udp = UDPSocket(stack)
    try udp.bind(Endpoint(.any, 53))
    var random = RandomSource(seed: 1234)
    var kept: [TCPConnection] = []
    var reached = Reached()
    var now: UInt64 = 1_000_000_000
    let before = Self.residentPages()
    for round in 0..<Self.frameCount {
      var frame = corpus[random.below(corpus.count)]
      mutate(&frame, &random, live: kept)
      // Most frames skip the checksum check, so that mutations get further in.
      frame.withUnsafeBytes { stack.receive(frame: $0, checksumValidated: random.below(8) != 0, now: now) }
      now += UInt64(random.below(1_000_000))
      if round % 16 == 0 { stack.poll(now: now) }
      if round % 64 == 0 { tend(stack, listener, udp, &kept, &random, &reached, now) }
      let answers = device.sent.prefix(4).compactMap { random.below(2) == 0 ? handshakeAnswer($0.1) : nil }
      device.sent.removeAll(keepingCapacity: true)
      for answer in answers {
        answer.withUnsafeBytes { stack.receive(frame: $0, checksumValidated: true, now: now) }
      }
    }
    print("fuzz: \(Self.frameCount) frames, \(reached)")
    #expect(reached.accepted > 0 && reached.bytes > 0 && reached.datagrams > 0)
    let growth = (Self.residentPages() - before) * 4096
    #expect(growth < 256 << 20, "grew by \(growth) bytes")
    #expect(stack.connectionCount <= 256 + 17 + 16 + 1024)
    for connection in kept { connection.close(now: now) }
    while let connection = try? listener.accept() { connection.close(now: now) }
    for _ in 0..<36_000 {
      now += 100_000_000
      stack.poll(now: now)
      device.sent.removeAll(keepingCapacity: true)
    }
    while let connection = try? listener.accept() { connection.close(now: now) }
    #expect(stack.connectionCount == 0, "an hour of silence ends every connection")
    #expect(stack.nextDeadline == nil)
  }

  /// The right answer to a SYN or SYN-ACK, so that hostile frames find connections to attack.
  private func handshakeAnswer(_ sent: [UInt8]) -> [UInt8]? {
    guard sent.count >= 54, sent[12] == 8, sent[13] == 0, sent[23] == 6, sent[47] & 2 != 0 else { return nil }
    var sequence: UInt32 = 0
    for byte in sent[38..<42] { sequence = sequence << 8 | UInt32(byte) }
    sequence &+= 1
    let acknowledgement = (0..<4).map { UInt8(truncatingIfNeeded: sequence >> UInt32(24 - 8 * $0)) }
    let isAnswer = sent[47] & 16 != 0
    let segment: [UInt8] =
      Array(sent[36..<38]) + Array(sent[34..<36]) + (isAnswer ? Array(sent[42..<46]) : [1, 2, 3, 4])
      + acknowledgement + [0x50, isAnswer ? 16 : 18, 0xFF, 0xFF, 0, 0, 0, 0]
    var frame = Frames.ipv4(kind: 6, payload: segment)
    frame.replaceSubrange(26..<30, with: sent[30..<34])
    frame.replaceSubrange(30..<34, with: sent[26..<30])
    repairHeader(&frame)
    return frame
  }

  /// How deep the frames got: a fuzz that is turned away at the door tests nothing.
  struct Reached {
    var accepted = 0
    var bytes = 0
    var datagrams = 0
  }

  /// Uses what the hostile peer has opened, like a server under attack.
  private func tend(
    _ stack: NetworkStack, _ listener: TCPListener, _ udp: UDPSocket, _ kept: inout [TCPConnection],
    _ random: inout RandomSource, _ reached: inout Reached, _ now: UInt64
  ) {
    while let connection = try? listener.accept() {
      kept.append(connection)
      reached.accepted += 1
    }
    if kept.count < 4 {
      let connection = TCPConnection(stack)
      let peer = Endpoint(Simulation.addressA, UInt16(1000 + random.below(60000)))
      if (try? connection.connect(to: peer, from: nil, now: now)) != nil { kept.append(connection) }
    }
    for connection in kept where random.below(4) == 0 {
      reached.bytes += readAll(connection, now: now).count
      _ = try? write(randomBytes(random.below(5000), 1)[...], to: connection, now: now)
    }
    while (try? udp.firstDatagram()) != nil {
      udp.removeFirstDatagram()
      reached.datagrams += 1
    }
    while kept.count > 12 { kept.remove(at: random.below(kept.count)).close(now: now) }
    kept.removeAll { $0.state == .closed }
  }

  private func mutate(_ frame: inout [UInt8], _ random: inout RandomSource, live: [TCPConnection]) {
    if frame.count > 54, frame[23] == 6, random.below(2) == 0 { aim(&frame, &random, live) }
    for _ in 0..<random.below(4) {
      switch random.below(5) {
      case 0: frame[random.below(frame.count)] = UInt8(truncatingIfNeeded: random.next())
      case 1: frame[random.below(frame.count)] ^= 1 << UInt8(random.below(8))
      case 2: frame.removeLast(random.below(min(frame.count, 60)))
      case 3: frame.append(contentsOf: randomBytes(random.below(50), random.next()))
      default: if frame.count > 54 { frame[34 + random.below(20)] = UInt8(truncatingIfNeeded: random.next()) }
      }
      if frame.isEmpty { frame = [0] }
    }
    if frame.count >= 34, frame[12] == 8, frame[13] == 0, random.below(16) != 0 {
      // To the stack under attack, whoever the recorded frame was for.
      frame.replaceSubrange(26..<34, with: [10, 0, 0, 1, 10, 0, 0, 2])
    }
    if random.below(2) == 0, frame.count >= 34 { repairHeader(&frame) }
  }

  /// Addresses a TCP frame to a living connection, near its windows.
  private func aim(_ frame: inout [UInt8], _ random: inout RandomSource, _ live: [TCPConnection]) {
    func put(_ value: UInt32, _ offset: Int, _ count: Int) {
      for index in 0..<count {
        frame[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * (count - 1 - index)))
      }
    }
    put(Simulation.addressA.rawValue, 26, 4)
    put(Simulation.addressB.rawValue, 30, 4)
    if live.isEmpty || random.below(3) == 0 {
      put(UInt32(random.below(500) + 1000), 34, 2)
      put(80, 36, 2)
      if random.below(2) == 0 { frame[47] = 2 }
      return
    }
    let target = live[random.below(live.count)]
    put(UInt32(target.remote.port), 34, 2)
    put(UInt32(target.local.port), 36, 2)
    let next = target.sequenceNumbers
    put(
      next.receive &+ UInt32(random.below(4000)) &- UInt32(random.below(2000)) * UInt32(random.below(2)), 38,
      4)
    if random.below(3) == 0 { put(next.receive, 38, 4) }
    put(next.send &- UInt32(random.below(3000) * random.below(2)), 42, 4)
    if random.below(3) == 0 { frame[47] = UInt8(random.below(64)) }
  }

  private func repairHeader(_ frame: inout [UInt8]) {
    let length = frame.count - 14
    frame[12] = 8
    frame[13] = 0
    frame[14] = 0x45
    frame[16] = UInt8(truncatingIfNeeded: length >> 8)
    frame[17] = UInt8(truncatingIfNeeded: length)
    frame.replaceSubrange(
      14..<34, with: Frames.withChecksum(Array(frame[14..<24] + [0, 0] + frame[26..<34]), at: 10))
  }

  /// IPv6 conversations, discovery and memberships, to begin mutations from.
  private func recordedIPv6() throws -> [[UInt8]] {
    let simulation = Simulation(seed: 6)
    var frames = [Frames.advertisement(), Frames.advertisement(valid: 1, preferred: 1, router: 0)]
    simulation.filter = { _, bytes in
      if bytes.count > 54, bytes[12] == 0x86, frames.count < 300 { frames.append(bytes) }
      return false
    }
    simulation.enableIPv6()
    try simulation.a.join(IPAddress(high: 0xFF05 << 48, low: 7), now: simulation.now)
    let (client, server, _) = try simulation.connectedPair(to: Simulation.localB)
    _ = try write(randomBytes(30_000, 1)[...], to: client, now: simulation.now)
    _ = try write(randomBytes(30_000, 2)[...], to: server, now: simulation.now)
    let udp = UDPSocket(simulation.b)
    try randomBytes(8000, 3).withUnsafeBytes {
      try udp.send($0, to: Endpoint(Simulation.localA, 53), now: simulation.now)
    }
    simulation.run(3000)
    return frames
  }

  @Test("no IPv6 frame crashes the stack, and what it keeps stays bounded")
  func hostileIPv6() throws {
    let corpus = try recordedIPv6()
    let device = SimulatedDevice()
    let stack = NetworkStack(
      device: device, macAddress: MACAddress(rawValue: 0x0200_0000_000B), randomSeed: 9)
    var now: UInt64 = 1_000_000_000
    stack.enableIPv6(now: now)
    for _ in 0..<2 {
      stack.poll(now: now)
      now += 3_000_000_000
    }
    stack.poll(now: now)
    let listener = try stack.listen(try stack.reserveTCP(Endpoint(.any, 80)), backlog: 16)
    let udp = UDPSocket(stack)
    try udp.bind(Endpoint(.any, 53))
    let raw = RawSocket(stack, isIPv6: true, kind: 58)
    let packets = PacketSocket(stack, isCooked: false, etherType: PacketSocket.everyType)
    var random = RandomSource(seed: 99)
    var answered = 0
    for round in 0..<Self.frameCount {
      var frame = corpus[random.below(corpus.count)]
      for _ in 0..<random.below(4) {
        let place =
          random.below(2) == 0 ? random.below(frame.count) : 14 + random.below(min(frame.count - 14, 90))
        switch random.below(6) {
        case 0: frame[place] = UInt8(truncatingIfNeeded: random.next())
        case 1: frame[place] ^= 1 << UInt8(random.below(8))
        case 2: frame.removeLast(random.below(min(frame.count - 60, 60) + 1))
        case 3: frame.append(contentsOf: randomBytes(random.below(50), random.next()))
        case 4: frame[20] = [0, 43, 44, 58, 60, 6, 17, 59][random.below(8)]
        default: frame.insert(contentsOf: [58, 0, 1, 4, 0, 0, 0, 0], at: min(54, frame.count))
        }
        if frame.count < 60 { frame += [UInt8](repeating: 0, count: 60 - frame.count) }
      }
      if random.below(4) != 0 {
        // To the stack under attack, with the length that it has now.
        if frame[38] != 0xFF { frame.replaceSubrange(38..<54, with: Frames.bytes(Simulation.localB)) }
        frame[18] = UInt8((frame.count - 54) >> 8)
        frame[19] = UInt8((frame.count - 54) & 255)
      }
      frame.withUnsafeBytes { stack.receive(frame: $0, checksumValidated: random.below(8) != 0, now: now) }
      now += UInt64(random.below(1_000_000))
      if round % 16 == 0 { stack.poll(now: now) }
      answered += device.sent.count
      device.sent.removeAll(keepingCapacity: true)
      if round % 64 == 0 {
        while let connection = try? listener.accept() { connection.close(now: now) }
        while (try? udp.firstDatagram()) != nil { udp.removeFirstDatagram() }
        while (try? raw.firstPacket()) != nil { raw.removeFirstPacket() }
        while (try? packets.firstFrame()) != nil { packets.removeFirstFrame() }
      }
    }
    #expect(answered > 1000)
    #expect(stack.interfaceAddresses.count <= 16 && stack.defaultRouters.count <= 8)
    #expect(stack.neighbourEntries.count <= 1024)
    for _ in 0..<10_000 {
      now += 1_000_000_000
      stack.poll(now: now)
      device.sent.removeAll(keepingCapacity: true)
    }
    while let connection = try? listener.accept() { connection.close(now: now) }
    stack.poll(now: now + 1)
    #expect(stack.connectionCount == 0)
  }
}
