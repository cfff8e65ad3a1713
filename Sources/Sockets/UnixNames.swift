public import ABI
public import VFS

/// How unix(7) sockets find each other, and what they ask of the layers above. Set at start.
public protocol UnixSocketEnvironment: AnyObject {
  /// Makes a file of type socket at `path` (relative to the caller's directory): EADDRINUSE if there is one.
  func makeSocketFile(_ path: [UInt8]) throws(Errno) -> Inode
  /// The inode at `path`, with write permission checked.
  func lookup(_ path: [UInt8]) throws(Errno) -> Inode
  /// Of the calling process.
  var credentials: SocketCredentials { get }
}

/// Names that are bound: paths through the inode that they made, abstract names by their bytes.
public enum UnixNames {
  nonisolated(unsafe) public static var environment: (any UnixSocketEnvironment)?
  /// Few sockets are bound at a time: lists will do.
  nonisolated(unsafe) private static var byInode: [(inode: Inode, socket: UnixSocket)] = []
  nonisolated(unsafe) private static var abstract: [(name: [UInt8], socket: UnixSocket)] = []
  nonisolated(unsafe) private static var nextAutomatic: UInt32 = 0

  static var credentials: SocketCredentials { environment?.credentials ?? SocketCredentials() }

  /// Binds, and gives the address as getsockname(2) tells it.
  static func bind(_ address: [UInt8], _ socket: UnixSocket) throws(Errno) -> [UInt8] {
    let name = try parse(address)
    if name.isEmpty { return try bindAutomatically(socket) }
    if name[0] == 0 {
      if find(abstract: name) != nil { throw .addressInUse }
      abstract.append((name, socket))
      return [1, 0] + name
    }
    guard let environment else { throw .notSupported }
    byInode.append((try environment.makeSocketFile(name), socket))
    return [1, 0] + name + [0]
  }

  /// unix(7), "Autobind feature": an abstract name of five hexadecimal digits.
  private static func bindAutomatically(_ socket: UnixSocket) throws(Errno) -> [UInt8] {
    for _ in 0..<0x10_0000 {
      nextAutomatic = (nextAutomatic &+ 1) & 0xf_ffff
      var name: [UInt8] = [0]
      for shift in [16, 12, 8, 4, 0] as [UInt32] {
        let digit = UInt8(truncatingIfNeeded: nextAutomatic >> shift) & 15
        name.append(digit < 10 ? 0x30 + digit : 0x57 + digit)
      }
      if find(abstract: name) == nil {
        abstract.append((name, socket))
        return [1, 0] + name
      }
    }
    throw .noSpace
  }

  /// The name in a struct sockaddr_un: empty, abstract (starts with 0), or a path without its end.
  private static func parse(_ address: [UInt8]) throws(Errno) -> [UInt8] {
    guard address.count >= 2, address.count <= 110 else { throw .invalid }
    guard address[0] == 1, address[1] == 0 else { throw .invalid }
    let name = Array(address[2...])
    if name.isEmpty || name[0] == 0 { return name }
    guard let end = name.firstIndex(of: 0) else { return name }
    return Array(name[..<end])
  }

  private static func find(abstract name: [UInt8]) -> UnixSocket? {
    for entry in abstract where entry.name == name { return entry.socket }
    return nil
  }

  /// ECONNREFUSED when nobody is bound there.
  static func find(_ address: [UInt8]) throws(Errno) -> UnixSocket {
    let name = try parse(address)
    guard let first = name.first else { throw .connectionRefused }
    if first == 0 {
      guard let socket = find(abstract: name) else { throw .connectionRefused }
      return socket
    }
    guard let environment else { throw .notSupported }
    let inode = try environment.lookup(name)
    for entry in byInode where entry.inode === inode { return entry.socket }
    throw .connectionRefused
  }

  static func unbind(_ socket: UnixSocket) {
    byInode.removeAll { $0.socket === socket }
    abstract.removeAll { $0.socket === socket }
  }
}
