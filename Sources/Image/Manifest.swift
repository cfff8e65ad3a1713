/// A numeric user and group.
public struct UserIdentity: Equatable {
  public var uid: UInt32
  public var gid: UInt32
  public init(uid: UInt32, gid: UInt32) {
    self.uid = uid
    self.gid = gid
  }

  init(parsing text: [UInt8]) throws(ImageError) {
    guard let colon = firstIndex(of: 0x3a, in: text) else { throw .invalidNumber }
    // 0xffffffff means "no change" to chown(2) and setuid(2): not an identity.
    uid = UInt32(truncatingIfNeeded: try parseNumber(text[0..<colon], atMost: 0xffff_fffe))
    gid = UInt32(truncatingIfNeeded: try parseNumber(text[(colon &+ 1)...], atMost: 0xffff_fffe))
  }

  var text: [UInt8] { decimal(UInt64(uid)) + [0x3a] + decimal(UInt64(gid)) }
}

/// How the program is kept apart from the libOS.
public enum Isolation: Equatable {
  /// Not at all: the classic unikernel.
  case none
  /// The libOS leaves the address space while a program runs (bare host).
  case paging
  /// Protection keys of pages close the libOS's memory while a program runs.
  case keys

  public var text: StaticString {
    switch self {
    case .none: "none"
    case .paging: "paging"
    case .keys: "mpk"
    }
  }
}

/// What an image runs: part of the image, and the default for everything a launch record does not say.
public struct Manifest: Equatable {
  /// Absolute path of the program inside the image.
  public var program: [UInt8] = []
  /// The arguments, argv[0] first.
  public var arguments: [[UInt8]] = []
  /// `NAME=VALUE` each.
  public var environment: [[UInt8]] = []
  public var workingDirectory: [UInt8] = [0x2f]
  public var user = UserIdentity(uid: 0, gid: 0)
  /// Memory of the whole image in bytes; 0 for the libOS's default.
  public var memory: UInt64 = 0
  /// The greatest number of processes; 0 for no limit.
  public var processes: UInt64 = 0
  /// Nil: the best that the machine has without making programs slower than they need be.
  public var isolation: Isolation?

  public init() {}

  /// Parses the text of a manifest.
  public init(parsing text: UnsafeRawBufferPointer) throws(ImageError) {
    var reader = RecordReader(text)
    var seen = SeenKeys()
    while let line = try reader.next() { try read(line, &seen) }
    guard program.first == 0x2f, !arguments.isEmpty else { throw .missingProgram }
  }

  /// The text that `init(parsing:)` reads.
  public func serialise() -> [UInt8] {
    var writer = RecordWriter()
    writer.add("program", program)
    for argument in arguments { writer.add("arg", argument) }
    for variable in environment { writer.add("env", variable) }
    writer.add("workdir", workingDirectory)
    writer.add("user", user.text)
    writer.add("memory", number: memory)
    writer.add("processes", number: processes)
    if let isolation { writer.add("isolation", word: isolation.text) }
    return writer.bytes
  }

  private mutating func read(_ line: RecordLine, _ seen: inout SeenKeys) throws(ImageError) {
    if line.hasKey("program") {
      try seen.once(0)
      program = line.value
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
    } else if line.hasKey("isolation") {
      try seen.once(5)
      isolation = try parseIsolation(line.value)
    } else {
      throw .unknownKey
    }
  }
}

/// Refuses a second line for a key that has one value.
struct SeenKeys {
  private var bits: UInt64 = 0

  mutating func once(_ key: UInt64) throws(ImageError) {
    guard bits & (1 << key) == 0 else { throw .duplicateKey }
    bits |= 1 << key
  }
}

func parseVariable(_ text: [UInt8]) throws(ImageError) -> [UInt8] {
  guard let equals = firstIndex(of: 0x3d, in: text), equals > 0 else { throw .missingValue }
  return text
}

func parseAbsolutePath(_ text: [UInt8]) throws(ImageError) -> [UInt8] {
  guard text.first == 0x2f, text.count <= ImageFormat.longestPath else { throw .invalidPath }
  return text
}

func parseIsolation(_ text: [UInt8]) throws(ImageError) -> Isolation {
  if hasText(text, "none") { return .none }
  if hasText(text, "mpk") { return .keys }
  guard hasText(text, "paging") else { throw .unknownKey }
  return .paging
}
