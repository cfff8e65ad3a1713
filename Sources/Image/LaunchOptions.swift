/// How a launched image reaches the network.
public enum LaunchNetwork: Equatable {
  /// Loopback only.
  case none
  /// A stream socket with frames of 4-byte big-endian length and Ethernet frame (passt).
  case stream
  /// A tap device whose packets begin with a 10-byte virtio_net_hdr.
  case tap
}

/// What `trace` prints.
public enum LaunchTrace: Equatable {
  /// Calls that the libOS does not implement.
  case missing
  /// Every call.
  case systemCalls
}

/// An ext4 file system that is mounted at start.
public struct LaunchVolume: Equatable {
  /// The file or device, opened by the command.
  public var descriptor: Int32
  public var isReadOnly: Bool
  public var path: [UInt8]
  public init(descriptor: Int32, isReadOnly: Bool, path: [UInt8]) {
    self.descriptor = descriptor
    self.isReadOnly = isReadOnly
    self.path = path
  }

  /// Reads `FD ro PATH` or `FD rw PATH`.
  init(parsing text: [UInt8]) throws(ImageError) {
    guard let space = firstIndex(of: 0x20, in: text), space + 4 < text.count, text[space + 3] == 0x20 else {
      throw .missingValue
    }
    descriptor = Int32(truncatingIfNeeded: try parseNumber(text[..<space], atMost: UInt64(Int32.max)))
    guard text[space + 1] == 0x72, text[space + 2] == 0x6f || text[space + 2] == 0x77 else {
      throw .unknownKey
    }
    isReadOnly = text[space + 2] == 0x6f
    path = try parseAbsolutePath(Array(text[(space + 4)...]))
  }

  var text: [UInt8] {
    decimal(UInt64(UInt32(bitPattern: descriptor))) + [0x20, 0x72, isReadOnly ? 0x6f : 0x77, 0x20] + path
  }
}

/// An IPv4 address in host byte order.
public struct IPv4Address: Equatable {
  public var value: UInt32
  public init(value: UInt32) { self.value = value }

  public init(parsing text: ArraySlice<UInt8>) throws(ImageError) {
    var parts = 0
    var start = text.startIndex
    value = 0
    for index in text.startIndex...text.endIndex {
      if index < text.endIndex, text[index] != 0x2e { continue }
      guard index &- start <= 3, let part = try? parseNumber(text[start..<index], atMost: 255) else {
        throw .invalidAddress
      }
      value = value << 8 | UInt32(part)
      parts &+= 1
      start = index &+ 1
      guard parts <= 4 else { throw .invalidAddress }
    }
    guard parts == 4 else { throw .invalidAddress }
  }

  public var text: [UInt8] {
    var bytes: [UInt8] = []
    for shift: UInt32 in [24, 16, 8, 0] {
      if !bytes.isEmpty { bytes.append(0x2e) }
      bytes += decimal(UInt64((value >> shift) & 255))
    }
    return bytes
  }
}

/// What `swiftlet run` tells the image it executes, through the file descriptor that the environment variable
/// SWIFTLET_LAUNCH_FD numbers. Everything optional that is nil is as the manifest says.
public struct LaunchOptions: Equatable {
  public var program: [UInt8]?
  /// All arguments, argv[0] first: they replace those of the manifest unless empty.
  public var arguments: [[UInt8]] = []
  /// `NAME=VALUE` each: added to the manifest's, replacing those of the same name.
  public var environment: [[UInt8]] = []
  public var workingDirectory: [UInt8]?
  public var user: UserIdentity?
  public var memory: UInt64?
  public var processes: UInt64?
  public var isolation: Isolation?

  public var network = LaunchNetwork.none
  public var networkDescriptor: Int32?
  /// The device does checksums and segmentation: tap only.
  public var networkOffloads = false
  /// The largest IPv4 packet of the link in bytes; nil for the usual one of its kind.
  public var networkMTU: UInt32?
  public var hardwareAddress: [UInt8]?
  public var address: IPv4Address?
  public var prefixLength: UInt8 = 24
  public var gateway: IPv4Address?
  public var nameservers: [IPv4Address] = []
  public var hostname: [UInt8]?
  /// Standard input is a terminal.
  public var terminal = false
  /// A shared page that begins with the terminal's struct winsize (ioctl_tty(2)).
  public var sizeDescriptor: Int32?
  /// What that page holds at start, for an image that cannot map it: its first two words.
  public var terminalSize: UInt64?
  public var terminalFlags: UInt64 = 0
  public var trace: LaunchTrace?
  public var volumes: [LaunchVolume] = []
  /// The file in which the root's changes are kept, opened by the command.
  public var layerDescriptor: Int32?
  /// Where tests want to have written what disks do.
  public var diskLogDescriptor: Int32?

  public init() {}

  /// Parses the text of a launch record.
  public init(parsing text: UnsafeRawBufferPointer) throws(ImageError) {
    var reader = RecordReader(text)
    var seen = SeenKeys()
    while let line = try reader.next() {
      if try !readOverride(line, &seen), try !readNetwork(line, &seen) { throw .unknownKey }
    }
    guard network == .none || networkDescriptor != nil else { throw .missingValue }
  }

  /// The manifest with this record's overrides.
  public func applied(to manifest: Manifest) -> Manifest {
    var result = manifest
    if let program { result.program = program }
    if !arguments.isEmpty { result.arguments = arguments }
    for variable in environment { result.setVariable(variable) }
    if let workingDirectory { result.workingDirectory = workingDirectory }
    if let user { result.user = user }
    if let memory { result.memory = memory }
    if let processes { result.processes = processes }
    if let isolation { result.isolation = isolation }
    return result
  }

  /// The text that `init(parsing:)` reads.
  public func serialise() -> [UInt8] {
    var writer = RecordWriter()
    if let program { writer.add("program", program) }
    for argument in arguments { writer.add("arg", argument) }
    for variable in environment { writer.add("env", variable) }
    if let workingDirectory { writer.add("workdir", workingDirectory) }
    if let user { writer.add("user", user.text) }
    if let memory { writer.add("memory", number: memory) }
    if let processes { writer.add("processes", number: processes) }
    if let isolation { writer.add("isolation", word: isolation.text) }
    switch network {
    case .none: writer.add("network", word: "none")
    case .stream: writer.add("network", word: "stream")
    case .tap: writer.add("network", word: "tap")
    }
    if let networkDescriptor {
      writer.add("network-fd", number: UInt64(UInt32(bitPattern: networkDescriptor)))
    }
    writer.add("network-offloads", number: networkOffloads ? 1 : 0)
    if let networkMTU { writer.add("network-mtu", number: UInt64(networkMTU)) }
    if let hardwareAddress { writer.add("mac", hardwareAddressText(hardwareAddress)) }
    if let address { writer.add("address", address.text + [0x2f] + decimal(UInt64(prefixLength))) }
    if let gateway { writer.add("gateway", gateway.text) }
    for nameserver in nameservers { writer.add("nameserver", nameserver.text) }
    if let hostname { writer.add("hostname", hostname) }
    writer.add("terminal", number: terminal ? 1 : 0)
    if let sizeDescriptor { writer.add("size-fd", number: UInt64(UInt32(bitPattern: sizeDescriptor))) }
    if let terminalSize { writer.add("terminal-size", number: terminalSize) }
    if terminalFlags != 0 { writer.add("terminal-flags", number: terminalFlags) }
    if let layerDescriptor {
      writer.add("layer-fd", number: UInt64(UInt32(bitPattern: layerDescriptor)))
    }
    if let diskLogDescriptor {
      writer.add("disk-log-fd", number: UInt64(UInt32(bitPattern: diskLogDescriptor)))
    }
    for volume in volumes { writer.add("volume", volume.text) }
    switch trace {
    case nil: break
    case .missing: writer.add("trace", word: "missing")
    case .systemCalls: writer.add("trace", word: "syscalls")
    }
    return writer.bytes
  }
}
