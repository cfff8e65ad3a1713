extension LaunchOptions {
  /// Reads a line that overrides the manifest; false if the key is none of those.
  mutating func readOverride(_ line: RecordLine, _ seen: inout SeenKeys) throws(ImageError) -> Bool {
    if line.hasKey("program") {
      try seen.once(0)
      program = try parseAbsolutePath(line.value)
    } else if line.hasKey("arg") {
      arguments.append(line.value)
    } else if line.hasKey("env") {
      environment.append(try parseVariable(line.value))
    } else if line.hasKey("workdir") {
      try seen.once(1)
      workingDirectory = try parseAbsolutePath(line.value)
    } else if line.hasKey("user") {
      try seen.once(2)
      user = try UserIdentity(parsing: line.value)
    } else if line.hasKey("memory") {
      try seen.once(3)
      memory = try parseNumber(line.value, atMost: UInt64(Int64.max))
    } else if line.hasKey("processes") {
      try seen.once(4)
      processes = try parseNumber(line.value, atMost: UInt64(Int32.max))
    } else if line.hasKey("volume") {
      volumes.append(try LaunchVolume(parsing: line.value))
    } else if line.hasKey("layer-fd") {
      try seen.once(18)
      layerDescriptor = Int32(truncatingIfNeeded: try parseNumber(line.value, atMost: UInt64(Int32.max)))
    } else if line.hasKey("disk-log-fd") {
      try seen.once(19)
      diskLogDescriptor = Int32(truncatingIfNeeded: try parseNumber(line.value, atMost: UInt64(Int32.max)))
    } else if line.hasKey("isolation") {
      try seen.once(5)
      isolation = try parseIsolation(line.value)
    } else {
      return false
    }
    return true
  }

  /// Reads a line about the network, the name or the terminal; false if the key is none of those.
  mutating func readNetwork(_ line: RecordLine, _ seen: inout SeenKeys) throws(ImageError) -> Bool {
    if line.hasKey("network") {
      try seen.once(8)
      network = try parseNetwork(line.value)
    } else if line.hasKey("network-fd") {
      try seen.once(9)
      networkDescriptor = Int32(truncatingIfNeeded: try parseNumber(line.value, atMost: UInt64(Int32.max)))
    } else if line.hasKey("network-offloads") {
      try seen.once(10)
      networkOffloads = try parseFlag(line.value)
    } else if line.hasKey("network-mtu") {
      try seen.once(17)
      networkMTU = UInt32(truncatingIfNeeded: try parseNumber(line.value, atMost: 65535))
    } else if line.hasKey("mac") {
      try seen.once(11)
      hardwareAddress = try parseHardwareAddress(line.value)
    } else if line.hasKey("address") {
      try seen.once(12)
      try readAddress(line.value)
    } else if line.hasKey("gateway") {
      try seen.once(13)
      gateway = try IPv4Address(parsing: line.value[...])
    } else if line.hasKey("nameserver") {
      nameservers.append(try IPv4Address(parsing: line.value[...]))
    } else {
      return try readSurroundings(line, &seen)
    }
    return true
  }

  private mutating func readSurroundings(_ line: RecordLine, _ seen: inout SeenKeys) throws(ImageError)
    -> Bool
  {
    if line.hasKey("hostname") {
      try seen.once(14)
      // HOST_NAME_MAX of Linux (limits.h).
      guard !line.value.isEmpty, line.value.count <= 64 else { throw .missingValue }
      hostname = line.value
    } else if line.hasKey("terminal") {
      try seen.once(15)
      terminal = try parseFlag(line.value)
    } else if line.hasKey("terminal-size") {
      try seen.once(18)
      terminalSize = try parseNumber(line.value, atMost: .max)
    } else if line.hasKey("terminal-flags") {
      try seen.once(19)
      terminalFlags = try parseNumber(line.value, atMost: .max)
    } else if line.hasKey("size-fd") {
      try seen.once(20)
      sizeDescriptor = Int32(truncatingIfNeeded: try parseNumber(line.value, atMost: UInt64(Int32.max)))
    } else if line.hasKey("trace") {
      try seen.once(16)
      trace = try parseTrace(line.value)
    } else {
      return false
    }
    return true
  }

  private mutating func readAddress(_ text: [UInt8]) throws(ImageError) {
    guard let slash = firstIndex(of: 0x2f, in: text) else { throw .invalidAddress }
    address = try IPv4Address(parsing: text[0..<slash])
    prefixLength = UInt8(truncatingIfNeeded: try parseNumber(text[(slash &+ 1)...], atMost: 32))
  }
}

extension Manifest {
  /// Sets an environment variable given as `NAME=VALUE`.
  public mutating func setVariable(_ variable: [UInt8]) {
    let nameLength = (firstIndex(of: 0x3d, in: variable) ?? variable.count &- 1) &+ 1
    for index in 0..<environment.count where environment[index].starts(with: variable.prefix(nameLength)) {
      environment[index] = variable
      return
    }
    environment.append(variable)
  }
}

private func parseNetwork(_ text: [UInt8]) throws(ImageError) -> LaunchNetwork {
  if hasText(text, "none") { return .none }
  if hasText(text, "stream") { return .stream }
  if hasText(text, "tap") { return .tap }
  throw .unknownKey
}

private func parseTrace(_ text: [UInt8]) throws(ImageError) -> LaunchTrace {
  if hasText(text, "missing") { return .missing }
  if hasText(text, "syscalls") { return .systemCalls }
  throw .unknownKey
}

/// Parses six colon-separated pairs of hexadecimal digits.
private func parseHardwareAddress(_ text: [UInt8]) throws(ImageError) -> [UInt8] {
  guard text.count == 17 else { throw .invalidAddress }
  var bytes: [UInt8] = []
  for index in stride(from: 0, to: 17, by: 3) {
    guard index == 15 || text[index &+ 2] == 0x3a, let high = hexDigit(text[index]),
      let low = hexDigit(text[index &+ 1])
    else { throw .invalidAddress }
    bytes.append(high << 4 | low)
  }
  return bytes
}

func hardwareAddressText(_ bytes: [UInt8]) -> [UInt8] {
  var text: [UInt8] = []
  for byte in bytes {
    if !text.isEmpty { text.append(0x3a) }
    text.append(lowerHexDigit(byte >> 4))
    text.append(lowerHexDigit(byte & 15))
  }
  return text
}
