public import ABI
import Tasks
import VFS

/// What exec needs of an ELF file (elf(5)): 64-bit, x86-64, little endian. Checked once, here.
public struct ELFHeader {
  public struct Segment {
    var offset: Int64
    var address: UInt
    var fileSize: UInt
    var memorySize: UInt
    var protection: Protection
  }
  public var entry: UInt
  public var isPositionIndependent: Bool
  public var programHeaderOffset: UInt
  public var programHeaderCount: Int
  public var segments: [Segment] = []
  public var interpreter: (offset: Int64, length: Int)? = nil
  public var hasExecutableStack = false

  /// ENOEXEC for what is not a program for this machine.
  init(_ file: OpenFile) throws(Errno) {
    let header = try ELFHeader.read(file, 0, 64)
    guard header.count == 64, header[0] == 0x7f, header[1] == 0x45, header[2] == 0x4c, header[3] == 0x46,
      header[4] == 2, header[5] == 1
    else { throw .notExecutable }
    let type = ELFHeader.number(header, 16, 2)
    guard type == 2 || type == 3, ELFHeader.number(header, 18, 2) == 62, ELFHeader.number(header, 54, 2) == 56
    else { throw .notExecutable }
    entry = UInt(ELFHeader.number(header, 24, 8))
    isPositionIndependent = type == 3
    programHeaderOffset = UInt(ELFHeader.number(header, 32, 8))
    programHeaderCount = Int(ELFHeader.number(header, 56, 2))
    guard programHeaderCount > 0, programHeaderCount <= 128, programHeaderOffset < 1 << 30 else {
      throw .notExecutable
    }
    let table = try ELFHeader.read(file, Int64(programHeaderOffset), programHeaderCount * 56)
    guard table.count == programHeaderCount * 56 else { throw .notExecutable }
    for i in 0..<programHeaderCount { try add(table, i * 56) }
    guard !segments.isEmpty else { throw .notExecutable }
  }

  private mutating func add(_ table: [UInt8], _ at: Int) throws(Errno) {
    let type = ELFHeader.number(table, at, 4)
    let flags = ELFHeader.number(table, at + 4, 4)
    let offset = ELFHeader.number(table, at + 8, 8)
    let fileSize = ELFHeader.number(table, at + 32, 8)
    switch type {
    case 1:
      let address = ELFHeader.number(table, at + 16, 8)
      let memorySize = ELFHeader.number(table, at + 40, 8)
      guard offset < 1 << 47, address < 1 << 47, memorySize < 1 << 40, fileSize <= memorySize,
        offset & 4095 == address & 4095
      else { throw .notExecutable }
      var protection: Protection = []
      if flags & 4 != 0 { protection.insert(.read) }
      if flags & 2 != 0 { protection.insert(.write) }
      if flags & 1 != 0 { protection.insert(.execute) }
      segments.append(
        Segment(
          offset: Int64(offset), address: UInt(address), fileSize: UInt(fileSize),
          memorySize: UInt(memorySize),
          protection: protection))
    case 3:
      guard offset < 1 << 47, fileSize > 1, fileSize <= 4096 else { throw .notExecutable }
      interpreter = (Int64(offset), Int(fileSize))
    case 0x6474_e551: hasExecutableStack = flags & 1 != 0
    default: break
    }
  }

  /// Bytes that the loaded segments span.
  var span: (low: UInt, high: UInt) {
    var low = UInt.max
    var high: UInt = 0
    for segment in segments {
      low = min(low, segment.address & ~4095)
      high = max(high, (segment.address + segment.memorySize + 4095) & ~4095)
    }
    return (low, high)
  }

  static func read(_ file: OpenFile, _ offset: Int64, _ count: Int) throws(Errno) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var done = 0
    var failure: Errno? = nil
    bytes.withUnsafeMutableBytes { buffer in
      do throws(Errno) {
        while done < count {
          let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
          let n = try file.read(UserSlice(kernel: rest), at: offset + Int64(done))
          if n == 0 { break }
          done += n
        }
      } catch { failure = error }
    }
    if let failure { throw failure }
    return Array(bytes[..<done])
  }

  static func number(_ bytes: [UInt8], _ at: Int, _ size: Int) -> UInt64 {
    var value: UInt64 = 0
    for i in 0..<size { value |= UInt64(bytes[at + i]) << UInt64(8 * i) }
    return value
  }
}
