import Net
import Testing

/// One end of a simulated link: a device that hands frames to the simulation.
final class SimulatedDevice: LinkDevice {
  let mtu: Int
  let offloads: LinkOffloads
  var sent: [(TransmitOffload, [UInt8])] = []

  init(mtu: Int = 1500, offloads: LinkOffloads = LinkOffloads(checksum: false, segmentation: false)) {
    self.mtu = mtu
    self.offloads = offloads
  }

  func transmit(_ offload: TransmitOffload, _ frame: UnsafeRawBufferPointer) {
    sent.append((offload, [UInt8](frame)))
  }
}

/// What the link does to frames, in parts of a thousand, and how long it takes in nanoseconds.
struct Weather {
  var loss = 0
  var duplication = 0
  var reordering = 0
  var delay: UInt64 = 1_000_000
}

/// Two stacks, a link with seeded weather between them, and a clock that jumps to the next event.
final class Simulation {
  struct Flight {
    let arrival: UInt64
    let order: Int
    let toB: Bool
    let validated: Bool
    let bytes: [UInt8]
  }

  let deviceA: SimulatedDevice
  let deviceB: SimulatedDevice
  let a: NetworkStack
  let b: NetworkStack
  var now: UInt64 = 1_000_000_000
  var weather = Weather()
  /// Drops a frame when it says so; sees sender A and the bytes.
  var filter: ((Bool, [UInt8]) -> Bool)?
  var random: RandomSource
  private(set) var flights: [Flight] = []
  private var order = 0
  private(set) var framesCarried = 0

  static let addressA = IPv4Address(10, 0, 0, 1)
  static let addressB = IPv4Address(10, 0, 0, 2)

  init(seed: UInt64 = 1, offloads: Bool = false) {
    let kind = LinkOffloads(checksum: offloads, segmentation: offloads)
    deviceA = SimulatedDevice(offloads: kind)
    deviceB = SimulatedDevice(offloads: kind)
    a = NetworkStack(device: deviceA, macAddress: MACAddress(rawValue: 0x0200_0000_000A), randomSeed: seed)
    b = NetworkStack(
      device: deviceB, macAddress: MACAddress(rawValue: 0x0200_0000_000B), randomSeed: seed ^ 77)
    a.configure(address: Self.addressA, prefixLength: 24, gateway: .any)
    b.configure(address: Self.addressB, prefixLength: 24, gateway: .any)
    random = RandomSource(seed: seed &* 31)
  }

  func collect() {
    take(deviceA, toB: true)
    take(deviceB, toB: false)
  }

  private func chance(_ perThousand: Int) -> Bool { perThousand > 0 && random.below(1000) < perThousand }

  private func take(_ device: SimulatedDevice, toB: Bool) {
    for (offload, bytes) in device.sent {
      if let filter, filter(toB, bytes) { continue }
      if chance(weather.loss) { continue }
      for _ in 0..<(chance(weather.duplication) ? 2 : 1) {
        let late = chance(weather.reordering) ? UInt64(random.below(5_000_000)) : 0
        order += 1
        flights.append(
          Flight(
            arrival: now + weather.delay + late, order: order, toB: toB, validated: offload.needsChecksum,
            bytes: bytes))
      }
    }
    device.sent.removeAll(keepingCapacity: true)
  }

  /// Runs the next event; false when nothing is left before `end`.
  func step(until end: UInt64 = .max) -> Bool {
    a.poll(now: now)
    b.poll(now: now)
    collect()
    var next = UInt64.max
    for flight in flights { next = min(next, flight.arrival) }
    if let deadline = a.nextDeadline { next = min(next, deadline) }
    if let deadline = b.nextDeadline { next = min(next, deadline) }
    guard next != .max, next <= end else {
      if end != .max { now = max(now, end) }
      return false
    }
    now = max(now, next)
    let due = flights.filter { $0.arrival <= now }.sorted { ($0.arrival, $0.order) < ($1.arrival, $1.order) }
    flights.removeAll { $0.arrival <= now }
    for flight in due {
      framesCarried += 1
      flight.bytes.withUnsafeBytes {
        (flight.toB ? b : a).receive(frame: $0, checksumValidated: flight.validated, now: now)
      }
      collect()
    }
    a.poll(now: now)
    b.poll(now: now)
    collect()
    return true
  }

  /// Runs for a time in milliseconds.
  func run(_ milliseconds: UInt64) {
    let end = now + milliseconds * 1_000_000
    while step(until: end) {}
  }

  /// Runs until the condition holds; false when it does not within `seconds`.
  func run(seconds: UInt64 = 600, until condition: () -> Bool) -> Bool {
    let end = now + seconds * 1_000_000_000
    while !condition() {
      if !step(until: end) { return condition() }
    }
    return true
  }

  /// A connection from A to a listener on B's port, both ends established.
  func connectedPair(
    to address: IPAddress = IPAddress(addressB), port: UInt16 = 80, _ options: TCPOptions = TCPOptions()
  ) throws -> (client: TCPConnection, server: TCPConnection, listener: TCPListener) {
    let listener = try b.listen(try b.reserveTCP(Endpoint(.any, port)), backlog: 8, options: options)
    let client = TCPConnection(a, options)
    try client.connect(to: Endpoint(address, port), from: nil, now: now)
    guard run(until: { listener.isReadable && client.state == .established }) else {
      throw NetworkError.timedOut
    }
    return (client, try listener.accept(), listener)
  }
}

extension Simulation {
  /// Sends `size` bytes one way and half of that the other, at once, and compares every byte.
  func exchange(_ client: TCPConnection, _ server: TCPConnection, _ seed: UInt64, _ size: Int) throws {
    let up = randomBytes(size, seed)
    let down = randomBytes(size / 2, seed + 1)
    var sentUp = 0
    var sentDown = 0
    var gotUp: [UInt8] = []
    var gotDown: [UInt8] = []
    let done = run(seconds: 7200) {
      if sentUp < up.count { sentUp += (try? write(up[sentUp...], to: client, now: now)) ?? 0 }
      if sentDown < down.count { sentDown += (try? write(down[sentDown...], to: server, now: now)) ?? 0 }
      gotUp += readAll(server, now: now)
      gotDown += readAll(client, now: now)
      collect()
      return gotUp.count == up.count && gotDown.count == down.count
    }
    #expect(done, "seed \(seed): up \(gotUp.count)/\(up.count), down \(gotDown.count)/\(down.count)")
    #expect(gotUp == up, "seed \(seed)")
    #expect(gotDown == down, "seed \(seed)")
  }
}

/// Writes as much as fits; gives how much.
func write(_ bytes: ArraySlice<UInt8>, to connection: TCPConnection, now: UInt64) throws -> Int {
  var done = 0
  while done < bytes.count {
    let region = try connection.writableRegion()
    if region.isEmpty { break }
    let count = min(region.count, bytes.count - done)
    let piece = bytes[(bytes.startIndex + done)..<(bytes.startIndex + done + count)]
    region.copyBytes(from: piece)
    connection.commitWrite(count, now: now)
    done += count
  }
  return done
}

/// Reads everything there is.
func readAll(_ connection: TCPConnection, now: UInt64) -> [UInt8] {
  var found: [UInt8] = []
  while true {
    let region = connection.readableRegion()
    if region.isEmpty { return found }
    found.append(contentsOf: region)
    connection.consume(region.count, now: now)
  }
}

func randomBytes(_ count: Int, _ seed: UInt64) -> [UInt8] {
  var random = RandomSource(seed: seed)
  var bytes: [UInt8] = []
  bytes.reserveCapacity(count)
  for _ in 0..<count { bytes.append(UInt8(truncatingIfNeeded: random.next())) }
  return bytes
}
