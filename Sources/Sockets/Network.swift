import ABI
public import Net
public import Tasks

/// The one network stack of the system and its link. Kernel lock held for every call.
public enum Network {
  nonisolated(unsafe) private static var current: NetworkStack?
  nonisolated(unsafe) private static var timer: NetworkTimer?
  /// Nil with loopback only.
  nonisolated(unsafe) public private(set) static var interface: NetworkInterface?
  /// Told when addresses, routers or name servers have changed.
  nonisolated(unsafe) public static var observer: (any NetworkObserver)?
  nonisolated(unsafe) private static var generation = 0

  /// Bits of the interface's netmask.
  public static var prefixLength: Int { stack.prefixLength }

  /// The stack; loopback only until `configure` is called, which must be before the first socket is made.
  public static var stack: NetworkStack {
    if let current { return current }
    return make(nil, MACAddress(rawValue: 0))
  }

  /// Brings the outside link up as eth0: with an IPv4 address, or any when DHCP is to find one, and with IPv6 as
  /// the link's routers say.
  public static func configure(
    kind: LinkKind, address: IPv4Address, prefix: Int, gateway: IPv4Address, mac: MACAddress, mtu: Int = 0,
    offloads: Bool = true
  ) {
    let device = NetworkInterface(kind: kind, mtu: mtu, offloads: offloads)
    interface = device
    let stack = make(device, mac)
    stack.configure(address: address, prefixLength: prefix, gateway: gateway)
    stack.announce()
    stack.enableIPv6(now: host.monotonicNanoseconds)
    Devices.network = device
    // On a silent link nothing else would start the timer.
    settle()
  }

  /// Forgets the stack. For tests: no socket of it may be left.
  public static func reset() {
    timer?.disarm()
    if let interface, Devices.network === interface { Devices.network = nil }
    interface = nil
    current = nil
    timer = nil
  }

  @discardableResult
  private static func make(_ device: NetworkInterface?, _ mac: MACAddress) -> NetworkStack {
    var seed: UInt64 = 0
    withUnsafeMutableBytes(of: &seed) { host.fillRandom($0) }
    let stack = NetworkStack(device: device, macAddress: mac, randomSeed: seed)
    current = stack
    timer = NetworkTimer()
    return stack
  }

  /// Sends what is waiting and sets the timer for what comes later: after every socket operation that may have
  /// changed something, and after every batch of frames.
  public static func settle() {
    guard let stack = current, let timer else { return }
    let now = host.monotonicNanoseconds
    stack.poll(now: now)
    if generation != stack.configurationGeneration {
      generation = stack.configurationGeneration
      observer?.networkDidChange()
    }
    let deadline = stack.nextDeadline ?? .max
    if let interface, interface.hasOutput { interface.flushOutput() }
    // A timer that fires too early costs less than moving it at every call.
    guard deadline != .max, !timer.isArmed || timer.deadline > deadline else { return }
    timer.arm(max(deadline, now &+ 1000))
  }
}

/// Somebody who writes down what the network's servers and routers tell.
public protocol NetworkObserver: AnyObject {
  /// Kernel lock held. Called from `Network.settle`.
  func networkDidChange()
}

/// Follows the stack's next deadline.
private final class NetworkTimer: Timer {
  override func fire(now: UInt64) { Network.settle() }
}

extension NetworkError {
  /// The error number of the same name (errno(3)).
  var number: Errno {
    switch self {
    case .wouldBlock: .again
    case .connectionRefused: .connectionRefused
    case .connectionReset: .connectionReset
    case .connectionAborted: .connectionAborted
    case .timedOut: .timedOut
    case .notConnected: .notConnected
    case .isConnected: .isConnected
    case .addressInUse: .addressInUse
    case .addressNotAvailable: .addressNotAvailable
    case .hostUnreachable: .hostUnreachable
    case .networkUnreachable: .networkUnreachable
    case .brokenPipe: .brokenPipe
    case .messageTooLong: .messageTooLong
    case .invalid: .invalid
    case .inProgress: .inProgress
    case .already: .already
    case .destinationRequired: .destinationRequired
    case .accessDenied: .accessDenied
    case .noBufferSpace: .noBuffers
    }
  }
}
