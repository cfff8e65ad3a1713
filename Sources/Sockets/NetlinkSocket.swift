import ABI
import Net
import Tasks
import VFS

/// A netlink(7) socket of NETLINK_ROUTE (rtnetlink(7)): answers questions about interfaces, addresses, routes and
/// neighbours; changes are refused. Other protocols that only listen hear nothing.
public final class NetlinkSocket: InternetSocket {
  private var port: UInt32 = 0
  private var groups: UInt32 = 0
  private var answers: [[UInt8]] = []
  private var firstAnswer = 0

  private static var netlinkFamily: Int32 { 16 }
  /// Ports in use: the first socket of a process has its number.
  nonisolated(unsafe) private static var ports: [UInt32] = []
  /// Datagrams waiting; a program that never reads gets ENOBUFS.
  private static var limit: Int { 1024 }

  /// NETLINK_ROUTE 0, NETLINK_KOBJECT_UEVENT 15. EPROTONOSUPPORT, ESOCKTNOSUPPORT.
  public init(type: Int32, protocolNumber: Int32, flags: UInt32) throws(Errno) {
    guard type == 2 || type == 3 else { throw .socketTypeNotSupported }
    guard protocolNumber == 0 || protocolNumber == 15 else { throw .protocolNotSupported }
    super.init(domain: NetlinkSocket.netlinkFamily, type: type, protocolNumber: protocolNumber, flags: flags)
  }

  // MARK: Addresses

  /// struct sockaddr_nl.
  private static func address(_ port: UInt32, _ groups: UInt32) -> [UInt8] {
    [16, 0, 0, 0] + Socket.bytes(Int32(bitPattern: port)) + Socket.bytes(Int32(bitPattern: groups))
  }

  private func take(_ wanted: UInt32) throws(Errno) {
    guard port == 0 else { return }
    var number = wanted == 0 ? UInt32(bitPattern: UnixNames.credentials.process) : wanted
    if wanted != 0, NetlinkSocket.ports.contains(number) { throw .addressInUse }
    if number == 0 { number = 1 }
    if NetlinkSocket.ports.contains(number) { number = 0xFFFF_F000 }
    while NetlinkSocket.ports.contains(number) { number &-= 1 }
    port = number
    NetlinkSocket.ports.append(number)
  }

  public override func bind(_ address: [UInt8]) throws(Errno) {
    guard address.count >= 12, address[0] == 16, address[1] == 0 else { throw .invalid }
    let wanted = UInt32(bitPattern: InternetSocket.word(address, 4))
    guard port == 0 || wanted == port || wanted == 0 else { throw .invalid }
    try take(wanted)
    groups = UInt32(bitPattern: InternetSocket.word(address, 8))
  }

  public override func connect(_ address: [UInt8]) throws(Errno) { try take(0) }
  public override func name() throws(Errno) -> [UInt8] { NetlinkSocket.address(port, groups) }
  public override func peerName() throws(Errno) -> [UInt8] { NetlinkSocket.address(0, 0) }
  override var isBound: Bool { port != 0 }

  public override func released() {
    NetlinkSocket.ports.removeAll { $0 == port }
    if !queue.isEmpty { queue.wake() }
  }

  // MARK: Messages

  public override func send(
    _ slices: [UserSlice], flags: MessageFlags, destination: [UInt8]?, control: SocketControl
  ) throws(Errno) -> Int {
    let total = SliceCursor.total(slices)
    guard total <= 65536 else { throw .messageTooLong }
    var bytes: [UInt8] = []
    for slice in slices { bytes += try slice.bytes() }
    try take(0)
    guard protocolNumber == 0 else { return total }
    guard answers.count - firstAnswer < NetlinkSocket.limit else { throw .noBuffers }
    var place = 0
    while bytes.count - place >= RouteMessage.headerLength {
      let length = Int(InternetSocket.word(bytes, place))
      guard length >= RouteMessage.headerLength, length <= bytes.count - place else { break }
      let request = RouteRequest(Array(bytes[place..<place + length]), port)
      answers += request.answer()
      place += (length + 3) & ~3
    }
    if !queue.isEmpty { queue.wake() }
    return total
  }

  public override func receive(_ slices: [UserSlice], flags: MessageFlags) throws(Errno) -> SocketMessage {
    var limit = UInt64.max
    while firstAnswer >= answers.count {
      guard waits(flags) else { throw .again }
      if limit == .max { limit = deadline(receiveTimeout) }
      try sleep(limit)
    }
    let answer = answers[firstAnswer]
    var message = SocketMessage()
    var copied = 0
    for slice in slices where copied < answer.count {
      let count = min(slice.count, answer.count - copied)
      try slice.prefix(count).store(Array(answer[copied..<copied + count]))
      copied += count
    }
    message.count = flags.contains(.truncated) ? answer.count : copied
    if copied < answer.count { message.flags.insert(.truncated) }
    message.address = NetlinkSocket.address(0, 0)
    if !flags.contains(.peek) {
      firstAnswer += 1
      if firstAnswer == answers.count {
        answers.removeAll()
        firstAnswer = 0
      }
    }
    return message
  }

  public override func readiness() -> Readiness {
    firstAnswer < answers.count ? [.readable, .writable] : .writable
  }

  override var readableBytes: Int { firstAnswer < answers.count ? answers[firstAnswer].count : 0 }

  /// SOL_NETLINK: memberships and the strictness of checks change nothing here.
  public override func setOption(level: Int32, option: Int32, _ value: UserSlice) throws(Errno) {
    if level == 270 { return }
    try super.setOption(level: level, option: option, value)
  }

  public override func getOption(level: Int32, option: Int32) throws(Errno) -> [UInt8] {
    if level == 270 { return Socket.bytes(0) }
    return try super.getOption(level: level, option: option)
  }
}
