public import ABI
public import Tasks

/// Character devices by number; others register theirs at start.
public enum DeviceTable {
  public typealias Opener = (Inode, UInt32) throws(Errno) -> OpenFile
  nonisolated(unsafe) private static var openers: [UInt64: Opener] = [:]

  public static func register(major: UInt64, minor: UInt64, _ opener: @escaping Opener) {
    openers[major << 8 | minor] = opener
  }

  static func open(_ inode: Inode, _ flags: UInt32) throws(Errno) -> OpenFile {
    let number = inode.status.rawDevice
    if inode.type == 0o060000 {
      guard number == 1 << 8 else { throw .noSuchDevice }
      return try MemoryDisk(inode, flags: flags)
    }
    if number >> 8 == 1, let kind = MemoryDevice.Kind(rawValue: UInt8(truncatingIfNeeded: number)) {
      return MemoryDevice(kind, inode: inode, flags: flags)
    }
    if number >> 8 == 5 || (number >> 8) & 0xfff == 136 { return try TerminalDevices.open(inode, flags) }
    guard let opener = openers[number] else { throw .noSuchDevice }
    return try opener(inode, flags)
  }

  /// Makes /dev's usual contents in `directory`.
  public static func populate(_ directory: Inode) throws(Errno) {
    func device(_ name: StaticString, _ major: UInt64, _ minor: UInt64) throws(Errno) {
      _ = try directory.create(
        bytes(name), mode: 0o020666, user: 0, group: 0, device: major << 8 | minor, target: [])
    }
    func link(_ name: StaticString, _ target: StaticString) throws(Errno) {
      _ = try directory.create(
        bytes(name), mode: 0o120777, user: 0, group: 0, device: 0, target: bytes(target))
    }
    try device("null", 1, 3)
    try device("zero", 1, 5)
    try device("full", 1, 7)
    try device("random", 1, 8)
    try device("urandom", 1, 9)
    try device("tty", 5, 0)
    try device("console", 5, 1)
    try device("ptmx", 5, 2)
    _ = try directory.create(
      bytes("ram0"), mode: 0o060660, user: 0, group: 0, device: 1 << 8, target: [])
    try link("fd", "/proc/self/fd")
    try link("stdin", "/proc/self/fd/0")
    try link("stdout", "/proc/self/fd/1")
    try link("stderr", "/proc/self/fd/2")
    _ = try directory.create(bytes("shm"), mode: 0o041777, user: 0, group: 0, device: 0, target: [])
    _ = try directory.create(bytes("pts"), mode: 0o040755, user: 0, group: 0, device: 0, target: [])
  }
}

/// A static text as bytes.
public func bytes(_ text: StaticString) -> [UInt8] {
  Array(UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
}

/// A number in decimal digits.
public func decimal(_ value: UInt64) -> [UInt8] {
  var digits: [UInt8] = []
  var rest = value
  repeat {
    digits.append(0x30 + UInt8(rest % 10))
    rest /= 10
  } while rest > 0
  digits.reverse()
  return digits
}

/// A device file.
final class DeviceInode: Inode {
  override func open(flags: UInt32) throws(Errno) -> OpenFile { try DeviceTable.open(self, flags) }
  override func truncate(_ size: Int64) throws(Errno) {}
}

/// null(4), zero, full, random(4).
final class MemoryDevice: OpenFile {
  enum Kind: UInt8 {
    case null = 3
    case zero = 5
    case full = 7
    case random = 8
    case urandom = 9
  }
  private let kind: Kind

  init(_ kind: Kind, inode: Inode, flags: UInt32) {
    self.kind = kind
    super.init(inode: inode, flags: flags)
  }

  override func read(_ slice: UserSlice) throws(Errno) -> Int {
    switch kind {
    case .null: return 0
    case .zero, .full: try slice.clear(slice.count)
    case .random, .urandom: try fillRandom(slice)
    }
    return slice.count
  }

  private func fillRandom(_ slice: UserSlice) throws(Errno) {
    var done = 0
    var block = [UInt8](repeating: 0, count: min(slice.count, 4096))
    while done < slice.count {
      block.withUnsafeMutableBytes { host.fillRandom($0) }
      let part = min(block.count, slice.count - done)
      try slice.dropFirst(done).store(part == block.count ? block : Array(block[..<part]))
      done += part
    }
  }

  override func write(_ slice: UserSlice) throws(Errno) -> Int {
    if kind == .full { throw .noSpace }
    return slice.count
  }
  override func read(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int { try read(slice) }
  override func write(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int { try write(slice) }
  override func seek(_ offset: Int64, whence: Int32) throws(Errno) -> Int64 { 0 }

  /// RNDGETENTCNT (random(4)): the pool is always full.
  override func control(_ request: UInt32, argument: UInt) throws(Errno) -> Int {
    guard kind == .random || kind == .urandom, request == 0x8004_5200 else { throw .notTerminal }
    try UserSlice.store(Int32(256), at: argument)
    return 0
  }
}
