import ABI
import Processes
import Sockets
import Tasks
import VFS

/// struct msghdr (recvmsg(2)) of a 64-bit program.
private struct MessageHeader {
  static let size = 56
  var name: UInt = 0
  var nameLength: UInt32 = 0
  var vectors: UInt = 0
  var vectorCount: UInt = 0
  var control: UInt = 0
  var controlLength: UInt = 0

  init(at address: UInt) throws(Errno) {
    let bytes = try UserSlice(address, MessageHeader.size).bytes()
    func word(_ offset: Int) -> UInt {
      var value: UInt = 0
      for index in 0..<8 { value |= UInt(bytes[offset + index]) << UInt(index * 8) }
      return value
    }
    name = word(0)
    nameLength = UInt32(truncatingIfNeeded: word(8))
    vectors = word(16)
    vectorCount = word(24)
    control = word(32)
    controlLength = word(40)
  }
}

/// send(2), recv(2) and their relatives.
extension SystemCall {
  /// UIO_MAXIOV, and how many messages sendmmsg(2) and recvmmsg(2) take.
  private static var mostVectors: UInt { 1024 }
  private static var mostBytes: Int { 0x7fff_f000 }
  /// What a sender's ancillary data may take (/proc/sys/net/core/optmem_max).
  private static var mostControl: UInt { 131_072 }

  /// MSG_TRUNC and MSG_CTRUNC are answers only, save for MSG_TRUNC of recv(2).
  private func messageFlags(_ value: UInt) -> MessageFlags { MessageFlags(rawValue: unsigned(value)) }

  /// A program's pointer and length, cut to what one call may carry.
  private func buffer(_ pointer: UInt, _ length: UInt) throws(Errno) -> UserSlice {
    try UserSlice(pointer, min(Int(truncatingIfNeeded: min(length, UInt(Int.max))), SystemCall.mostBytes))
  }

  func sendto() throws(Errno) -> Int {
    let socket = try socketFile(a)
    UnixSockets.prepare()
    let destination: [UInt8]? = e == 0 ? nil : try address(e, f)
    return try socket.send(
      [try buffer(b, c)], flags: messageFlags(d), destination: destination, control: SocketControl())
  }

  func recvfrom() throws(Errno) -> Int {
    let socket = try socketFile(a)
    // MSG_ERRQUEUE: there is no queue of errors.
    if d & 0x2000 != 0 { throw .again }
    let message = try socket.receive([try buffer(b, c)], flags: messageFlags(d))
    message.control.discard()
    if e != 0 { try store(address: message.address, at: e, lengthAt: f) }
    return message.count
  }

  // MARK: Messages

  /// struct iovec[]. EMSGSIZE for too many.
  private func slices(_ pointer: UInt, _ count: UInt) throws(Errno) -> [UserSlice] {
    guard count <= SystemCall.mostVectors else { throw .messageTooLong }
    var result: [UserSlice] = []
    result.reserveCapacity(Int(count))
    var left = SystemCall.mostBytes
    for index in 0..<count {
      let entry = pointer &+ index &* 16
      let length = try UserSlice.load(entry &+ 8, UInt(0))
      guard length <= UInt(Int.max) else { throw .invalid }
      let slice = try UserSlice(try UserSlice.load(entry, UInt(0)), min(Int(length), left))
      left -= slice.count
      result.append(slice)
    }
    return result
  }

  func sendmsg() throws(Errno) -> Int {
    try sendMessage(try socketFile(a), at: b, messageFlags(c))
  }

  private func sendMessage(_ socket: Socket, at pointer: UInt, _ flags: MessageFlags) throws(Errno) -> Int {
    UnixSockets.prepare()
    let header = try MessageHeader(at: pointer)
    let slices = try slices(header.vectors, header.vectorCount)
    var destination: [UInt8]?
    if header.name != 0, header.nameLength > 0 {
      destination = try address(header.name, UInt(header.nameLength))
    }
    let control = try decodeControl(header, socket)
    return try socket.send(slices, flags: flags, destination: destination, control: control)
  }

  /// SCM_RIGHTS and SCM_CREDENTIALS (unix(7)); other levels are for protocols that have nothing to set here.
  private func decodeControl(_ header: MessageHeader, _ socket: Socket) throws(Errno) -> SocketControl {
    var result = SocketControl()
    guard header.control != 0, header.controlLength >= 16 else { return result }
    guard header.controlLength <= SystemCall.mostControl else { throw .noBuffers }
    let bytes = try UserSlice(header.control, Int(header.controlLength)).bytes()
    var place = 0
    while bytes.count - place >= 16 {
      let length = Int(SystemCall.word(bytes, place)) | Int(SystemCall.word(bytes, place + 4)) << 32
      guard length >= 16, length <= bytes.count - place else { throw .invalid }
      let level = SystemCall.word(bytes, place + 8)
      let type = SystemCall.word(bytes, place + 12)
      if level == 1, socket.domain == 1 {
        try decode(type, Array(bytes[place + 16..<place + length]), &result)
      } else if level == 0 || level == 41 {
        result.items.append(
          SocketControlItem(
            level: Int32(bitPattern: level), type: Int32(bitPattern: type),
            data: Array(bytes[place + 16..<place + length])))
      }
      place += (length + 7) & ~7
    }
    return result
  }

  private func decode(_ type: UInt32, _ data: [UInt8], _ result: inout SocketControl) throws(Errno) {
    switch type {
    case 1:
      for index in 0..<data.count / 4 {
        let descriptor = Int32(bitPattern: SystemCall.word(data, index * 4))
        result.files.append(try process.descriptors.file(descriptor))
      }
      guard result.files.count <= 253 else { throw .invalid }
    case 2:
      guard data.count == 12 else { throw .invalid }
      let claimed = SocketCredentials(
        process: Int32(bitPattern: SystemCall.word(data, 0)), user: SystemCall.word(data, 4),
        group: SystemCall.word(data, 8))
      let own = process.credentials
      let isOwn =
        claimed.process == process.pid
        && (claimed.user == own.realUser || claimed.user == own.effectiveUser
          || claimed.user == own.savedUser)
        && (claimed.group == own.realGroup || claimed.group == own.effectiveGroup
          || claimed.group == own.savedGroup)
      guard own.isPrivileged || isOwn else { throw .notPermitted }
      result.credentials = claimed
    default: throw .invalid
    }
  }

  /// Four bytes of an array that has them.
  private static func word(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
    var value: UInt32 = 0
    for index in 0..<4 { value |= UInt32(bytes[offset + index]) << UInt32(index * 8) }
    return value
  }

  func recvmsg() throws(Errno) -> Int {
    try receiveMessage(try socketFile(a), at: b, messageFlags(c))
  }

  private func receiveMessage(_ socket: Socket, at pointer: UInt, _ flags: MessageFlags) throws(Errno) -> Int
  {
    let header = try MessageHeader(at: pointer)
    let slices = try slices(header.vectors, header.vectorCount)
    if try UserSlice.load(pointer &+ 8, Int32(0)) < 0 { throw .invalid }
    if flags.rawValue & 0x2000 != 0 { throw .again }
    let message = try socket.receive(slices, flags: flags)
    var answer = message.flags.rawValue
    do throws(Errno) {
      if header.name != 0 {
        let count = min(Int(header.nameLength), message.address.count)
        try UserSlice(header.name, count).store(Array(message.address[..<count]))
        try UserSlice.store(UInt32(message.address.count), at: pointer &+ 8)
      }
    } catch {
      message.control.discard()
      throw error
    }
    // From here on every file has its descriptor or has been let go.
    let used = try encodeControl(
      message.control, header, closes: flags.rawValue & 0x4000_0000 != 0, &answer)
    try UserSlice.store(UInt(used), at: pointer &+ 40)
    try UserSlice.store(answer | flags.rawValue & 0x4000_0000, at: pointer &+ 48)
    return message.count
  }

  /// Writes ancillary data and installs received files; what does not fit is dropped with MSG_CTRUNC. Gives the bytes
  /// used.
  private func encodeControl(
    _ control: SocketControl, _ header: MessageHeader, closes: Bool, _ answer: inout UInt32
  ) throws(Errno) -> Int {
    if control.isEmpty { return 0 }
    let room = header.control == 0 ? 0 : Int(min(header.controlLength, SystemCall.mostControl))
    var used = 0
    var bytes: [UInt8] = []
    var installed: [Int32] = []
    if let credentials = control.credentials {
      if room >= 28 {
        bytes += controlHeader(28, type: 2) + Socket.bytes(credentials.process)
        bytes += Socket.bytes(Int32(bitPattern: credentials.user))
        bytes += Socket.bytes(Int32(bitPattern: credentials.group)) + [0, 0, 0, 0]
        used = 32
      } else {
        answer |= MessageFlags.controlTruncated.rawValue
      }
    }
    if !control.files.isEmpty {
      let numbers = installFiles(control, most: max(0, (room - used - 16) / 4), closes: closes)
      installed = numbers
      if numbers.count < control.files.count { answer |= MessageFlags.controlTruncated.rawValue }
      if !numbers.isEmpty {
        bytes += controlHeader(16 + numbers.count * 4, type: 1)
        for number in numbers { bytes += Socket.bytes(number) }
        if numbers.count % 2 != 0 { bytes += [0, 0, 0, 0] }
      }
    }
    for item in control.items {
      let length = 16 + item.data.count
      guard bytes.count + length <= room else {
        answer |= MessageFlags.controlTruncated.rawValue
        break
      }
      bytes += controlHeader(length, level: item.level, type: item.type) + item.data
      while bytes.count % 8 != 0 { bytes.append(0) }
    }
    used = min(bytes.count, room)
    do throws(Errno) {
      if used > 0 { try UserSlice(header.control, used).store(Array(bytes[..<used])) }
    } catch {
      // The program never hears these numbers: it could not close them.
      for number in installed { do throws(Errno) { try process.descriptors.close(number) } catch {} }
      throw error
    }
    return used
  }

  /// struct cmsghdr; level 1 is SOL_SOCKET.
  private func controlHeader(_ length: Int, level: Int32 = 1, type: Int32) -> [UInt8] {
    Socket.bytes(Int32(length)) + Socket.bytes(0) + Socket.bytes(level) + Socket.bytes(type)
  }

  /// The descriptors of the first `most` files; each takes over its file's reference, the rest are let go.
  private func installFiles(_ control: SocketControl, most: Int, closes: Bool) -> [Int32] {
    var numbers: [Int32] = []
    for (index, file) in control.files.enumerated() where index < most && index == numbers.count {
      do throws(Errno) {
        numbers.append(try process.descriptors.install(file, closesOnExecution: closes))
      } catch {}
    }
    // `install` has counted its own reference: give back the ones that travelled.
    control.discard()
    return numbers
  }

  // MARK: Several messages

  /// struct mmsghdr: a struct msghdr, the bytes carried, and padding.
  private static var multipleSize: UInt { 64 }

  func sendmmsg() throws(Errno) -> Int {
    let socket = try socketFile(a)
    let count = min(UInt(unsigned(c)), SystemCall.mostVectors)
    var done: UInt = 0
    do throws(Errno) {
      while done < count {
        let place = b &+ done &* SystemCall.multipleSize
        let sent = try sendMessage(socket, at: place, messageFlags(d))
        try UserSlice.store(UInt32(truncatingIfNeeded: sent), at: place &+ 56)
        done += 1
      }
    } catch { if done == 0 { throw error } }
    return Int(done)
  }

  func recvmmsg() throws(Errno) -> Int {
    let socket = try socketFile(a)
    let count = min(UInt(unsigned(c)), SystemCall.mostVectors)
    var flags = messageFlags(d)
    let waitsForOne = unsigned(d) & 0x10000 != 0
    var deadline = UInt64.max
    if e != 0 {
      let seconds = try UserSlice.load(e, Int64(0))
      let nanoseconds = try UserSlice.load(e &+ 8, Int64(0))
      guard seconds >= 0, nanoseconds >= 0, nanoseconds < 1_000_000_000 else { throw .invalid }
      let length = UInt64(min(seconds, 4_000_000_000)) * 1_000_000_000 + UInt64(nanoseconds)
      deadline = host.monotonicNanoseconds &+ length
    }
    var done: UInt = 0
    do throws(Errno) {
      while done < count {
        let place = b &+ done &* SystemCall.multipleSize
        let received = try receiveMessage(socket, at: place, flags)
        try UserSlice.store(UInt32(truncatingIfNeeded: received), at: place &+ 56)
        done += 1
        if waitsForOne { flags.insert(.doNotWait) }
        // As in Linux, the time is looked at after each message only (recvmmsg(2), BUGS).
        if deadline != .max, host.monotonicNanoseconds >= deadline { break }
      }
    } catch { if done == 0 { throw error } }
    return Int(done)
  }
}
