import ABI
import Net
import Tasks
import VFS

/// ioctl(2) on ip(7) sockets: tcp(7), udp(7) and netdevice(7). The interfaces are lo (1) and, with a link, eth0 (2).
enum InterfaceRequest {
  private static let loopbackName: [UInt8] = [0x6c, 0x6f]
  private static let linkName: [UInt8] = [0x65, 0x74, 0x68, 0x30]
  /// struct ifreq
  private static let size = 40

  static func answer(_ request: UInt32, _ argument: UInt, _ socket: InternetSocket) throws(Errno) -> Int {
    switch request {
    case 0x541b: try UserSlice.store(Int32(clamping: socket.readableBytes), at: argument)
    case 0x5411: try UserSlice.store(Int32(clamping: socket.unsentBytes), at: argument)
    case 0x5421:
      let isOn = try UserSlice.load(argument, Int32(0)) != 0
      socket.flags = isOn ? socket.flags | 0o4000 : socket.flags & ~0o4000
    case 0x8905:  // SIOCATMARK: there is no urgent data
      guard socket is TCPSocket else { throw .notTerminal }
      try UserSlice.store(Int32(0), at: argument)
    default: try answer(request, argument)
    }
    return 0
  }

  /// netdevice(7) requests, which every kind of socket takes. ENOTTY for others.
  static func answer(_ request: UInt32, _ argument: UInt) throws(Errno) {
    switch request {
    case 0x8912: try list(argument)
    case 0x8910: try tellName(argument)
    case 0x8913, 0x8915, 0x8917, 0x8919, 0x891b, 0x891d, 0x8921, 0x8927, 0x8933, 0x8942, 0x8970:
      try tell(request, argument)
    // SIOCSIF… and SIOCADDRT…: the interfaces are as the host set them up.
    case 0x8914, 0x8916, 0x8918, 0x891a, 0x891c, 0x8922, 0x8924, 0x890b, 0x890c, 0x8943, 0x8971:
      throw .notPermitted
    default: throw .notTerminal
    }
  }

  static func exists(_ index: Int32) -> Bool { index == 1 || (index == 2 && Network.interface != nil) }

  static func name(_ index: Int32) -> [UInt8] { index == 1 ? loopbackName : linkName }

  /// The interface a program names, 0 for the empty name (SO_BINDTODEVICE). ENODEV.
  static func index(named value: UserSlice) throws(Errno) -> Int32 {
    let bytes = try value.prefix(min(value.count, 16)).bytes()
    let name = Array(bytes[..<(bytes.firstIndex(of: 0) ?? bytes.count)])
    if name.isEmpty { return 0 }
    if name == loopbackName { return 1 }
    guard name == linkName, exists(2) else { throw .operationNotOnDevice }
    return 2
  }

  private static func address(link: Bool) -> UInt32 {
    link ? Network.stack.address.rawValue : IPv4Address.loopback.rawValue
  }

  private static func bytes(address: UInt32) -> [UInt8] {
    InternetSocket.bytes(
      Endpoint(IPAddress(IPv4Address(rawValue: address)), 0), domain: InternetSocket.family)
  }

  private static func padded(_ name: [UInt8], _ count: Int) -> [UInt8] {
    name + [UInt8](repeating: 0, count: count - name.count)
  }

  /// SIOCGIFCONF: struct ifconf holds a length and a pointer.
  private static func list(_ argument: UInt) throws(Errno) {
    let room = Int(try UserSlice.load(argument, Int32(0)))
    let target = try UserSlice.load(argument &+ 8, UInt(0))
    var entries = padded(loopbackName, 16) + padded(bytes(address: address(link: false)), size - 16)
    // Interfaces without an IPv4 address are not listed (netdevice(7)).
    if Network.interface != nil, !Network.stack.address.isAny {
      entries += padded(linkName, 16) + padded(bytes(address: address(link: true)), size - 16)
    }
    var count = entries.count
    if target != 0 {
      count = min(count, max(0, room) / size * size)
      try UserSlice(target, count).store(Array(entries[..<count]))
    }
    try UserSlice.store(Int32(count), at: argument)
  }

  private static func tellName(_ argument: UInt) throws(Errno) {
    let index = try UserSlice.load(argument &+ 16, Int32(0))
    guard exists(index) else { throw .operationNotOnDevice }
    try UserSlice(argument, 16).store(padded(index == 1 ? loopbackName : linkName, 16))
  }

  private static func tell(_ request: UInt32, _ argument: UInt) throws(Errno) {
    let field = try UserSlice(argument, 16).bytes()
    let name = Array(field[..<(field.firstIndex(of: 0) ?? 16)])
    let isLink = name == linkName && Network.interface != nil
    guard isLink || name == loopbackName else { throw .operationNotOnDevice }
    let prefix = isLink ? min(max(Network.prefixLength, 0), 32) : 8
    let mask = prefix == 0 ? 0 : UInt32.max << UInt32(32 - prefix)
    let asksForAddress = request == 0x8915 || request == 0x8917 || request == 0x8919 || request == 0x891b
    if isLink, Network.stack.address.isAny, asksForAddress { throw .addressNotAvailable }
    let answer: [UInt8]
    switch request {
    // IFF_UP | IFF_RUNNING with IFF_LOOPBACK or IFF_BROADCAST | IFF_MULTICAST.
    case 0x8913: answer = isLink ? [0x43, 0x10] : [0x49, 0]
    // The address of the other end is the own one where there are more than two ends.
    case 0x8915, 0x8917: answer = bytes(address: address(link: isLink))
    case 0x8919: answer = bytes(address: isLink ? address(link: true) | ~mask : 0)
    case 0x891b: answer = bytes(address: mask)
    case 0x891d: answer = Socket.bytes(Int32(0))  // SIOCGIFMETRIC: never used
    case 0x8942: answer = Socket.bytes(Int32(1000))  // SIOCGIFTXQLEN, as Linux has it for both
    case 0x8970: answer = [UInt8](repeating: 0, count: 24)  // SIOCGIFMAP: no memory or ports of devices
    case 0x8921: answer = Socket.bytes(isLink ? Int32(Network.interface?.mtu ?? 1500) : 65536)
    case 0x8927:
      let mac = isLink ? Network.stack.macAddress.rawValue : 0
      var bytes: [UInt8] = isLink ? [1, 0] : [0x04, 0x03]  // ARPHRD_ETHER, ARPHRD_LOOPBACK
      for shift in [40, 32, 24, 16, 8, 0] as [UInt64] {
        bytes.append(UInt8(truncatingIfNeeded: mac >> shift))
      }
      answer = bytes
    default: answer = Socket.bytes(isLink ? 2 : 1)
    }
    try UserSlice(argument &+ 16, answer.count).store(answer)
  }
}
