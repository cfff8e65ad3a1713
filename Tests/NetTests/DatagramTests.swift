import Net
import Testing

@Suite("UDP, ARP and ICMP") struct DatagramTests {
  private func receive(_ socket: UDPSocket) throws -> [UInt8]? {
    guard let datagram = try socket.firstDatagram() else { return nil }
    let bytes = [UInt8](datagram.payload)
    socket.removeFirstDatagram()
    return bytes
  }

  @Test(
    "datagrams keep their edges, and large ones are cut and joined",
    arguments: [0, 1, 1472, 1473, 9000, 65507])
  func edges(_ size: Int) throws {
    let simulation = Simulation()
    let server = UDPSocket(simulation.b)
    try server.bind(Endpoint(.any, 53))
    let client = UDPSocket(simulation.a)
    try client.connect(Endpoint(Simulation.addressB, 53))
    let data = randomBytes(size, 4)
    // The first also waits for ARP.
    for _ in 0..<2 {
      try data.withUnsafeBytes { try client.send($0, now: simulation.now) }
      simulation.run(100)
    }
    let first = size > 9000 ? data : try receive(server)
    #expect(first == data)
    #expect(try receive(server) == data)
    #expect(throws: NetworkError.wouldBlock) { try receive(server) }
  }

  @Test("a closed port tells a connected socket")
  func refused() throws {
    let simulation = Simulation()
    for target in [Simulation.addressB, .loopback] {
      let client = UDPSocket(simulation.a)
      try client.connect(Endpoint(target, 53))
      try [UInt8](repeating: 1, count: 3).withUnsafeBytes { try client.send($0, now: simulation.now) }
      simulation.run(100)
      #expect(client.takeError() == .connectionRefused)
    }
  }

  @Test("a host refuses its own datagrams however many they are")
  func refusedOften() throws {
    let stack = NetworkStack(device: nil, macAddress: MACAddress(rawValue: 2), randomSeed: 3)
    for target in [Endpoint(.loopback, 53), Endpoint(IPAddress(high: 0, low: 1), 53)] {
      let client = UDPSocket(stack)
      try client.connect(target)
      for _ in 0..<2000 {
        try [UInt8](repeating: 1, count: 3).withUnsafeBytes { try client.send($0, now: 1) }
        #expect(client.takeError() == .connectionRefused)
      }
    }
  }

  @Test("the queue of a socket is bounded")
  func bounded() throws {
    let stack = NetworkStack(device: nil, macAddress: MACAddress(rawValue: 2), randomSeed: 3)
    let server = UDPSocket(stack)
    try server.bind(Endpoint(.loopback, 53))
    let client = UDPSocket(stack)
    for _ in 0..<1000 {
      try randomBytes(1000, 1).withUnsafeBytes { try client.send($0, to: server.local, now: 1) }
    }
    var count = 0
    while (try? receive(server)) != nil { count += 1 }
    #expect(count == (256 << 10) / 1256)
  }

  @Test("two sockets share a port only when both allow it")
  func sharing() throws {
    let stack = NetworkStack(device: nil, macAddress: MACAddress(rawValue: 2), randomSeed: 3)
    let first = UDPSocket(stack)
    try first.bind(Endpoint(.any, 53))
    let second = UDPSocket(stack)
    second.options.reusePort = true
    #expect(throws: NetworkError.addressInUse) { try second.bind(Endpoint(.loopback, 53)) }
    first.options.reusePort = true
    try second.bind(Endpoint(.any, 53))
    #expect(throws: NetworkError.addressNotAvailable) {
      try UDPSocket(stack).bind(Endpoint(IPv4Address(1, 2, 3, 4), 1))
    }
  }

  @Test("broadcast needs permission and reaches every socket of the port")
  func broadcast() throws {
    let simulation = Simulation()
    var servers: [UDPSocket] = []
    for _ in 0..<2 {
      let server = UDPSocket(simulation.b)
      server.options.reuseAddress = true
      try server.bind(Endpoint(.any, 67))
      servers.append(server)
    }
    let client = UDPSocket(simulation.a)
    let target = Endpoint(IPv4Address(10, 0, 0, 255), 67)
    let data: [UInt8] = [5, 6]
    #expect(throws: NetworkError.accessDenied) {
      try data.withUnsafeBytes { try client.send($0, to: target, now: simulation.now) }
    }
    client.options.broadcast = true
    try data.withUnsafeBytes { try client.send($0, to: target, now: simulation.now) }
    simulation.run(10)
    for server in servers { #expect(try receive(server) == data) }
  }

  @Test("an echo request is answered with the same data, after ARP")
  func ping() {
    let device = SimulatedDevice()
    let stack = NetworkStack(
      device: device, macAddress: MACAddress(rawValue: 0x0200_0000_0001), randomSeed: 1)
    stack.configure(address: IPv4Address(10, 0, 0, 1), prefixLength: 24, gateway: .any)
    let request = Frames.ipv4(
      kind: 1, payload: Frames.withChecksum([8, 0, 0, 0, 1, 2, 3, 4, 99, 98, 97], at: 2))
    request.withUnsafeBytes { stack.receive(frame: $0, checksumValidated: false, now: 1) }
    #expect(device.sent.count == 1)
    #expect(Array(device.sent[0].1[12..<14]) == [8, 6])
    Frames.arpReply.withUnsafeBytes { stack.receive(frame: $0, checksumValidated: false, now: 2) }
    #expect(device.sent.count == 2)
    let reply = device.sent[1].1
    #expect(Array(reply[34...]) == Frames.withChecksum([0, 0, 0, 0, 1, 2, 3, 4, 99, 98, 97], at: 2))
    #expect(Array(reply[0..<6]) == [2, 0, 0, 0, 0, 2])
  }

  @Test("an ARP request for another address is not answered, one for us is")
  func arp() {
    let device = SimulatedDevice()
    let stack = NetworkStack(
      device: device, macAddress: MACAddress(rawValue: 0x0200_0000_0001), randomSeed: 1)
    stack.configure(address: IPv4Address(10, 0, 0, 1), prefixLength: 24, gateway: .any)
    for last in [UInt8(9), 1] {
      var frame = Frames.arpReply
      frame[21] = 1
      frame[41] = last
      frame.withUnsafeBytes { stack.receive(frame: $0, checksumValidated: false, now: 1) }
    }
    #expect(device.sent.count == 1)
    #expect(Array(device.sent[0].1[20..<22]) == [0, 2])
    stack.announce()
    let announcement = device.sent[1].1
    #expect(Array(announcement[0..<6]) == [UInt8](repeating: 255, count: 6))
    #expect(Array(announcement[20..<22]) == [0, 1])
    #expect(Array(announcement[22..<32]) == [2, 0, 0, 0, 0, 1, 10, 0, 0, 1])
    #expect(Array(announcement[38..<42]) == [10, 0, 0, 1])
  }
}
