import ABI
import Net
import Processes
import Sockets
import Tasks
import VFS

/// /proc/net (proc(5)): the same for every process, because there is one network stack.
enum NetworkFiles {
  static func make() -> Inode {
    let root = FixedDirectory(device: PseudoFileSystem.processDevice)
    root.add("dev") { () throws(Errno) -> [UInt8] in devices() }
    root.add("tcp") { () throws(Errno) -> [UInt8] in internet(isTCP: true, isIPv6: false) }
    root.add("tcp6") { () throws(Errno) -> [UInt8] in internet(isTCP: true, isIPv6: true) }
    root.add("udp6") { () throws(Errno) -> [UInt8] in internet(isTCP: false, isIPv6: true) }
    root.add("if_inet6") { () throws(Errno) -> [UInt8] in addressesIPv6() }
    root.add("udp") { () throws(Errno) -> [UInt8] in internet(isTCP: false, isIPv6: false) }
    root.add("unix") { () throws(Errno) -> [UInt8] in local() }
    root.add("route") { () throws(Errno) -> [UInt8] in routes() }
    root.add(
      "arp", line: "IP address       HW type     Flags       HW address            Mask     Device")
    root.add("sockstat") { () throws(Errno) -> [UInt8] in counts() }
    let header = headerIPv6
    for name in ["raw6", "udplite6"] as [StaticString] { root.add(name, line: header) }
    for name in ["raw", "udplite"] as [StaticString] {
      root.add(
        name,
        line:
          "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops"
      )
    }
    root.add(
      "sockstat6",
      line: "TCP6: inuse 0\nUDP6: inuse 0\nUDPLITE6: inuse 0\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0")
    root.add("packet", line: "sk       RefCnt Type Proto  Iface R Rmem   User   Inode")
    root.add(
      "netlink",
      line: "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode")
    root.add(
      "protocols",
      line:
        "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re sp bi br ha uh gp em"
    )
    root.add("snmp", line: statistics)
    root.add(
      "netstat",
      line:
        "TcpExt: SyncookiesSent SyncookiesRecv\nTcpExt: 0 0\nIpExt: InNoRoutes InTruncatedPkts\nIpExt: 0 0")
    root.add("fib_trie", mode: 0o444) { () throws(Errno) -> [UInt8] in [] }
    root.add(
      "wireless",
      line:
        "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22"
    )
    _ = root.directory("stat")
    return root
  }

  /// The stack keeps no such counts; the fields are there because programs stop without them.
  private static let statistics: StaticString = """
    Ip: Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates
    Ip: 2 64 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
    Icmp: InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs InRedirects InEchos InEchoReps InTimestamps InTimestampReps InAddrMasks InAddrMaskReps OutMsgs OutErrors OutDestUnreachs OutTimeExcds OutParmProbs OutSrcQuenchs OutRedirects OutEchos OutEchoReps OutTimestamps OutTimestampReps OutAddrMasks OutAddrMaskReps
    Icmp: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
    Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors
    Tcp: 1 200 120000 -1 0 0 0 0 0 0 0 0 0 0 0
    Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
    Udp: 0 0 0 0 0 0 0 0 0
    UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
    UdpLite: 0 0 0 0 0 0 0 0 0
    """

  /// `02:00:5e:10:00:01`
  static func hardwareAddress(_ value: UInt64) -> [UInt8] {
    var text = Text()
    for shift in [40, 32, 24, 16, 8, 0] as [UInt64] {
      if shift < 40 { text.add(":") }
      text.addHexadecimal(value >> shift & 0xff, width: 2)
    }
    return text.bytes
  }

  /// Frames and bytes received, frames and bytes sent, of the link.
  static func counters() -> [4 of UInt64] {
    guard let interface = Network.interface else { return .init(repeating: 0) }
    return [interface.received.frames, interface.received.bytes, interface.sent.frames, interface.sent.bytes]
  }

  private static func devices() -> [UInt8] {
    var text = Text()
    text.add("Inter-|   Receive                                                |  Transmit\n")
    text.add(" face |bytes    packets errs drop fifo frame compressed multicast|")
    text.add("bytes    packets errs drop fifo colls carrier compressed\n")
    func add(_ name: StaticString, _ counts: [4 of UInt64]) {
      text.pad(6 - name.utf8CodeUnitCount)
      text.add(name)
      text.add(":")
      text.add(counts[1], width: 8)
      text.add(counts[0], width: 8)
      text.add("    0    0    0     0          0         0 ")
      text.add(counts[3], width: 8)
      text.add(counts[2], width: 8)
      text.add("    0    0    0     0       0          0\n")
    }
    add("lo", .init(repeating: 0))
    if Network.interface != nil { add("eth0", counters()) }
    return text.bytes
  }

  private static func routes() -> [UInt8] {
    var text = Text()
    let title: StaticString =
      "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
    func end(_ start: Int) {
      text.pad(to: 127, from: start)
      text.endLine()
    }
    text.add(title)
    end(0)
    guard Network.interface != nil else { return text.bytes }
    let stack = Network.stack
    func add(_ destination: UInt32, _ gateway: UInt32, _ flags: StaticString, _ mask: UInt32) {
      let start = text.bytes.count
      text.add("eth0\t")
      text.addHexadecimal(UInt64(destination.byteSwapped), width: 8, isUpper: true)
      text.add("\t")
      text.addHexadecimal(UInt64(gateway.byteSwapped), width: 8, isUpper: true)
      text.add("\t")
      text.add(flags)
      text.add("\t0\t0\t0\t")
      text.addHexadecimal(UInt64(mask.byteSwapped), width: 8, isUpper: true)
      text.add("\t0\t0\t0")
      end(start)
    }
    if !stack.gateway.isAny { add(0, stack.gateway.rawValue, "0003", 0) }
    add(stack.address.rawValue & stack.netmask, 0, "0001", stack.netmask)
    return text.bytes
  }

  // MARK: Sockets

  /// Every socket that a process has open, once, with its owner.
  private static func sockets() -> [Socket] {
    var seen: [UInt64: Bool] = [:]
    var list: [Socket] = []
    for process in ProcessTable.processes.values where !process.isZombie {
      for (_, file) in process.descriptors.open {
        guard let socket = file as? Socket, seen[socket.inode.status.inode] == nil else { continue }
        seen[socket.inode.status.inode] = true
        list.append(socket)
      }
    }
    list.sort { $0.inode.status.inode < $1.inode.status.inode }
    return list
  }

  private static let headerIPv6: StaticString =
    "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"

  /// Words of four bytes as a little-endian machine prints them.
  private static func add(_ endpoint: Endpoint, isIPv6: Bool, _ text: inout Text) {
    let address = endpoint.address
    let words = [address.high >> 32, address.high, address.low >> 32, address.low]
    for word in isIPv6 ? words[...] : words[3...] {
      let swapped = UInt32(truncatingIfNeeded: word).byteSwapped
      text.addHexadecimal(UInt64(swapped), width: 8, isUpper: true)
    }
    text.add(":")
    text.addHexadecimal(UInt64(endpoint.port), width: 4, isUpper: true)
  }

  /// One line for each address: hexadecimal, interface, prefix length, scope, flags, name.
  private static func addressesIPv6() -> [UInt8] {
    var text = Text()
    func add(_ address: IPAddress, _ index: UInt64, _ prefix: Int, _ scope: UInt64, _ flags: UInt64) {
      text.addHexadecimal(address.high, width: 16)
      text.addHexadecimal(address.low, width: 16)
      for value in [index, UInt64(clamping: prefix), scope, flags] {
        text.add(" ")
        text.addHexadecimal(value, width: 2)
      }
      text.add(index == 1 ? "       lo\n" : "     eth0\n")
    }
    add(.loopbackIPv6, 1, 128, 0x10, 0x80)
    for entry in Network.stack.interfaceAddresses {
      let flags: UInt64 = (entry.isTentative ? 0x40 : 0) | (entry.isAutomatic ? 0 : 0x80)
      add(entry.address, 2, entry.prefixLength, entry.address.isLinkLocal ? 0x20 : 0, flags)
    }
    return text.bytes
  }

  private static func internet(isTCP: Bool, isIPv6: Bool) -> [UInt8] {
    var text = Text()
    if isIPv6 {
      text.add(headerIPv6)
    } else {
      text.add(isTCP ? "  sl" : "   sl")
      text.add(
        "  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode")
    }
    if isIPv6 {
      if !isTCP { text.add(" ref pointer drops") }
    } else if isTCP {
      text.pad(to: 149, from: 0)
    } else {
      text.add(" ref pointer drops             ")
    }
    text.endLine()
    var number: UInt64 = 0
    func add(_ listing: InternetSocketListing, user: UInt32, inode: UInt64) {
      let start = text.bytes.count
      text.add(number, width: isTCP ? 4 : 5)
      number += 1
      text.add(": ")
      self.add(listing.local, isIPv6: isIPv6, &text)
      text.add(" ")
      self.add(listing.remote, isIPv6: isIPv6, &text)
      text.add(" ")
      text.addHexadecimal(UInt64(listing.state), width: 2, isUpper: true)
      text.add(" ")
      text.addHexadecimal(UInt64(clamping: listing.sendQueue), width: 8, isUpper: true)
      text.add(":")
      text.addHexadecimal(UInt64(clamping: listing.receiveQueue), width: 8, isUpper: true)
      text.add(" 00:00000000 00000000 ")
      text.add(UInt64(user), width: 5)
      text.add("        0 ")
      text.add(inode)
      text.add(isTCP ? " 1 0000000000000000 100 0 0 10 0" : " 2 0000000000000000 0")
      if !isIPv6 { text.pad(to: isTCP ? 149 : 127, from: start) }
      text.endLine()
    }
    for socket in sockets() {
      guard (socket.domain == InternetSocket.familyIPv6) == isIPv6,
        let listing = (socket as? InternetSocket)?.listing, listing.isTCP == isTCP
      else { continue }
      add(listing, user: socket.inode.status.user, inode: socket.inode.status.inode)
    }
    guard isTCP else { return text.bytes }
    for conversation in Network.stack.timeWaitConversations where conversation.local.address.isIPv4 != isIPv6
    {
      add(
        InternetSocketListing(
          local: conversation.local, remote: conversation.remote, state: 6, receiveQueue: 0, sendQueue: 0,
          isTCP: true), user: 0, inode: 0)
    }
    return text.bytes
  }

  private static func local() -> [UInt8] {
    var text = Text()
    text.add("Num       RefCount Protocol Flags    Type St Inode Path\n")
    for socket in sockets() {
      guard let local = socket as? UnixSocket else { continue }
      text.add("0000000000000000: 00000002 00000000 ")
      text.add(local.acceptsConnections ? "00010000 " : "00000000 ")
      text.addHexadecimal(UInt64(UInt32(bitPattern: local.type)), width: 4)
      text.add(" ")
      text.addHexadecimal(UInt64(local.listedState), width: 2)
      text.add(" ")
      text.add(local.inode.status.inode, width: 5)
      let name = local.listedName
      if !name.isEmpty {
        text.add(" ")
        text.add(name)
      }
      text.endLine()
    }
    return text.bytes
  }

  private static func counts() -> [UInt8] {
    var (total, streams, datagrams) = (0, 0, 0)
    for socket in sockets() {
      total += 1
      guard let listing = (socket as? InternetSocket)?.listing else { continue }
      if listing.isTCP { streams += 1 } else { datagrams += 1 }
    }
    var text = Text()
    text.add("sockets: used ")
    text.add(total)
    text.add("\nTCP: inuse ")
    text.add(streams)
    text.add(" orphan 0 tw ")
    text.add(Network.stack.timeWaitConversations.count)
    text.add(" alloc ")
    text.add(streams)
    text.add(" mem 0\nUDP: inuse ")
    text.add(datagrams)
    text.add(" mem 0\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n")
    return text.bytes
  }
}
