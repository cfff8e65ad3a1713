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
    if options.network != .none, options.networkDescriptor != nil {
      var hardware: [UInt8] = options.hardwareAddress ?? [0x02, 0x53, 0x57, 0x4c, 0x54, 0x01]
      if hardware.count != 6 { hardware = [0x02, 0x53, 0x57, 0x4c, 0x54, 0x01] }
      var mac: UInt64 = 0
      for byte in hardware { mac = mac << 8 | UInt64(byte) }
      Network.configure(
        kind: options.network == .stream ? .stream : .tap,
        address: Net.IPv4Address(rawValue: options.address?.value ?? 0),
        prefix: options.address == nil ? 0 : Int(options.prefixLength),
        gateway: Net.IPv4Address(rawValue: options.gateway?.value ?? 0),
        mac: MACAddress(rawValue: mac), mtu: Int(options.networkMTU ?? 0),
        offloads: options.networkOffloads && host.completesFrames)
    }
    guard (try? context.resolve(bytes("/etc"))) != nil else { return awaitAddress(nil) }
    let path = bytes("/etc/resolv.conf")
    if !options.nameservers.isEmpty {
      var text: [UInt8] = []
      for server in options.nameservers { text += bytes("nameserver ") + server.text + [0x0a] }
      ResolverFile.write(text, path, context)
    } else if Network.interface != nil {
      // The image builder leaves an empty file.
      let size = (try? context.resolve(path))?.inode.status.size ?? 0
      if size == 0 { return awaitAddress(ResolverFile(path, context)) }
    }
    awaitAddress(nil)
  }

  /// Without an address in the launch record, DHCP finds one before the program begins (RFC 2131); if it does not in
  /// time, the program begins without, and the search goes on.
  private func awaitAddress(_ resolver: ResolverFile?) {
    let waiter = resolver ?? ResolverFile(nil, nil)
    if resolver != nil { Network.observer = waiter }
    guard Network.interface != nil, options.address == nil else { return }
    Network.observer = waiter
    Network.stack.startDHCP(hostName: options.hostname ?? [], now: host.monotonicNanoseconds)
    Network.settle()
    let deadline = host.monotonicNanoseconds &+ 10_000_000_000
    while Network.stack.lease == nil, host.monotonicNanoseconds < deadline {
      do throws(Errno) { try waiter.queue.sleep(deadline: deadline) } catch {}
    }
    if Network.stack.lease == nil {
      let text: StaticString = "swiftlet: no DHCP server has answered; there is no IPv4 address yet\n"
      let message = UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
      do throws(Errno) { _ = try host.writeConsole(2, message) } catch {}
    }
  }
}

/// Keeps /etc/resolv.conf as DHCP servers and routers tell (RFC 2132 section 3.8, RFC 8106), in an image without one
/// of its own.
private final class ResolverFile: NetworkObserver {
  let queue = WaitQueue()
  private let path: [UInt8]?
  private let context: FileSystemContext?
  private var written: [UInt8] = []

  init(_ path: [UInt8]?, _ context: FileSystemContext?) {
    self.path = path
    // The program's own context may change its root and its user.
    self.context = context.map { FileSystemContext(root: $0.root, credentials: $0.credentials) }
  }

  func networkDidChange() {
    queue.wake()
    guard let path, let context else { return }
    var text: [UInt8] = []
    for server in Network.stack.lease?.nameServers ?? [] {
      text += nameserver(Image.IPv4Address(value: server.rawValue).text)
    }
    for server in Network.stack.nameServersIPv6 { text += nameserver(server.text) }
    guard text != written else { return }
    written = text
    ResolverFile.write(text, path, context)
  }

  private func nameserver(_ address: [UInt8]) -> [UInt8] {
    let word: StaticString = "nameserver "
    return Array(UnsafeBufferPointer(start: word.utf8Start, count: word.utf8CodeUnitCount)) + address + [0x0a]
  }

  static func write(_ text: [UInt8], _ path: [UInt8], _ context: FileSystemContext) {
    do throws(Errno) {
      let file = try context.open(path, flags: 0o1101, mode: 0o644)
      let bytes = text
      bytes.withUnsafeBytes { content in
        do throws(Errno) { _ = try file.write(UserSlice(kernel: content)) } catch {}
      }
    } catch {}
  }
}
