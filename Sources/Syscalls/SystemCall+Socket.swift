import ABI
import Processes
import Sockets
import Tasks
import VFS

/// Making sockets, their names and options. See SystemCall+SocketMessage.swift for what carries data.
extension SystemCall {
  private static var nonblocking: UInt32 { 0o4000 }
  private static var closeOnExecution: UInt32 { 0o2000000 }
  /// sizeof(struct sockaddr_storage)
  private static var largestAddress: Int32 { 128 }

  /// The socket behind a descriptor. EBADF, ENOTSOCK.
  func socketFile(_ descriptor: UInt) throws(Errno) -> Socket {
    guard let socket = try file(int(descriptor)) as? Socket else { throw .notSocket }
    return socket
  }

  /// Gives the socket a descriptor, or lets it go.
  private func install(_ socket: Socket, _ flags: UInt32) throws(Errno) -> Int32 {
    do throws(Errno) {
      return try process.descriptors.install(
        socket, closesOnExecution: flags & SystemCall.closeOnExecution != 0)
    } catch {
      socket.released()
      throw error
    }
  }

  /// SOCK_NONBLOCK and SOCK_CLOEXEC of a type argument.
  private func socketFlags(_ type: UInt32) throws(Errno) -> UInt32 {
    let flags = type & ~0xf
    guard flags & ~(SystemCall.nonblocking | SystemCall.closeOnExecution) == 0 else { throw .invalid }
    return flags
  }

  func socket() throws(Errno) -> Int {
    let type = unsigned(b)
    let flags = try socketFlags(type)
    let kind = Int32(type & 0xf)
    let nonblocking = flags & SystemCall.nonblocking
    switch int(a) {
    case 1:
      return Int(try install(try UnixSocket(type: kind, protocolNumber: int(c), flags: nonblocking), flags))
    case 2, 10:
      if kind == 3, int(c) == 0 { throw .protocolNotSupported }
      let socket = try InternetSocket.make(
        domain: int(a), type: kind, protocolNumber: int(c), flags: nonblocking, mayUseRaw: mayUseRaw)
      return Int(try install(socket, flags))
    case 16:
      let socket = try NetlinkSocket(type: kind, protocolNumber: int(c), flags: nonblocking)
      return Int(try install(socket, flags))
    case 17:
      guard mayUseRaw else { throw .notPermitted }
      let socket = try LinkSocket(type: kind, protocolNumber: int(c), flags: nonblocking)
      return Int(try install(socket, flags))
    default: throw .addressFamilyNotSupported
    }
  }

  /// CAP_NET_RAW (capabilities(7)).
  private var mayUseRaw: Bool { process.capabilities.effective & 1 << 13 != 0 }

  func socketpair() throws(Errno) -> Int {
    let type = unsigned(b)
    let flags = try socketFlags(type)
    guard int(a) == 1 else {
      guard int(a) == 2 || int(a) == 10 else { throw .addressFamilyNotSupported }
      // TCP for streams, UDP for datagrams, any but 0 for raw sockets; pairs of none.
      let isKnown = type & 0xf == 3 ? int(c) != 0 : int(c) == 0 || int(c) == (type & 0xf == 1 ? 6 : 17)
      throw isKnown ? .notSupported : .protocolNotSupported
    }
    let result = try UserSlice(d, 8)
    UnixSockets.prepare()
    let (first, second) = try UnixSocket.pair(
      type: Int32(type & 0xf), protocolNumber: int(c), flags: flags & SystemCall.nonblocking)
    let one: Int32
    do throws(Errno) { one = try install(first, flags) } catch {
      second.released()
      throw error
    }
    do throws(Errno) {
      let two = try install(second, flags)
      do throws(Errno) { try result.store(Socket.bytes(one) + Socket.bytes(two)) } catch {
        try process.descriptors.close(two)
        throw error
      }
    } catch {
      try process.descriptors.close(one)
      throw error
    }
    return 0
  }

  // MARK: Addresses

  /// A struct sockaddr… of a program.
  func address(_ pointer: UInt, _ length: UInt) throws(Errno) -> [UInt8] {
    let count = int(length)
    guard count >= 0, count <= SystemCall.largestAddress else { throw .invalid }
    return try UserSlice(pointer, Int(count)).bytes()
  }

  /// Stores an address, cut to the program's room, and its whole length at `lengthPointer`.
  func store(address: [UInt8], at pointer: UInt, lengthAt lengthPointer: UInt) throws(Errno) {
    let room = try UserSlice.load(lengthPointer, Int32(0))
    guard room >= 0 else { throw .invalid }
    let count = min(Int(room), address.count)
    if count > 0 { try UserSlice(pointer, count).store(Array(address[..<count])) }
    try UserSlice.store(Int32(address.count), at: lengthPointer)
  }

  func bind() throws(Errno) -> Int {
    let socket = try socketFile(a)
    UnixSockets.prepare()
    let place = try address(b, c)
    // CAP_NET_BIND_SERVICE for ports below 1024 (ip(7)).
    if place.count >= 4, place[0] == 2 || place[0] == 10, place[1] == 0, !process.credentials.isPrivileged {
      let port = UInt16(place[2]) << 8 | UInt16(place[3])
      if port > 0, port < 1024, process.capabilities.effective & 1 << 10 == 0 { throw .accessDenied }
    }
    try socket.bind(place)
    return 0
  }

  func listen() throws(Errno) -> Int {
    UnixSockets.prepare()
    // The backlog is unsigned to Linux: a negative one asks for the most.
    try socketFile(a).listen(backlog: int(b) < 0 ? 4096 : Int(int(b)))
    return 0
  }

  func connect() throws(Errno) -> Int {
    let socket = try socketFile(a)
    UnixSockets.prepare()
    try socket.connect(try address(b, c))
    return 0
  }

  func accept() throws(Errno) -> Int { try accept(flags: 0) }

  func accept4() throws(Errno) -> Int {
    let flags = unsigned(d)
    guard flags & ~(SystemCall.nonblocking | SystemCall.closeOnExecution) == 0 else { throw .invalid }
    return try accept(flags: flags)
  }

  private func accept(flags: UInt32) throws(Errno) -> Int {
    let listener = try socketFile(a)
    let socket = try listener.accept(flags: flags & SystemCall.nonblocking)
    if b != 0 {
      do throws(Errno) {
        try store(address: try socket.acceptedName(), at: b, lengthAt: c)
      } catch {
        // The peer may be gone before it was accepted; only a bad address of the program is its own fault.
        if error != .notConnected {
          socket.released()
          throw error
        }
        do throws(Errno) { try UserSlice.store(Int32(0), at: c) } catch {}
      }
    }
    return Int(try install(socket, flags))
  }

  func getsockname() throws(Errno) -> Int {
    try store(address: try socketFile(a).name(), at: b, lengthAt: c)
    return 0
  }

  func getpeername() throws(Errno) -> Int {
    try store(address: try socketFile(a).peerName(), at: b, lengthAt: c)
    return 0
  }

  func shutdown() throws(Errno) -> Int {
    try socketFile(a).shutdown(int(b))
    return 0
  }

  // MARK: Options

  func setsockopt() throws(Errno) -> Int {
    let socket = try socketFile(a)
    guard int(e) >= 0 else { throw .invalid }
    try socket.setOption(level: int(b), option: int(c), try UserSlice(d, Int(int(e))))
    return 0
  }

  func getsockopt() throws(Errno) -> Int {
    let socket = try socketFile(a)
    let room = try UserSlice.load(e, Int32(0))
    guard room >= 0 else { throw .invalid }
    let value = try socket.getOption(level: int(b), option: int(c))
    let count = min(Int(room), value.count)
    try UserSlice(d, count).store(Array(value[..<count]))
    try UserSlice.store(Int32(count), at: e)
    return 0
  }
}

/// What unix(7) sockets ask of the calling process.
final class UnixSockets: UnixSocketEnvironment {
  /// Before the first call that may need it.
  static func prepare() {
    if UnixNames.environment == nil { UnixNames.environment = UnixSockets() }
  }

  func makeSocketFile(_ path: [UInt8]) throws(Errno) -> Inode {
    do throws(Errno) {
      return try LinuxThread.running.process.fileSystem.makeNode(path, mode: 0o140777, device: 0)
    } catch { throw error == .fileExists ? .addressInUse : error }
  }

  func lookup(_ path: [UInt8]) throws(Errno) -> Inode {
    let context: FileSystemContext = LinuxThread.running.process.fileSystem
    let inode = try context.resolve(path).inode
    try context.credentials.check(inode, 2)
    guard inode.type == 0o140000 else { throw .connectionRefused }
    return inode
  }

  var credentials: SocketCredentials {
    let process: Process = LinuxThread.running.process
    return SocketCredentials(
      process: process.pid, user: process.credentials.effectiveUser, group: process.credentials.effectiveGroup
    )
  }
}
