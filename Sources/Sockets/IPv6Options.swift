import ABI
import Net
import Tasks

/// ipv6(7) options (RFC 3493 section 5, RFC 3542).
extension InternetSocket {
  func optionIPv6(_ option: Int32) throws(Errno) -> [UInt8] {
    func flag(_ value: Bool) -> [UInt8] { Socket.bytes(value ? 1 : 0) }
    switch option {
    case 16: return Socket.bytes(Int32(options.hopLimit))
    case 17: return Socket.bytes(kept(41, 17) ?? 0)
    case 18: return Socket.bytes(Int32(options.multicastHopLimit))
    case 19: return flag(options.loopsMulticast)
    case 23: return Socket.bytes(kept(41, 23) ?? 1)
    case 24: return Socket.bytes(Int32(Network.interface?.mtu ?? 65536))
    case 26: return flag(options.onlyIPv6)
    case 29: return Socket.bytes(kept(41, 29) ?? 1)
    case 7: return Socket.bytes(Int32((self as? RawInternetSocket)?.socket.checksumOffset ?? -1))
    case 2, 49: return flag(options.tellsPacketInfoIPv6)
    case 8, 51: return flag(options.tellsHopLimit)
    case 66: return flag(options.tellsTrafficClass)
    case 67: return Socket.bytes(options.trafficClass)
    case 1, 3, 4, 5, 6, 9, 22, 25, 33, 50, 52...62, 70, 72...78: return Socket.bytes(kept(41, option) ?? 0)
    default: throw .noProtocolOption
    }
  }

  func setOptionIPv6(_ option: Int32, _ value: UserSlice) throws(Errno) {
    switch option {
    case 20, 21, 42, 45: return try setMembershipIPv6(option, value)
    // Extension headers to send (RFC 3542 section 6), and a sticky source: taken, and not used.
    case 4, 5, 50, 54, 55, 57, 59: return
    default: break
    }
    let number = try InternetSocket.number(value)
    switch option {
    case 16: options.hopLimit = try hops(number, usual: 64)
    case 18:
      guard type != 1 else { throw .noProtocolOption }
      options.multicastHopLimit = try hops(number, usual: 1)
    case 17:
      guard type != 1 else { throw .noProtocolOption }
      guard InterfaceRequest.exists(number) || number == 0 else { throw .noSuchDevice }
      keep(41, option, number)
    case 19:
      guard number == 0 || number == 1 else { throw .invalid }
      options.loopsMulticast = number != 0
    case 26:
      // A bound socket has made its choice (ipv6(7)).
      guard !isBound else { throw .invalid }
      options.onlyIPv6 = number != 0
    case 7:
      guard let raw = self as? RawInternetSocket, !raw.socket.isPing else { throw .noProtocolOption }
      // Of ICMPv6 the place is known (RFC 3542 section 3.1).
      guard number == -1 || (number >= 0 && number % 2 == 0), raw.protocolNumber != 58 || number == 2 else {
        throw .invalid
      }
      raw.socket.checksumOffset = Int(number)
    case 2, 49: options.tellsPacketInfoIPv6 = number != 0
    case 8, 51: options.tellsHopLimit = number != 0
    case 66: options.tellsTrafficClass = number != 0
    case 67:
      guard number >= -1, number <= 255 else { throw .invalid }
      options.trafficClass = max(0, number)
    case 1, 3, 6, 9, 22, 23, 25, 27, 28, 29, 33, 52, 53, 56, 58, 60, 61, 62, 70, 72...78:
      keep(41, option, number)
    default: throw .noProtocolOption
    }
  }

  private func hops(_ number: Int32, usual: UInt8) throws(Errno) -> UInt8 {
    guard number >= -1, number <= 255 else { throw .invalid }
    return number == -1 ? usual : UInt8(number)
  }

  // MARK: Multicast

  /// IP_ADD_MEMBERSHIP with struct ip_mreq or ip_mreqn, and the others of ip(7).
  func setMembership(_ option: Int32, _ value: UserSlice) throws(Errno) {
    guard type != 1 else { throw .noProtocolOption }
    switch option {
    case 32:  // IP_MULTICAST_IF: there is one link.
      guard value.count >= 4 else { throw .invalid }
    case 35, 36:
      guard value.count >= 8 else { throw .invalid }
      let bytes = try value.prefix(4).bytes()
      try change(IPAddress(IPv4Address(bytes[0], bytes[1], bytes[2], bytes[3])), joins: option == 35)
    case 39, 40:  // IP_ADD_SOURCE_MEMBERSHIP: joined for every source
      guard value.count >= 12 else { throw .invalid }
      let bytes = try value.prefix(4).bytes()
      try change(IPAddress(IPv4Address(bytes[0], bytes[1], bytes[2], bytes[3])), joins: option == 39)
    case 42, 45:
      // MCAST_JOIN_GROUP: struct group_req, an interface and a struct sockaddr_storage.
      guard value.count >= 24 else { throw .invalid }
      let bytes = try value.prefix(24).bytes()
      guard bytes[8] == 2, bytes[9] == 0 else { throw .addressNotAvailable }
      try change(IPAddress(IPv4Address(bytes[12], bytes[13], bytes[14], bytes[15])), joins: option == 42)
    default: throw .noProtocolOption
    }
  }

  /// IPV6_JOIN_GROUP with struct ipv6_mreq; MCAST_JOIN_GROUP.
  private func setMembershipIPv6(_ option: Int32, _ value: UserSlice) throws(Errno) {
    guard type != 1 else { throw .noProtocolOption }
    if option == 20 || option == 21 {
      guard value.count >= 20 else { throw .invalid }
      let bytes = try value.prefix(20).bytes()
      let index = InternetSocket.word(bytes, 16)
      guard index == 0 || InterfaceRequest.exists(index) else { throw .noSuchDevice }
      return try change(InternetSocket.address(bytes, 0), joins: option == 20)
    }
    guard value.count >= 32 else { throw .invalid }
    let bytes = try value.prefix(32).bytes()
    guard bytes[8] == 10, bytes[9] == 0 else { throw .addressNotAvailable }
    try change(InternetSocket.address(bytes, 16), joins: option == 42)
  }

  private func change(_ group: IPAddress, joins: Bool) throws(Errno) {
    guard group.isMulticast else { throw .invalid }
    let known = memberships.firstIndex(of: group)
    if joins {
      guard known == nil else { throw .addressInUse }
      do throws(NetworkError) { try Network.stack.join(group, now: now) } catch { throw error.number }
      memberships.append(group)
    } else {
      guard let known else { throw .addressNotAvailable }
      memberships.remove(at: known)
      Network.stack.leave(group, now: now)
    }
    Network.settle()
  }

  /// When the socket goes.
  func leaveGroups() {
    for group in memberships { Network.stack.leave(group, now: now) }
    memberships.removeAll()
  }
}
