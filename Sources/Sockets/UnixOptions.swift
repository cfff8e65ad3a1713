import ABI
import Tasks
import VFS

/// socket(7) options that unix sockets have.
extension UnixSocket {
  private static let level: Int32 = 1

  func option(level: Int32, _ option: Int32) throws(Errno) -> [UInt8] {
    guard level == UnixSocket.level else { throw .notSupported }
    switch option {
    case 2: return Socket.bytes(reuseAddress)
    case 3: return Socket.bytes(type)
    case 4:
      let error = pendingError
      pendingError = nil
      return Socket.bytes(error?.rawValue ?? 0)
    case 7: return Socket.bytes(sendBuffer)
    case 8: return Socket.bytes(receiveBuffer)
    case 9: return Socket.bytes(keepAlive)
    case 13: return Socket.bytes(0) + Socket.bytes(0)
    case 16: return Socket.bytes(passesCredentials ? 1 : 0)
    case 17:
      let credentials = peerCredentials
      return Socket.bytes(credentials.process) + Socket.bytes(Int32(bitPattern: credentials.user))
        + Socket.bytes(Int32(bitPattern: credentials.group))
    case 18: return Socket.bytes(1)
    case 20, 66: return time(receiveTimeout)
    case 21, 67: return time(sendTimeout)
    case 30: return Socket.bytes(isListening ? 1 : 0)
    case 38: return Socket.bytes(0)
    case 39: return Socket.bytes(1)
    default: throw .noProtocolOption
    }
  }

  /// struct timeval.
  private func time(_ nanoseconds: UInt64) -> [UInt8] {
    var result: [UInt8] = []
    for value in [nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000 / 1000] {
      for shift in stride(from: 0, to: 64, by: 8) {
        result.append(UInt8(truncatingIfNeeded: value >> UInt64(shift)))
      }
    }
    return result
  }

  func set(level: Int32, option: Int32, _ value: UserSlice) throws(Errno) {
    guard level == UnixSocket.level else { throw .notSupported }
    if [20, 21, 66, 67].contains(option) { return try setTimeout(option, value) }
    guard value.count >= 4 else { throw .invalid }
    let bytes = try value.prefix(4).bytes()
    let bits = UInt32(bytes[0]) | UInt32(bytes[1]) << 8 | UInt32(bytes[2]) << 16 | UInt32(bytes[3]) << 24
    let number = Int32(bitPattern: bits)
    switch option {
    case 2: reuseAddress = number != 0 ? 1 : 0
    // What is told is twice what was asked for (socket(7), SO_RCVBUF).
    case 7, 32: sendBuffer = max(4608, min(number, 212_992) &* 2)
    case 8, 33: receiveBuffer = max(2304, min(number, 212_992) &* 2)
    case 9: keepAlive = number != 0 ? 1 : 0
    case 16: passesCredentials = number != 0
    case 6, 12, 13, 15: break
    default: throw .noProtocolOption
    }
  }

  private func setTimeout(_ option: Int32, _ value: UserSlice) throws(Errno) {
    guard value.count >= 16 else { throw .invalid }
    let bytes = try value.prefix(16).bytes()
    var words: [UInt64] = [0, 0]
    for index in 0..<16 { words[index / 8] |= UInt64(bytes[index]) << UInt64(index % 8 * 8) }
    guard words[1] < 1_000_000 else { throw .domain }
    // Beyond a century is for ever.
    let nanoseconds = words[0] > 4_000_000_000 ? 0 : words[0] * 1_000_000_000 + words[1] * 1000
    if option == 20 || option == 66 { receiveTimeout = nanoseconds } else { sendTimeout = nanoseconds }
  }
}
