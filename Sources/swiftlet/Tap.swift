import CHostCommand
import Glibc
import ImageBuilder

// linux/if_tun.h: the importer does not see macros with casts.
private let setInterface: UInt = 0x4004_54ca  // TUNSETIFF
private let setOffload: UInt = 0x4004_54d0  // TUNSETOFFLOAD
private let setHeaderSize: UInt = 0x4004_54d8  // TUNSETVNETHDRSZ
private let tapFlags: UInt16 = 0x0002 | 0x1000 | 0x4000  // IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
private let offloads: UInt = 0x01 | 0x02 | 0x04  // TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6

/// Opens the tap device `name` with packets that begin with a 10-byte virtio_net_hdr. The descriptor survives
/// exec.
func openTap(_ name: String) throws(BuildError) -> Int32 {
  // IFNAMSIZ is 16 with the terminating zero.
  guard name.utf8.count < 16, !name.isEmpty else { throw BuildError("\(name) is not an interface name") }
  let descriptor = open("/dev/net/tun", O_RDWR)
  guard descriptor >= 0 else {
    throw BuildError("--net tap needs /dev/net/tun: \(String(cString: strerror(errno)))")
  }
  // struct ifreq (netdevice(7)): 16 bytes of name, then the flags.
  var request = [UInt8](repeating: 0, count: 40)
  for (index, byte) in name.utf8.enumerated() { request[index] = byte }
  request[16] = UInt8(truncatingIfNeeded: tapFlags)
  request[17] = UInt8(truncatingIfNeeded: tapFlags >> 8)
  guard ioctl_pointer(descriptor, setInterface, &request) == 0 else {
    let reason = errno
    close(descriptor)
    switch reason {
    case EPERM:
      throw BuildError(
        "no permission for tap device \(name); as root: ip tuntap add \(name) mode tap user $USER vnet_hdr"
      )
    case EBUSY: throw BuildError("tap device \(name) is in use by another process")
    default: throw BuildError("cannot use tap device \(name): \(String(cString: strerror(reason)))")
    }
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

/// A random locally administered unicast address (IEEE 802).
func randomHardwareAddress() -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: 6)
  for index in 1..<6 { bytes[index] = UInt8.random(in: 0...255) }
  bytes[0] = 0x02
  return bytes
}
