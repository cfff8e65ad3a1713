import ABI
import Net
import Tasks

/// What socket(7) and ip(7) let a program set, for both kinds.
struct InternetOptions {
  var reuseAddress = false
  var reusePort = false
  var broadcast = false
  var lingers = false
  var lingerSeconds: Int32 = 0
  var receiveLowWater: Int32 = 1
  /// As they are told: twice what was asked for. Linux's defaults.
  var receiveBuffer: Int32 = 212_992
  var sendBuffer: Int32 = 212_992
  var hasSetReceiveBuffer = false
  var hasSetSendBuffer = false
  var priority: Int32 = 0
  var timeToLive: UInt8 = 64
  var hopLimit: UInt8 = 64
  var multicastTimeToLive: UInt8 = 1
  var multicastHopLimit: UInt8 = 1
  var loopsMulticast = true
  var trafficClass: Int32 = 0
  /// IPV6_V6ONLY; the default is /proc/sys/net/ipv6/bindv6only.
  var onlyIPv6 = false
  /// Ancillary data that recvmsg(2) gives: IP_PKTINFO and IPV6_RECVPKTINFO, IP_RECVTTL and IPV6_RECVHOPLIMIT,
  /// IP_RECVTOS and IPV6_RECVTCLASS.
  var tellsPacketInfo = false
  var tellsTimeToLive = false
  var tellsTypeOfService = false
  var tellsPacketInfoIPv6 = false
  var tellsHopLimit = false
  var tellsTrafficClass = false
  /// SO_BINDTODEVICE: 1 for lo, 2 for eth0, 0 for neither.
  var boundInterface: Int32 = 0
  /// IP_MTU_DISCOVER, IP_RECVERR and their like, kept to be told again.
  var kept: [(level: Int32, option: Int32, value: Int32)] = []
  var typeOfService: Int32 = 0
  var quickAcknowledges: Int32 = 1
  var deferSeconds: Int32 = 0
}

extension InternetSocket {
  static var socketLevel: Int32 { 1 }

  final func option(level: Int32, _ option: Int32) throws(Errno) -> [UInt8] {
    switch level {
    case 0: return try addressOption(option)
    case 41 where isIPv6: return try optionIPv6(option)
    case 58, 255:
      guard let socket = self as? RawInternetSocket else { throw .noProtocolOption }
      return try socket.rawOption(level: level, option)
    case 1: return try socketOption(option)
    case 6:
      guard let socket = self as? TCPSocket else { throw .notSupported }
      return try socket.streamOption(option)
    default: throw .notSupported
    }
  }

  private func socketOption(_ option: Int32) throws(Errno) -> [UInt8] {
    func flag(_ value: Bool) -> [UInt8] { Socket.bytes(value ? 1 : 0) }
    switch option {
    case 2: return flag(options.reuseAddress)
    case 3: return Socket.bytes(type)
    case 4: return Socket.bytes(takeError()?.rawValue ?? 0)
    case 5, 10, 16: return Socket.bytes(0)
    case 6: return flag(options.broadcast)
    case 7: return Socket.bytes(options.sendBuffer)
    case 8: return Socket.bytes(options.receiveBuffer)
    case 9: return flag((self as? TCPSocket)?.tcpOptions.keepAlive ?? false)
    case 12: return Socket.bytes(options.priority)
    case 13: return flag(options.lingers) + Socket.bytes(options.lingerSeconds)
    case 15: return flag(options.reusePort)
    case 18: return Socket.bytes(options.receiveLowWater)
    case 19: return Socket.bytes(1)
    case 25:  // SO_BINDTODEVICE
      return options.boundInterface == 0 ? [] : InterfaceRequest.name(options.boundInterface) + [0]
    case 20, 66: return InternetSocket.time(receiveTimeout)
    case 21, 67: return InternetSocket.time(sendTimeout)
    case 30: return flag(isListening)
    case 36, 46, 47: return Socket.bytes(0)  // SO_MARK, SO_BUSY_POLL, SO_MAX_PACING_RATE
    case 38: return Socket.bytes(protocolNumber)
    case 39: return Socket.bytes(domain)
    default: throw .noProtocolOption
    }
  }

  /// struct timeval.
  static func time(_ nanoseconds: UInt64) -> [UInt8] {
    var result: [UInt8] = []
    for value in [nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000 / 1000] {
      for shift in stride(from: 0, to: 64, by: 8) {
        result.append(UInt8(truncatingIfNeeded: value >> UInt64(shift)))
      }
    }
    return result
  }

  private func addressOption(_ option: Int32) throws(Errno) -> [UInt8] {
    func flag(_ value: Bool) -> [UInt8] { Socket.bytes(value ? 1 : 0) }
    switch option {
    case 1: return Socket.bytes(options.typeOfService)
    case 2: return Socket.bytes(Int32(options.timeToLive))
    case 3: return flag((self as? RawInternetSocket)?.socket.includesHeader ?? false)
    case 8: return flag(options.tellsPacketInfo)
    case 12: return flag(options.tellsTimeToLive)
    case 13: return flag(options.tellsTypeOfService)
    case 10: return Socket.bytes(kept(0, 10) ?? 1)
    case 14: return Socket.bytes(Int32(Network.interface?.mtu ?? 65536))
    case 4: return []
    case 32: return [0, 0, 0, 0]
    case 33: return Socket.bytes(Int32(options.multicastTimeToLive))
    case 34: return flag(options.loopsMulticast)
    case 49: return Socket.bytes(kept(0, 49) ?? 1)
    case 6, 7, 11, 15, 19, 20, 21, 22, 23, 24, 50, 51: return Socket.bytes(kept(0, option) ?? 0)
    default: throw .noProtocolOption
    }
  }

  /// What an option that changes nothing here was set to.
  final func kept(_ level: Int32, _ option: Int32) -> Int32? {
    for entry in options.kept where entry.level == level && entry.option == option { return entry.value }
    return nil
  }

  final func keep(_ level: Int32, _ option: Int32, _ value: Int32) {
    options.kept.removeAll { $0.level == level && $0.option == option }
    options.kept.append((level, option, value))
  }

  final func set(level: Int32, option: Int32, _ value: UserSlice) throws(Errno) {
    switch level {
    case 0: try setAddressOption(option, value)
    case 41 where isIPv6: try setOptionIPv6(option, value)
    case 58, 255:
      guard let socket = self as? RawInternetSocket else { throw .noProtocolOption }
      try socket.setRawOption(level: level, option, value)
    case 1: try setSocketOption(option, value)
    case 6:
      guard let socket = self as? TCPSocket else { throw .noProtocolOption }
      try socket.setStreamOption(option, value)
    default: throw .noProtocolOption
    }
    optionsChanged()
  }

  static func number(_ value: UserSlice) throws(Errno) -> Int32 {
    guard value.count >= 4 else { throw .invalid }
    return word(try value.prefix(4).bytes(), 0)
  }

  /// Four bytes of an array that has them.
  static func word(_ bytes: [UInt8], _ offset: Int) -> Int32 {
    var bits: UInt32 = 0
    for index in 0..<4 { bits |= UInt32(bytes[offset + index]) << UInt32(index * 8) }
    return Int32(bitPattern: bits)
  }

  private func setSocketOption(_ option: Int32, _ value: UserSlice) throws(Errno) {
    switch option {
    case 20, 66: return receiveTimeout = try InternetSocket.timeout(value)
    case 21, 67: return sendTimeout = try InternetSocket.timeout(value)
    case 13: return try setLinger(value)
    case 25: return options.boundInterface = try InterfaceRequest.index(named: value)
    case 26, 27: return  // SO_ATTACH_FILTER, SO_DETACH_FILTER
    default: break
    }
    let number = try InternetSocket.number(value)
    switch option {
    case 2: options.reuseAddress = number != 0
    case 6: options.broadcast = number != 0
    case 7, 32: setBuffer(number, sends: true)
    case 8, 33: setBuffer(number, sends: false)
    case 9: (self as? TCPSocket)?.tcpOptions.keepAlive = number != 0
    case 12: options.priority = number
    case 15: options.reusePort = number != 0
    case 18: options.receiveLowWater = number < 0 ? Int32.max : max(1, number)
    case 3, 4, 30, 38, 39: throw .noProtocolOption
    // SO_DONTROUTE, SO_OOBINLINE, SO_NO_CHECK, SO_PASSCRED, SO_TIMESTAMP…: nothing here depends on them.
    case 1, 5, 10, 11, 16, 29, 35, 36, 37, 40, 46, 47, 60: break
    default: throw .noProtocolOption
    }
  }

  private func setLinger(_ value: UserSlice) throws(Errno) {
    guard value.count >= 8 else { throw .invalid }
    let bytes = try value.prefix(8).bytes()
    options.lingers = InternetSocket.word(bytes, 0) != 0
    options.lingerSeconds = max(0, InternetSocket.word(bytes, 4))
  }

  /// SO_SNDBUF and SO_RCVBUF: what is told, and used, is twice what was asked for (socket(7)).
  private func setBuffer(_ number: Int32, sends: Bool) {
    let size = max(sends ? 4608 : 2304, min(max(number, 0), 4 << 20) &* 2)
    if sends { options.sendBuffer = size } else { options.receiveBuffer = size }
    guard let socket = self as? TCPSocket else { return }
    if sends {
      socket.tcpOptions.sendLimit = Int(size)
      socket.tcpOptions.growsSendLimit = false
    } else {
      socket.tcpOptions.receiveLimit = Int(size)
    }
  }

  /// A struct timeval in nanoseconds; 0 is for ever.
  static func timeout(_ value: UserSlice) throws(Errno) -> UInt64 {
    guard value.count >= 16 else { throw .invalid }
    let bytes = try value.prefix(16).bytes()
    var words: [UInt64] = [0, 0]
    for index in 0..<16 { words[index / 8] |= UInt64(bytes[index]) << UInt64(index % 8 * 8) }
    guard words[1] < 1_000_000 else { throw .domain }
    // Beyond a century is for ever.
    return words[0] > 4_000_000_000 ? 0 : words[0] * 1_000_000_000 + words[1] * 1000
  }

  private func setAddressOption(_ option: Int32, _ value: UserSlice) throws(Errno) {
    switch option {
    case 32, 35, 36, 39...42, 45: return try setMembership(option, value)
    case 37, 38: throw .addressNotAvailable  // IP_UNBLOCK_SOURCE, IP_BLOCK_SOURCE: no sources are filtered
    case 4: return  // IP_OPTIONS
    default: break
    }
    guard value.count >= 1 else { throw .invalid }
    let number = value.count >= 4 ? try InternetSocket.number(value) : Int32(try value.prefix(1).bytes()[0])
    switch option {
    case 1: options.typeOfService = number & 0xff
    case 2:
      guard number == -1 || (1...255).contains(number) else { throw .invalid }
      options.timeToLive = number == -1 ? 64 : UInt8(number)
      (self as? TCPSocket)?.tcpOptions.timeToLive = options.timeToLive
    case 3:
      guard let raw = self as? RawInternetSocket, !raw.socket.isPing else { throw .noProtocolOption }
      raw.socket.includesHeader = number != 0
    case 8: options.tellsPacketInfo = number != 0
    case 12: options.tellsTimeToLive = number != 0
    case 13: options.tellsTypeOfService = number != 0
    case 33:
      guard type != 1, number >= -1, number <= 255 else { throw .invalid }
      options.multicastTimeToLive = number == -1 ? 1 : UInt8(number)
    case 34: options.loopsMulticast = number != 0
    case 6, 7, 10, 11, 15, 19...24, 49, 50, 51: keep(0, option, number)
    default: throw .noProtocolOption
    }
  }
}
