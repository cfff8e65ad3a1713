public import ABI
public import Tasks
public import VFS

/// Flags of send(2) and recv(2), as Linux numbers them.
public struct MessageFlags: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public static var outOfBand: MessageFlags { MessageFlags(rawValue: 0x1) }
  public static var peek: MessageFlags { MessageFlags(rawValue: 0x2) }
  public static var controlTruncated: MessageFlags { MessageFlags(rawValue: 0x8) }
  public static var truncated: MessageFlags { MessageFlags(rawValue: 0x20) }
  public static var doNotWait: MessageFlags { MessageFlags(rawValue: 0x40) }
  public static var endOfRecord: MessageFlags { MessageFlags(rawValue: 0x80) }
  public static var waitAll: MessageFlags { MessageFlags(rawValue: 0x100) }
  /// The dispatcher does not raise SIGPIPE on EPIPE.
  public static var noSignal: MessageFlags { MessageFlags(rawValue: 0x4000) }
  public static var more: MessageFlags { MessageFlags(rawValue: 0x8000) }
}

/// struct ucred: who is at the other end (unix(7)).
public struct SocketCredentials {
  public var process: Int32
  public var user: UInt32
  public var group: UInt32
  public init(process: Int32 = 0, user: UInt32 = 0, group: UInt32 = 0) {
    self.process = process
    self.user = user
    self.group = group
  }
}

/// One piece of ancillary data of a protocol (struct cmsghdr and what follows it).
public struct SocketControlItem {
  public var level: Int32
  public var type: Int32
  public var data: [UInt8]
  public init(level: Int32, type: Int32, data: [UInt8]) {
    self.level = level
    self.type = type
    self.data = data
  }
}

/// Ancillary data, decoded (cmsg(3)).
public struct SocketControl {
  /// SCM_RIGHTS. A received file carries one reference, which the receiver's descriptor takes over or `discard`
  /// gives back.
  public var files: [OpenFile] = []
  /// SCM_CREDENTIALS.
  public var credentials: SocketCredentials?
  /// What ip(7), ipv6(7) and packet(7) sockets give and take.
  public var items: [SocketControlItem] = []
  public init() {}

  public var isEmpty: Bool { files.isEmpty && credentials == nil && items.isEmpty }

  /// Lets go of files that nobody received.
  public func discard() {
    for file in files {
      file.references -= 1
      if file.references == 0 {
        Epoll.forget(file)
        file.released()
      }
    }
  }
}

/// What recvmsg(2) found.
public struct SocketMessage {
  public var count = 0
  /// The sender's address (struct sockaddr…), empty if it has none.
  public var address: [UInt8] = []
  public var control = SocketControl()
  /// MSG_TRUNC, MSG_CTRUNC, MSG_EOR.
  public var flags: MessageFlags = []
  public init() {}
}

/// A socket: what unix(7) and ip(7) sockets share. Addresses are the bytes of a struct sockaddr….
///
/// Kernel lock held for every call; calls that wait give it up unless the file or MSG_DONTWAIT says not to.
open class Socket: OpenFile {
  /// AF_…, SOCK_… and the protocol, for SO_DOMAIN, SO_TYPE and SO_PROTOCOL.
  public final let domain: Int32
  public final let type: Int32
  public final let protocolNumber: Int32

  public init(domain: Int32, type: Int32, protocolNumber: Int32, flags: UInt32) {
    self.domain = domain
    self.type = type
    self.protocolNumber = protocolNumber
    super.init(inode: PipeInodes.anonymous(mode: 0o140777), flags: flags & 0o4000 | 2)
  }

  open func bind(_ address: [UInt8]) throws(Errno) { throw .notSupported }
  open func listen(backlog: Int) throws(Errno) { throw .notSupported }
  /// `flags`: O_NONBLOCK of the new socket.
  open func accept(flags: UInt32) throws(Errno) -> Socket { throw .notSupported }
  open func connect(_ address: [UInt8]) throws(Errno) { throw .notSupported }
  open func send(_ slices: [UserSlice], flags: MessageFlags, destination: [UInt8]?, control: SocketControl)
    throws(Errno) -> Int
  { throw .notSupported }
  open func receive(_ slices: [UserSlice], flags: MessageFlags) throws(Errno) -> SocketMessage {
    throw .notSupported
  }
  /// `how`: SHUT_RD 0, SHUT_WR 1, SHUT_RDWR 2.
  open func shutdown(_ how: Int32) throws(Errno) { throw .notSupported }
  open func name() throws(Errno) -> [UInt8] { throw .notSupported }
  open func peerName() throws(Errno) -> [UInt8] { throw .notConnected }
  /// The peer of a socket fresh from `accept`, for accept(2).
  open func acceptedName() throws(Errno) -> [UInt8] { try peerName() }
  open func setOption(level: Int32, option: Int32, _ value: UserSlice) throws(Errno) {
    throw .noProtocolOption
  }
  open func getOption(level: Int32, option: Int32) throws(Errno) -> [UInt8] { throw .noProtocolOption }

  /// read(2) and write(2) are receive and send without flags, for every socket.
  open override func read(_ slice: UserSlice) throws(Errno) -> Int {
    let message = try receive([slice], flags: [])
    message.control.discard()
    return message.count
  }

  open override func write(_ slice: UserSlice) throws(Errno) -> Int {
    try send([slice], flags: [], destination: nil, control: SocketControl())
  }

  /// An option's value as four bytes.
  public static func bytes(_ value: Int32) -> [UInt8] {
    let bits = UInt32(bitPattern: value)
    return [
      UInt8(truncatingIfNeeded: bits), UInt8(truncatingIfNeeded: bits >> 8),
      UInt8(truncatingIfNeeded: bits >> 16),
      UInt8(truncatingIfNeeded: bits >> 24),
    ]
  }
}
