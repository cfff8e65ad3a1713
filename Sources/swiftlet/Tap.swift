import CHostCommand
import Glibc
import Image
import ImageBuilder

// linux/if_tun.h and linux/sockios.h: the importer does not see macros with casts.
private let setInterface: UInt = 0x4004_54ca  // TUNSETIFF
private let setOffload: UInt = 0x4004_54d0  // TUNSETOFFLOAD
private let setHeaderSize: UInt = 0x4004_54d8  // TUNSETVNETHDRSZ
private let tapFlags: UInt16 = 0x0002 | 0x1000 | 0x4000  // IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
private let offloads: UInt = 0x01 | 0x02 | 0x04  // TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
private let getAddress: UInt = 0x8915  // SIOCGIFADDR
private let getMTU: UInt = 0x8921  // SIOCGIFMTU

/// A tap device of this machine, not opened yet.
struct TapDevice {
  private let name: String

  /// Refuses a name that no interface has: the system would make a device that nobody has set up.
  init(_ name: String) throws(BuildError) {
    // IFNAMSIZ is 16 with the terminating zero.
    guard name.utf8.count < 16, !name.isEmpty else { throw BuildError("\(name) is not an interface name") }
    guard if_nametoindex(name) != 0 else {
      throw BuildError(
        "there is no tap device \(name); as root: ip tuntap add \(name) mode tap user $USER && "
          + "ip addr add 10.0.2.2/24 dev \(name) && ip link set \(name) up")
    }
    self.name = name
  }

  /// Opens the device for packets that begin with a 10-byte virtio_net_hdr. The descriptor survives exec.
  func open() throws(BuildError) -> Int32 {
    let descriptor = Glibc.open("/dev/net/tun", O_RDWR)
    guard descriptor >= 0 else {
      throw BuildError(
        "no permission for tap device \(name): /dev/net/tun: \(String(cString: strerror(errno)))")
    }
    var request = interfaceRequest()
    request[16] = UInt8(truncatingIfNeeded: tapFlags)
    request[17] = UInt8(truncatingIfNeeded: tapFlags >> 8)
    guard ioctl_pointer(descriptor, setInterface, &request) == 0 else {
      let reason = errno
      close(descriptor)
      throw BuildError(refusal(reason))
    }
    var headerSize: Int32 = 10
    guard ioctl_pointer(descriptor, setHeaderSize, &headerSize) == 0,
      ioctl_value(descriptor, setOffload, offloads) == 0
    else {
      let reason = String(cString: strerror(errno))
      close(descriptor)
      throw BuildError("tap device \(name) refuses offloads: \(reason)")
    }
    return descriptor
  }

  private func refusal(_ reason: Int32) -> String {
    switch reason {
    case EPERM: "no permission for tap device \(name); as root: ip tuntap add \(name) mode tap user $USER"
    case EBUSY: "tap device \(name) is in use by another process"
    case EINVAL: "\(name) is not a tap device (or one with several queues)"
    default: "cannot use tap device \(name): \(String(cString: strerror(reason)))"
    }
  }

  /// Linux's own IPv4 address on the device; nil if it has none (it is in a bridge, perhaps).
  var address: IPv4Address? {
    guard let answer = ask(getAddress) else { return nil }
    // struct sockaddr_in: family, port, address.
    let value = answer[20..<24].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    return IPv4Address(value: value)
  }

  /// The largest IPv4 packet in bytes.
  var mtu: Int {
    guard let answer = ask(getMTU) else { return 1500 }
    return Int(answer[16]) | Int(answer[17]) << 8 | Int(answer[18]) << 16
  }

  /// struct ifreq (netdevice(7)): 16 bytes of name, then the value.
  private func interfaceRequest() -> [UInt8] {
    var request = [UInt8](repeating: 0, count: 40)
    for (index, byte) in name.utf8.enumerated() { request[index] = byte }
    return request
  }

  private func ask(_ what: UInt) -> [UInt8]? {
    let socket = HostFile(
      owning: socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0))
    var request = interfaceRequest()
    guard ioctl_pointer(socket.descriptor, what, &request) == 0 else { return nil }
    return request
  }
}

/// A random locally administered unicast address (IEEE 802).
func randomHardwareAddress() -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: 6)
  for index in 1..<6 { bytes[index] = UInt8.random(in: 0...255) }
  bytes[0] = 0x02
  return bytes
}
