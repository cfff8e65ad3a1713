import ABI
import Net
import Tasks

/// Builds one message of rtnetlink(7).
struct RouteMessage {
  /// sizeof(struct nlmsghdr)
  static let headerLength = 16
  static let isMultiple: UInt16 = 2
  // Types.
  static let error: UInt16 = 2
  static let done: UInt16 = 3
  static let newLink: UInt16 = 16
  static let newAddress: UInt16 = 20
  static let newRoute: UInt16 = 24
  static let newNeighbour: UInt16 = 28

  private(set) var bytes: [UInt8]

  init(_ type: UInt16, flags: UInt16, sequence: UInt32, port: UInt32) {
    bytes = [0, 0, 0, 0]
    add(type)
    add(flags)
    add(sequence)
    add(port)
  }

  mutating func add(_ value: UInt8) { bytes.append(value) }

  mutating func add(_ value: UInt16) {
    bytes.append(UInt8(truncatingIfNeeded: value))
    bytes.append(UInt8(truncatingIfNeeded: value >> 8))
  }

  mutating func add(_ value: UInt32) {
    add(UInt16(truncatingIfNeeded: value))
    add(UInt16(truncatingIfNeeded: value >> 16))
  }

  /// struct rtattr and its value.
  mutating func attribute(_ type: UInt16, _ value: [UInt8]) {
    add(UInt16(truncatingIfNeeded: 4 + value.count))
    add(type)
    bytes += value
    while bytes.count % 4 != 0 { bytes.append(0) }
  }

  mutating func attribute(_ type: UInt16, _ value: UInt32) {
    attribute(type, Socket.bytes(Int32(bitPattern: value)))
  }

  /// The message with its length filled in.
  var finished: [UInt8] {
    var result = bytes
    let length = Socket.bytes(Int32(truncatingIfNeeded: bytes.count))
    for index in 0..<4 { result[index] = length[index] }
    return result
  }
}

/// A question of a program, checked.
struct RouteRequest {
  private let bytes: [UInt8]
  let type: UInt16
  let flags: UInt16
  let sequence: UInt32
  let port: UInt32

  /// `message` has a whole header.
  init(_ message: [UInt8], _ port: UInt32) {
    bytes = message
    type = UInt16(message[4]) | UInt16(message[5]) << 8
    flags = UInt16(message[6]) | UInt16(message[7]) << 8
    sequence = UInt32(bitPattern: InternetSocket.word(message, 8))
    self.port = port
  }

  /// NLM_F_ACK; NLM_F_DUMP is NLM_F_ROOT or NLM_F_MATCH.
  private var wantsAcknowledgement: Bool { flags & 4 != 0 }
  var isDump: Bool { flags & 0x300 != 0 }
  /// The address family asked for, or 0.
  var family: UInt8 { bytes.count > 16 ? bytes[16] : 0 }
  /// Four bytes behind the header, 0 if they are missing.
  func word(_ offset: Int) -> UInt32 {
    offset + 20 <= bytes.count ? UInt32(bitPattern: InternetSocket.word(bytes, 16 + offset)) : 0
  }

  /// The value of an attribute behind a fixed part of `length` bytes.
  func attribute(_ type: UInt16, after length: Int) -> [UInt8]? {
    var place = 16 + length
    while place + 4 <= bytes.count {
      let size = Int(bytes[place]) | Int(bytes[place + 1]) << 8
      guard size >= 4, place + size <= bytes.count else { return nil }
      let kind = UInt16(bytes[place + 2]) | UInt16(bytes[place + 3] & 0x3F) << 8
      if kind == type { return Array(bytes[place + 4..<place + size]) }
      place += (size + 3) & ~3
    }
    return nil
  }

  func message(_ type: UInt16) -> RouteMessage {
    RouteMessage(type, flags: isDump ? RouteMessage.isMultiple : 0, sequence: sequence, port: port)
  }

  /// The datagrams that answer.
  func answer() -> [[UInt8]] {
    // Control messages, and what is no request, have no answer.
    guard type >= 16, flags & 1 != 0 else { return [] }
    let found: [RouteMessage]
    do throws(Errno) { found = try messages() } catch { return [failure(error)] }
    if !isDump {
      var result = found.map { $0.finished }
      if wantsAcknowledgement { result.append(failure(nil)) }
      return result
    }
    var done = message(RouteMessage.done)
    done.add(UInt32(0))
    var result: [[UInt8]] = []
    var datagram: [UInt8] = []
    for message in found.map({ $0.finished }) + [done.finished] {
      // glibc reads into a page.
      if datagram.count + message.count > 3000 {
        result.append(datagram)
        datagram = []
      }
      datagram += message
    }
    result.append(datagram)
    return result
  }

  private func messages() throws(Errno) -> [RouteMessage] {
    switch type {
    case 18: return try links()
    case 22: return addresses()
    case 26: return try routes()
    case 30: return neighbours()
    case 34 where isDump: return []  // RTM_GETRULE
    default:
      // Every fourth type asks, the others change something.
      throw type % 4 == 2 ? .notSupported : .notPermitted
    }
  }

  /// struct nlmsgerr; nil acknowledges.
  private func failure(_ error: Errno?) -> [UInt8] {
    var message = RouteMessage(RouteMessage.error, flags: 0, sequence: sequence, port: port)
    message.add(UInt32(bitPattern: -(error?.rawValue ?? 0)))
    for index in 0..<16 { message.add(bytes[index]) }
    if error != nil { for byte in bytes[16...] { message.add(byte) } }
    return message.finished
  }
}
