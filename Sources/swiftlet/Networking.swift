import Glibc
import Image
import ImageBuilder

/// Connects an image to the network as `--net`, `-p`, `--address` and `--gateway` say.
struct Networking {
  private enum Kind {
    case none, user
    case tap(String)
  }

  private let kind: Kind
  private let ports: [PublishedPort]
  private let address: IPv4Address
  /// The image asks a DHCP server.
  private let usesDHCP: Bool
  private let prefixLength: UInt8
  private let gateway: IPv4Address?
  private let nameservers: [IPv4Address]

  init(option: String?, ports: [String], address: String, gateway: String?, nameservers: [String])
    throws(BuildError)
  {
    var published: [PublishedPort] = []
    for text in ports { published.append(try PublishedPort(text)) }
    self.ports = published
    switch option {
    case nil: kind = ports.isEmpty ? .none : .user
    case "none": kind = .none
    case "user": kind = .user
    case let name? where name.hasPrefix("tap:") && name.utf8.count > 4: kind = .tap(String(name.dropFirst(4)))
    case let name?: throw BuildError("--net \(name): write user, tap:NAME or none")
    }
    if case .user = kind {
    } else if !ports.isEmpty {
      throw BuildError("-p needs --net user; other networks reach the image at its own address")
    }
    usesDHCP = address == "dhcp"
    if usesDHCP, gateway != nil {
      throw BuildError("--gateway comes from the DHCP server with --address dhcp")
    }
    // What passt gives to an image that asks.
    let address = usesDHCP ? "10.0.2.15/24" : address
    let parts = address.split(separator: "/", maxSplits: 1)
    guard parts.count == 2, let prefix = UInt8(parts[1]), prefix >= 1, prefix <= 30 else {
      throw BuildError("--address \(address): write for example 10.0.2.15/24, or dhcp")
    }
    prefixLength = prefix
    self.address = try parseAddress(String(parts[0]))
    self.gateway = try gateway.map(parseAddress)
    var servers: [IPv4Address] = []
    for text in nameservers { servers.append(try parseAddress(text)) }
    self.nameservers = servers
    if let gateway = self.gateway, !isNear(gateway) {
      throw BuildError("the gateway \(text(gateway)) is not in the network \(address)")
    }
  }

  private func isNear(_ other: IPv4Address) -> Bool {
    (other.value ^ address.value) >> UInt32(32 - prefixLength) == 0
  }

  /// The network's first address, as routers have by custom; 10.0.2.2 in 10.0.2.0/24, as QEMU has it.
  private var usualGateway: IPv4Address {
    let first = IPv4Address(value: address.value & UInt32.max << UInt32(32 - prefixLength) | 1)
    return first.value == 0x0a00_0201 ? IPv4Address(value: 0x0a00_0202) : first
  }

  /// Opens the device and describes it in `options`.
  func start(_ options: inout LaunchOptions) throws(BuildError) {
    switch kind {
    case .none: return
    case .user:
      let gateway = self.gateway ?? usualGateway
      // passt answers name queries to this address; it is in the image's network, next to the gateway.
      let nameserver = IPv4Address(value: gateway.value &+ 1)
      options.networkDescriptor = try startPasst(
        ports, address: address, prefixLength: prefixLength, gateway: gateway, nameserver: nameserver)
      options.network = .stream
      options.hardwareAddress = [0x02, 0x53, 0x57, 0x4c, 0x54, 0x01]
      options.gateway = gateway
      options.nameservers = nameservers.isEmpty ? [nameserver] : nameservers
    case .tap(let name):
      let device = try TapDevice(name)
      options.networkDescriptor = try device.open()
      options.network = .tap
      options.networkOffloads = true
      if device.mtu != 1500 { options.networkMTU = UInt32(clamping: device.mtu) }
      options.hardwareAddress = randomHardwareAddress()
      // Linux routes for the image, if it is on the device at all.
      options.gateway = gateway ?? device.address.flatMap { isNear($0) ? $0 : nil } ?? usualGateway
      options.nameservers = nameservers
    }
    if usesDHCP {
      options.gateway = nil
      options.nameservers = nameservers
      return
    }
    options.address = address
    options.prefixLength = prefixLength
  }
}

private func text(_ address: IPv4Address) -> String { String(decoding: address.text, as: UTF8.self) }

private func parseAddress(_ text: String) throws(BuildError) -> IPv4Address {
  guard let address = try? IPv4Address(parsing: Array(text.utf8)[...]) else {
    throw BuildError("\(text) is not an IPv4 address")
  }
  return address
}

/// A port that `-p` forwards.
struct PublishedPort {
  let hostAddress: IPv4Address?
  let host: UInt16
  let guest: UInt16
  let isUDP: Bool
  private let text: String

  init(_ text: String) throws(BuildError) {
    self.text = text
    let fault = BuildError("-p \(text): write [IP:]HOST:GUEST, with /udp at the end for UDP")
    let halves = text.split(separator: "/", omittingEmptySubsequences: false)
    switch halves.count == 2 ? String(halves[1]) : "tcp" {
    case "tcp": isUDP = false
    case "udp": isUDP = true
    default: throw fault
    }
    let parts = halves[0].split(separator: ":", omittingEmptySubsequences: false)
    guard halves.count <= 2, parts.count == 2 || parts.count == 3, let guest = UInt16(parts[parts.count - 1]),
      let host = UInt16(parts[parts.count - 2]), guest > 0, host > 0
    else { throw fault }
    self.guest = guest
    self.host = host
    hostAddress = parts.count == 3 ? try parseAddress(String(parts[0])) : nil
  }

  /// The form passt wants.
  var passtArguments: [String] {
    let bound = hostAddress.map { String(decoding: $0.text, as: UTF8.self) + "/" } ?? ""
    return [isUDP ? "-u" : "-t", "\(bound)\(host):\(guest)"]
  }

  /// Binds and lets go: passt's own report of a taken port names neither the option nor a way out.
  func checkFree() throws(BuildError) {
    let type = isUDP ? Int32(SOCK_DGRAM.rawValue) : Int32(SOCK_STREAM.rawValue)
    let probe = HostFile(owning: socket(AF_INET, type | Int32(SOCK_CLOEXEC.rawValue), 0))
    var one: Int32 = 1
    // Without this, connections that lately ended would make a free port look taken.
    if !isUDP { setsockopt(probe.descriptor, SOL_SOCKET, SO_REUSEADDR, &one, 4) }
    var target = sockaddr_in()
    target.sin_family = sa_family_t(AF_INET)
    target.sin_port = host.bigEndian
    target.sin_addr.s_addr = (hostAddress?.value ?? 0).bigEndian
    let result = withUnsafePointer(to: &target) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(probe.descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard result != 0 else { return }
    switch errno {
    case EADDRINUSE: throw BuildError("port \(host) is already in use (-p \(text)); choose another host port")
    case EACCES: throw BuildError("port \(host) needs privileges (-p \(text)); choose a host port from 1024")
    default: throw BuildError("cannot listen for -p \(text): \(String(cString: strerror(errno)))")
    }
  }
}
