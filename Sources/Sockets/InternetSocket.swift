public import ABI
public import Net
public import Tasks
public import VFS

/// What ip(7) sockets share: addresses, timeouts, waiting, and the options of socket(7). See `TCPSocket` and
/// `DatagramSocket`. Kernel lock held for every call; calls that wait give it up.
public class InternetSocket: Socket, SocketObserver {
  /// AF_INET, AF_INET6
  public static var family: Int32 { 2 }

  let queue = WaitQueue()
  /// Nanoseconds, 0 for ever.
  var receiveTimeout: UInt64 = 0
  var sendTimeout: UInt64 = 0
  var options = InternetOptions()

  /// socket(2) with AF_INET. ESOCKTNOSUPPORT, EPROTONOSUPPORT; EPERM for raw sockets.
  public static func make(type: Int32, protocolNumber: Int32, flags: UInt32) throws(Errno) -> InternetSocket {
    switch (type, protocolNumber) {
    case (1, 0), (1, 6): return TCPSocket(flags: flags)
    case (2, 0), (2, 17): return DatagramSocket(flags: flags)
    case (1, _), (2, _): throw .protocolNotSupported
    case (3, _): throw .notPermitted
    default: throw .socketTypeNotSupported
    }
  }

  var now: UInt64 { host.monotonicNanoseconds }

  /// From inside the stack: whoever waits looks again.
  public func socketDidChange() {
    if !queue.isEmpty { queue.wake() }
  }

  public final override var waitQueue: WaitQueue? { queue }

  public final override func getOption(level: Int32, option: Int32) throws(Errno) -> [UInt8] {
    try self.option(level: level, option)
  }

  public final override func setOption(level: Int32, option: Int32, _ value: UserSlice) throws(Errno) {
    try set(level: level, option: option, value)
  }

  public final override func control(_ request: UInt32, argument: UInt) throws(Errno) -> Int {
    try InterfaceRequest.answer(request, argument, self)
  }

  final func waits(_ flags: MessageFlags) -> Bool { !isNonblocking && !flags.contains(.doNotWait) }

  final func deadline(_ timeout: UInt64) -> UInt64 { timeout == 0 ? .max : now &+ timeout }

  /// Sends what is waiting, then sleeps. A timeout of SO_RCVTIMEO or SO_SNDTIMEO is told as EAGAIN (socket(7)).
  final func sleep(_ deadline: UInt64, exclusive: Bool = false) throws(Errno) {
    do throws(Errno) {
      try queue.sleep(deadline: deadline, exclusive: exclusive)
    } catch {
      throw error == .timedOut ? .again : error
    }
  }

  // MARK: Addresses

  /// The endpoint of a struct sockaddr_in; nil for AF_UNSPEC. EINVAL, EAFNOSUPPORT.
  static func endpoint(_ address: [UInt8]) throws(Errno) -> Endpoint? {
    guard address.count >= 2 else { throw .invalid }
    let family = Int32(address[0]) | Int32(address[1]) << 8
    if family == 0 { return nil }
    guard family == InternetSocket.family else { throw .addressFamilyNotSupported }
    guard address.count >= 16 else { throw .invalid }
    let port = UInt16(address[2]) << 8 | UInt16(address[3])
    return Endpoint(IPv4Address(address[4], address[5], address[6], address[7]), port)
  }

  /// struct sockaddr_in.
  static func bytes(_ endpoint: Endpoint) -> [UInt8] {
    let address = endpoint.address.rawValue
    return [
      2, 0, UInt8(truncatingIfNeeded: endpoint.port >> 8), UInt8(truncatingIfNeeded: endpoint.port),
      UInt8(truncatingIfNeeded: address >> 24), UInt8(truncatingIfNeeded: address >> 16),
      UInt8(truncatingIfNeeded: address >> 8), UInt8(truncatingIfNeeded: address), 0, 0, 0, 0, 0, 0, 0, 0,
    ]
  }

  /// The endpoint to bind to: bind(2) takes AF_UNSPEC for AF_INET when the address is any.
  static func boundEndpoint(_ address: [UInt8]) throws(Errno) -> Endpoint {
    if let endpoint = try endpoint(address) { return endpoint }
    guard address.count >= 16, address[4...7].allSatisfy({ $0 == 0 }) else {
      throw .addressFamilyNotSupported
    }
    return Endpoint(.any, UInt16(address[2]) << 8 | UInt16(address[3]))
  }

  // MARK: What the kinds differ in

  /// SO_ERROR.
  func takeError() -> Errno? { nil }
  var isListening: Bool { false }
  /// Hands changed options to the stack.
  func optionsChanged() {}
  /// FIONREAD and SIOCOUTQ, in bytes.
  var readableBytes: Int { 0 }
  var unsentBytes: Int { 0 }
}

/// A place in a program's list of buffers.
struct SliceCursor {
  private let slices: [UserSlice]
  private var index = 0
  private var rest: UserSlice?

  init(_ slices: [UserSlice]) {
    self.slices = slices
    rest = slices.first
    skipEmpty()
  }

  private mutating func skipEmpty() {
    while let slice = rest, slice.count == 0 {
      index += 1
      rest = index < slices.count ? slices[index] : nil
    }
  }

  /// The buffer that comes next, nil at the end.
  var current: UserSlice? { rest }

  mutating func advance(_ count: Int) {
    rest?.advance(count)
    skipEmpty()
  }

  static func total(_ slices: [UserSlice]) -> Int {
    var total = 0
    for slice in slices { total &+= slice.count }
    return total
  }
}
