import ABI
import Net
import Tasks

/// tcp(7) options.
extension TCPSocket {
  private static var second: UInt64 { 1_000_000_000 }

  func streamOption(_ option: Int32) throws(Errno) -> [UInt8] {
    switch option {
    case 1: return Socket.bytes(tcpOptions.noDelay ? 1 : 0)
    case 2: return Socket.bytes(Int32(clamping: connection?.maximumSegmentSize ?? 536))
    case 3: return Socket.bytes(tcpOptions.cork ? 1 : 0)
    case 4: return Socket.bytes(Int32(clamping: tcpOptions.keepAliveIdle / TCPSocket.second))
    case 5: return Socket.bytes(Int32(clamping: tcpOptions.keepAliveInterval / TCPSocket.second))
    case 6: return Socket.bytes(Int32(clamping: tcpOptions.keepAliveCount))
    case 7: return Socket.bytes(6)  // TCP_SYNCNT
    case 8: return Socket.bytes(60)  // TCP_LINGER2, seconds
    case 9: return Socket.bytes(options.deferSeconds)
    case 10: return Socket.bytes(0)  // TCP_WINDOW_CLAMP
    case 11: return information()
    case 12: return Socket.bytes(options.quickAcknowledges)
    case 13: return [0x72, 0x65, 0x6e, 0x6f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]  // "reno"
    case 18: return Socket.bytes(Int32(clamping: tcpOptions.userTimeout / 1_000_000))
    case 23, 30: return Socket.bytes(0)  // TCP_FASTOPEN, TCP_FASTOPEN_CONNECT
    case 25: return Socket.bytes(-1)  // TCP_NOTSENT_LOWAT
    default: throw .noProtocolOption
    }
  }

  /// Nagle's algorithm and the like follow at once; `optionsChanged` hands them on.
  func setStreamOption(_ option: Int32, _ value: UserSlice) throws(Errno) {
    if option == 13 { return }  // TCP_CONGESTION
    let number = try InternetSocket.number(value)
    switch option {
    case 1: tcpOptions.noDelay = number != 0
    case 3: tcpOptions.cork = number != 0
    case 4: tcpOptions.keepAliveIdle = try seconds(number)
    case 5: tcpOptions.keepAliveInterval = try seconds(number)
    case 6:
      guard (1...127).contains(number) else { throw .invalid }
      tcpOptions.keepAliveCount = Int(number)
    case 9:
      options.deferSeconds = max(0, number)
      tcpOptions.deferAccept = number > 0
    case 12: options.quickAcknowledges = number != 0 ? 1 : 0
    case 18:
      guard number >= 0 else { throw .invalid }
      tcpOptions.userTimeout = UInt64(number) * 1_000_000
    // TCP_MAXSEG, _SYNCNT, _LINGER2, _WINDOW_CLAMP, _FASTOPEN, _TIMESTAMP, _NOTSENT_LOWAT, _FASTOPEN_CONNECT:
    // hints that change nothing a program can tell.
    case 2, 7, 8, 10, 23, 24, 25, 30: break
    default: throw .noProtocolOption
    }
  }

  private func seconds(_ number: Int32) throws(Errno) -> UInt64 {
    guard (1...32767).contains(number) else { throw .invalid }
    return UInt64(number) * TCPSocket.second
  }

  /// struct tcp_info up to tcpi_total_retrans (include/uapi/linux/tcp.h).
  private func information() -> [UInt8] {
    var result = [UInt8](repeating: 0, count: 104)
    result[0] = stateNumber
    guard let connection else { return result }
    func put(_ value: UInt64, _ offset: Int) {
      let word = UInt32(clamping: value)
      for index in 0..<4 { result[offset + index] = UInt8(truncatingIfNeeded: word >> UInt32(index * 8)) }
    }
    let segment = UInt64(max(1, connection.maximumSegmentSize))
    put(connection.retransmissionTimeout / 1000, 8)
    put(segment, 16)
    put(segment, 20)
    put(UInt64(clamping: connection.unacknowledgedBytes) / segment, 24)
    put(segment, 60)
    put(connection.roundTripTime / 1000, 68)
    put(connection.roundTripVariance / 1000, 72)
    put(UInt64(clamping: connection.slowStartThresholdBytes) / segment, 76)
    put(max(1, UInt64(clamping: connection.congestionWindowBytes) / segment), 80)
    put(segment, 84)
    put(UInt64(clamping: tcpOptions.receiveLimit), 96)
    put(UInt64(clamping: connection.retransmissions), 100)
    return result
  }

  /// As Linux numbers states (include/net/tcp_states.h).
  var stateNumber: UInt8 {
    if listener != nil { return 10 }
    guard let connection else { return 7 }
    switch connection.state {
    case .established: return 1
    case .synSent: return 2
    case .synReceived: return 3
    case .finWait1: return 4
    case .finWait2: return 5
    case .timeWait: return 6
    case .closed: return 7
    case .closeWait: return 8
    case .lastAck: return 9
    case .closing: return 11
    }
  }
}
