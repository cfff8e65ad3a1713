public import ABI
public import Net
public import Tasks
public import VFS

/// What ip(7) sockets share: addresses, timeouts, waiting, and the options of socket(7). See `TCPSocket` and
/// `DatagramSocket`. Kernel lock held for every call; calls that wait give it up.
public class InternetSocket: Socket, SocketObserver {
  /// AF_INET, AF_INET6
  public static var family: Int32 { 2 }
  public static var familyIPv6: Int32 { 10 }

  let queue = WaitQueue()
  /// Nanoseconds, 0 for ever.
  var receiveTimeout: UInt64 = 0
  var sendTimeout: UInt64 = 0
  var options = InternetOptions()
  /// Multicast groups joined, left again when the socket goes.
  var memberships: [IPAddress] = []

  /// socket(2) with AF_INET or AF_INET6. `mayUseRaw`: the caller has CAP_NET_RAW. ESOCKTNOSUPPORT, EPROTONOSUPPORT,
  /// EPERM.
  public static func make(
    domain: Int32, type: Int32, protocolNumber: Int32, flags: UInt32, mayUseRaw: Bool
  ) throws(Errno) -> InternetSocket {
    let ping: Int32 = domain == familyIPv6 ? 58 : 1
    switch (type, protocolNumber) {
    case (1, 0), (1, 6): return TCPSocket(domain: domain, flags: flags)
    case (2, 0), (2, 17): return DatagramSocket(domain: domain, flags: flags)
    case (2, ping):
      return RawInternetSocket(domain: domain, protocolNumber: ping, isPing: true, flags: flags)
    case (1, _), (2, _): throw .protocolNotSupported
    case (3, 1...255):
      guard mayUseRaw else { throw .notPermitted }
      return RawInternetSocket(domain: domain, protocolNumber: protocolNumber, isPing: false, flags: flags)
    case (3, _): throw mayUseRaw ? .protocolNotSupported : .notPermitted
    default: throw .socketTypeNotSupported
    }
  }

  final var isIPv6: Bool { domain == InternetSocket.familyIPv6 }
  /// The address of a socket that is not bound.
  final var unboundAddress: IPAddress { isIPv6 ? .any : .anyIPv4 }

  var now: UInt64 { host.monotonicNanoseconds }

  /// From inside the stack: whoever waits looks again.
  public func socketDidChange() {
    if !queue.isEmpty { queue.wake() }
  }

  public final override var waitQueue: WaitQueue? { queue }

  public override func getOption(level: Int32, option: Int32) throws(Errno) -> [UInt8] {
    try self.option(level: level, option)
  }

  public override func setOption(level: Int32, option: Int32, _ value: UserSlice) throws(Errno) {
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

  // MARK: What the kinds differ in

  /// SO_ERROR.
  func takeError() -> Errno? { nil }
  var isListening: Bool { false }
  /// Has an address of its own.
  var isBound: Bool { false }
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
