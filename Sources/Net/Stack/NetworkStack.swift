/// A TCP/IP stack without clock, threads or locks. The caller serialises all calls on the stack and its sockets,
/// passes the time in nanoseconds from any fixed start above zero, calls `poll` after each batch of received
/// frames and when `nextDeadline` comes.
public final class NetworkStack {
  let device: (any LinkDevice)?
  public let macAddress: MACAddress
  var random: RandomSource
  private let sequenceSecret: UInt64

  // Interface.
  public internal(set) var address = IPv4Address.any
  public internal(set) var netmask: UInt32 = 0
  public internal(set) var gateway = IPv4Address.any
  var ipv6 = IPv6Interface()
  var multicast = MulticastMemberships()
  var dhcp = DHCPClient()
  /// Raw and packet sockets, which see packets beside whoever else they are for.
  var rawSockets: [RawSocket] = []
  var packetSockets: [PacketSocket] = []
  var neighbours: [Neighbour] = []
  var lastNeighbour = 0

  // Transmission.
  let frame: UnsafeMutableRawPointer
  static let frameCapacity = transportOffset + 65535 + 64
  /// Transport headers always stand here; IPv4's shorter header begins `ipv4Start` bytes into the buffer.
  static let transportOffset = HeaderLength.ethernet + HeaderLength.ipv6
  static let ipv4Start = HeaderLength.ipv6 - HeaderLength.ipv4
  let linkMTU: Int
  let offloads: LinkOffloads
  var identification: UInt16
  var loopback = LoopbackQueue()
  var isDraining = false

  // Reception.
  var reassembly = Reassembly()

  // TCP.
  var connections: HashTable<TCPConnection>
  var timeWaits: HashTable<TimeWait>
  var timeWaitQueue = Queue<TimeWait>()
  var timers = TimerHeap()
  var pending: [TCPConnection] = []
  var running: [TCPConnection] = []
  var tcpPorts: HashTable<PortGroup>
  var listeners: HashTable<ListenerGroup>
  /// Connections that programs have closed and that still say goodbye; above the limit they are reset.
  var orphanCount = 0
  static let orphanLimit = 1024
  /// When the present count of challenges ends.
  var challengesEnd: UInt64 = 0
  var challengeCount = 0

  /// TCP options offered to peers (the sysctls tcp_sack, tcp_timestamps and tcp_window_scaling).
  public var offersSack = true
  public var offersTimestamps = true
  public var offersWindowScale = true

  // UDP.
  var udpPorts: HashTable<UDPPort>

  public init(device: (any LinkDevice)?, macAddress: MACAddress, randomSeed: UInt64) {
    self.device = device
    self.macAddress = macAddress
    random = RandomSource(seed: randomSeed)
    sequenceSecret = random.next()
    let seed = random.next()
    connections = HashTable(seed: seed)
    timeWaits = HashTable(seed: seed)
    tcpPorts = HashTable(seed: seed)
    listeners = HashTable(seed: seed)
    udpPorts = HashTable(seed: seed)
    identification = UInt16(truncatingIfNeeded: random.next())
    linkMTU = min(max(device?.mtu ?? 1500, 576), 65535)
    offloads = device?.offloads ?? LinkOffloads(checksum: false, segmentation: false)
    frame = UnsafeMutableRawPointer.allocate(byteCount: Self.frameCapacity, alignment: 16)
  }

  deinit {
    frame.deallocate()
    loopback.deallocate()
    for neighbour in neighbours { neighbour.drop() }
  }

  /// Sets the address of the interface. `prefixLength` is 0 to 32; `gateway` may be `any` for none.
  public func configure(address: IPv4Address, prefixLength: Int, gateway: IPv4Address) {
    self.address = address
    self.gateway = gateway
    let length = min(max(prefixLength, 0), 32)
    netmask = length == 0 ? 0 : UInt32.max << UInt32(32 - length)
  }

  /// Takes one Ethernet frame. `checksumValidated` says that the link has checked TCP and UDP checksums or left
  /// them unfinished (VIRTIO_NET_HDR_F_NEEDS_CSUM, _DATA_VALID); frames joined by the link are welcome.
  public func receive(frame bytes: UnsafeRawBufferPointer, checksumValidated: Bool, now: UInt64) {
    guard bytes.count >= HeaderLength.ethernet else { return }
    if !packetSockets.isEmpty { observe(bytes, outgoing: false) }
    let payload = bytes.part(HeaderLength.ethernet, bytes.count)
    switch bytes.word16(12) {
    case EtherType.ipv4: receiveIPv4(payload, checksumValidated, isLoopback: false, now)
    case EtherType.ipv6: receiveIPv6(payload, checksumValidated, isLoopback: false, now)
    case EtherType.arp: receiveARP(payload, now)
    default: break
    }
    drainLoopback(now)
  }

  /// Runs due timers and sends what is waiting: acknowledgements, data, resolution requests.
  public func poll(now: UInt64) {
    flushPending(now)
    var due = 0
    while let connection = timers.first, connection.deadline <= now, due < 100_000 {
      due += 1
      connection.expire(now)
    }
    expireTimeWaits(now)
    expireNeighbours(now)
    pollIPv6(now)
    pollMulticast(now)
    pollDHCP(now)
    reassembly.expire(now)
    drainLoopback(now)
    flushPending(now)
  }

  /// When `poll` must be called next, or nil when only a frame or a call can bring work. A time in the past
  /// means at once.
  public var nextDeadline: UInt64? {
    if !pending.isEmpty || !loopback.isEmpty { return 0 }
    var first = timers.earliest ?? .max
    if let entry = timeWaitQueue.first { first = min(first, entry.expiry) }
    for neighbour in neighbours where !neighbour.isResolved { first = min(first, neighbour.deadline) }
    first = min(first, reassembly.deadline, ipv6.deadline, multicast.deadline, dhcp.deadline)
    return first == .max ? nil : first
  }

  /// Connections alive, handshakes included and TIME-WAIT not.
  public var connectionCount: Int { connections.count }

  // MARK: Connections with something to send

  func schedule(_ connection: TCPConnection) {
    guard !connection.isPending, connection.isInTable else { return }
    connection.isPending = true
    pending.append(connection)
  }

  /// Acknowledge now (at the next poll), or within 40 ms, or not at all.
  func scheduleAck(_ connection: TCPConnection, _ now: UInt64) {
    if connection.ackNow || connection.ackBytes >= 2 * connection.segmentSize {
      connection.ackNow = true
      schedule(connection)
    } else if connection.ackBytes > 0, connection.delayedAckDeadline == .max {
      connection.delayedAckDeadline = now &+ TCPLimits.delayedAck
      connection.updateTimer()
    }
  }

  private func flushPending(_ now: UInt64) {
    guard !pending.isEmpty else { return }
    swap(&pending, &running)
    for connection in running {
      connection.isPending = false
      guard connection.isInTable else { continue }
      connection.output(now)
      if connection.ackNow { connection.sendAck(now) }
    }
    running.removeAll(keepingCapacity: true)
  }

  /// Delivers what the stack has sent to itself. Never runs inside itself, so depth is bounded.
  func drainLoopback(_ now: UInt64) {
    guard !isDraining, !loopback.isEmpty else { return }
    isDraining = true
    while let packet = loopback.removeFirst() {
      if packet.bytes.byte(0) >> 4 == 6 {
        receiveIPv6(packet.bytes, true, isLoopback: true, now)
      } else {
        receiveIPv4(packet.bytes, true, isLoopback: true, now)
      }
      loopback.recycle(packet)
      if loopback.isEmpty { flushPending(now) }
    }
    isDraining = false
  }

  // MARK: Table of connections

  func insert(_ connection: TCPConnection) {
    connection.isInTable = true
    connections.insert(connection, TableKey(local: connection.local, remote: connection.remote))
  }

  func remove(_ connection: TCPConnection) {
    guard connection.isInTable else { return }
    connection.isInTable = false
    if connection.isOrphan { orphanCount -= 1 }
    connections.remove(TableKey(local: connection.local, remote: connection.remote))
    timers.remove(connection)
  }

  /// RFC 5961 section 10: a bounded number of challenge ACKs a second, the count not guessable from outside.
  func mayChallenge(_ now: UInt64) -> Bool {
    if now >= challengesEnd {
      challengesEnd = now &+ Nanoseconds.second
      challengeCount = 500 + random.below(500)
    }
    guard challengeCount > 0 else { return false }
    challengeCount -= 1
    return true
  }

  func initialSequence(_ local: Endpoint, _ remote: Endpoint, _ now: UInt64) -> UInt32 {
    let hash = TableKey(local: local, remote: remote).hash(sequenceSecret)
    // A clock of 64 nanoseconds, faster than a conversation can come back (RFC 6528 section 3 has 4 us).
    return UInt32(truncatingIfNeeded: hash &+ (now >> 6))
  }

  /// One offset for each pair of hosts: timestamps rise over conversations, so that TIME-WAIT can be reused
  /// (RFC 6191), and tell no stranger the time since start (RFC 7323 section 7.1).
  func timestampOffset(_ local: IPAddress, _ remote: IPAddress) -> UInt32 {
    let hosts = TableKey(local: Endpoint(local, 0), remote: Endpoint(remote, 0))
    return UInt32(truncatingIfNeeded: mixed(hosts.hash(sequenceSecret) &+ 1))
  }
}
