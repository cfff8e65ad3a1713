/// What the builder needs to know of an ELF file: elf(5), System V ABI AMD64 supplement.
public struct ELFFile {
  public private(set) var interpreter: Path?
  /// DT_NEEDED, in order.
  public private(set) var needed: [Path] = []
  /// DT_RPATH and DT_RUNPATH entries as written, `$ORIGIN` unexpanded.
  public private(set) var rpath: [Path] = []
  public private(set) var runpath: [Path] = []
  /// Where the file should end: the end of its last section, segment or table.
  public private(set) var length: UInt64 = 64

  private let bytes: UnsafeRawBufferPointer
  private let name: Path
  private var loads: [(address: UInt64, offset: UInt64, size: UInt64)] = []

  public static func hasMagic(_ bytes: UnsafeRawBufferPointer) -> Bool {
    bytes.count >= 4 && bytes[0] == 0x7f && bytes[1] == 0x45 && bytes[2] == 0x4c && bytes[3] == 0x46
  }

  /// `name` is for messages.
  public init(_ bytes: UnsafeRawBufferPointer, name: Path) throws(BuildError) {
    self.bytes = bytes
    self.name = name
    guard ELFFile.hasMagic(bytes) else { throw Self.refusal(name, "is not an ELF file") }
    guard bytes.count >= 64 else { throw Self.refusal(name, "is a truncated ELF file") }
    // EI_CLASS 2: 64 bit; EI_DATA 1: little endian; e_machine 62: EM_X86_64.
    guard bytes[4] == 2, bytes[5] == 1, load16(18) == 62 else {
      throw Self.refusal(name, "is for another machine (ELF machine \(load16(18))); only x86-64 can run")
    }
    guard load16(16) == 2 || load16(16) == 3 else {
      throw Self.refusal(name, "is neither an executable nor a shared object")
    }
    try readSegments()
    try readSections()
    guard length <= UInt64(bytes.count) else { throw Self.refusal(name, "is a truncated ELF file") }
  }

  private static func refusal(_ name: Path, _ fault: String) -> BuildError {
    BuildError("\(name.text) \(fault)", exitStatus: 126)
  }

  private func load16(_ offset: Int) -> UInt16 {
    bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self)
  }
  private func load32(_ offset: Int) -> UInt32 {
    bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
  }
  private func load64(_ offset: Int) -> UInt64 {
    bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
  }

  /// Notes that the file reaches at least `offset + size`, which must lie inside it.
  private mutating func reach(_ offset: UInt64, _ size: UInt64) throws(BuildError) {
    let (end, overflow) = offset.addingReportingOverflow(size)
    guard !overflow, end <= UInt64(bytes.count) else { throw Self.refusal(name, "is a truncated ELF file") }
    length = max(length, end)
  }

  private mutating func readSegments() throws(BuildError) {
    let table = load64(32)
    let count = Int(load16(56))
    guard count > 0, load16(54) == 56 else { throw Self.refusal(name, "has no program headers") }
    try reach(table, UInt64(count * 56))
    var dynamic: (offset: UInt64, size: UInt64)?
    for index in 0..<count {
      let header = Int(table) + index * 56
      let offset = load64(header + 8)
      let size = load64(header + 32)
      switch load32(header) {
      case 1:
        try reach(offset, size)
        loads.append((load64(header + 16), offset, size))
      case 2:
        try reach(offset, size)
        dynamic = (offset, size)
      case 3:
        try reach(offset, size)
        interpreter = Path(bytes[Int(offset)..<Int(offset + size)].prefix { $0 != 0 })
      default: break
      }
    }
    if let dynamic { try readDynamic(dynamic.offset, dynamic.size) }
  }

  private mutating func readSections() throws(BuildError) {
    let table = load64(40)
    let count = Int(load16(60))
    guard table != 0, load16(58) == 64 else { return }
    try reach(table, UInt64(count * 64))
    for index in 0..<count {
      let header = Int(table) + index * 64
      // SHT_NOBITS (8) takes no room; SHT_NULL (0) has no meaning.
      let type = load32(header + 4)
      if type != 8 && type != 0 { try reach(load64(header + 24), load64(header + 32)) }
    }
  }

  private mutating func readDynamic(_ offset: UInt64, _ size: UInt64) throws(BuildError) {
    var names: [(tag: UInt64, offset: UInt64)] = []
    var strings: (address: UInt64, size: UInt64) = (0, 0)
    for index in 0..<Int(size / 16) {
      let entry = Int(offset) + index * 16
      let tag = load64(entry)
      let value = load64(entry + 8)
      if tag == 0 { break }
      switch tag {
      case 1, 15, 29: names.append((tag, value))
      case 5: strings.address = value
      case 10: strings.size = value
      default: break
      }
    }
    if names.isEmpty { return }
    let table = try stringTable(strings.address, strings.size)
    for (tag, start) in names {
      guard start < UInt64(table.count) else { throw Self.refusal(name, "has a damaged dynamic section") }
      let text = Path(table[Int(start)...].prefix { $0 != 0 })
      switch tag {
      case 1: needed.append(text)
      case 15: rpath = text.split(separator: UInt8(ascii: ":")).map { Path($0) }
      default: runpath = text.split(separator: UInt8(ascii: ":")).map { Path($0) }
      }
    }
  }

  /// DT_STRTAB is an address: finds the file data that is loaded there.
  private func stringTable(_ address: UInt64, _ size: UInt64) throws(BuildError) -> UnsafeRawBufferPointer {
    for load in loads where address >= load.address && address - load.address < load.size {
      let start = address - load.address
      guard size <= load.size - start else { break }
      let offset = Int(load.offset + start)
      return UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + Int(size))])
    }
    throw Self.refusal(name, "has a damaged dynamic section")
  }
}
