// What the socket layer shows of the stack's tables (rtnetlink(7)).

extension NetworkStack {
  /// Bits of the IPv4 netmask.
  public var prefixLength: Int { netmask.nonzeroBitCount }

  /// The IPv4 router, or any for none.
  public var gatewayAddress: IPv4Address { gateway }

  /// What is known of neighbours, of both families.
  public var neighbourEntries: [(address: IPAddress, mac: MACAddress, isResolved: Bool)] {
    neighbours.map { ($0.address, $0.mac, $0.isResolved) }
  }

  /// The neighbour that packets to `target` are handed to, nil without a route.
  public func neighbourAddress(toward target: IPAddress) -> IPAddress? { nextHop(target) }

  /// Whether an address is this host's.
  public func isLocal(_ address: IPAddress) -> Bool { isOwn(address) }
}
