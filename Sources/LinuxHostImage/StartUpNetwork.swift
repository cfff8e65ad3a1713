import ABI
import Image
import Net
import Processes
import Sockets
import Syscalls
import Tasks
import VFS

extension StartUp {
  /// Brings the interface up as the launch record says, and tells programs of name servers and the host's name.
  func configureNetwork(_ context: FileSystemContext) throws(Errno) {
    SystemCall.prepareSockets()
    if let name = options.hostname { SystemIdentity.configuredHostName = name }
    if options.network != .none, options.networkDescriptor != nil, let address = options.address {
      var hardware: [UInt8] = options.hardwareAddress ?? [0x02, 0x53, 0x57, 0x4c, 0x54, 0x01]
      if hardware.count != 6 { hardware = [0x02, 0x53, 0x57, 0x4c, 0x54, 0x01] }
      var mac: UInt64 = 0
      for byte in hardware { mac = mac << 8 | UInt64(byte) }
      Network.configure(
        kind: options.network == .stream ? .stream : .tap, address: Net.IPv4Address(rawValue: address.value),
        prefix: Int(options.prefixLength), gateway: Net.IPv4Address(rawValue: options.gateway?.value ?? 0),
        mac: MACAddress(rawValue: mac), mtu: Int(options.networkMTU ?? 0), offloads: options.networkOffloads)
    }
    guard !options.nameservers.isEmpty, (try? context.resolve(bytes("/etc"))) != nil else { return }
    var text: [UInt8] = []
    for server in options.nameservers { text += bytes("nameserver ") + server.text + [0x0a] }
    let file = try context.open(bytes("/etc/resolv.conf"), flags: 0o1101, mode: 0o644)
    text.withUnsafeBytes { content in
      do throws(Errno) { _ = try file.write(UserSlice(kernel: content)) } catch {}
    }
  }
}
