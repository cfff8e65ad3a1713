import ABI

extension SystemCall {
  /// Socket calls; nil when the number is none.
  func dispatchSocket() throws(Errno) -> Int? {
    switch number {
    case 41: return try socket()
    case 42: return try connect()
    case 43: return try accept()
    case 44: return try sendto()
    case 45: return try recvfrom()
    case 46: return try sendmsg()
    case 47: return try recvmsg()
    case 48: return try shutdown()
    case 49: return try bind()
    case 50: return try listen()
    case 51: return try getsockname()
    case 52: return try getpeername()
    case 53: return try socketpair()
    case 54: return try setsockopt()
    case 55: return try getsockopt()
    case 288: return try accept4()
    case 299: return try recvmmsg()
    case 307: return try sendmmsg()
    default: return nil
    }
  }
}

extension SystemCall {
  /// Called once at start, before the first socket is made.
  public static func prepareSockets() { UnixSockets.prepare() }
}
