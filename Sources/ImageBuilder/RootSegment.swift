/// The segment that shows an image's root to a hypervisor, which loads segments and nothing else of the file: it
/// takes the place of the unused program header (PT_NULL) that the libOS executable keeps for it.
struct RootSegment {
  /// Where the root begins in the libOS's memory, on either host.
  static let address: UInt64 = 0x2f00_0000_0000
  private static let headerLength = 56

  /// The program header (elf(5)), and where it goes in the file.
  let header: [UInt8]
  let headerOffset: UInt64

  /// Nil for an executable that keeps no place for it.
  init?(_ executable: UnsafeRawBufferPointer, offset: UInt64, length: UInt64) {
    var place: Int?
    var end: UInt64 = 0
    for at in RootSegment.headers(executable) {
      let type = executable.loadUnaligned(fromByteOffset: at, as: UInt32.self)
      if type == 0 { place = place ?? at }
      let physical = executable.loadUnaligned(fromByteOffset: at + 24, as: UInt64.self)
      let size = executable.loadUnaligned(fromByteOffset: at + 40, as: UInt64.self)
      if type == 1 { end = max(end, physical &+ size) }
    }
    // Guest-physical memory behind everything else; above 4 GiB no hypervisor loads segments.
    let physical = (end &+ 0xffff) & ~0xffff
    guard let place, physical < 1 << 32 else { return nil }
    var bytes: [UInt8] = [1, 0, 0, 0, 4, 0, 0, 0]  // PT_LOAD, readable
    for value in [offset, RootSegment.address, physical, length, length, 4096] {
      withUnsafeBytes(of: value.littleEndian) { bytes += $0 }
    }
    header = bytes
    headerOffset = UInt64(place)
  }

  /// Whether the file has the segment: it is, or was, an image.
  static func exists(in bytes: UnsafeRawBufferPointer) -> Bool {
    headers(bytes).contains { at in
      bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self) == 1
        && bytes.loadUnaligned(fromByteOffset: at + 16, as: UInt64.self) == address
    }
  }

  /// Offsets of the program headers that lie in the file.
  private static func headers(_ bytes: UnsafeRawBufferPointer) -> [Int] {
    guard bytes.count >= 64, ELFFile.hasMagic(bytes) else { return [] }
    let start = bytes.loadUnaligned(fromByteOffset: 32, as: UInt64.self)
    let count = Int(bytes.loadUnaligned(fromByteOffset: 56, as: UInt16.self))
    guard start < 4096, Int(start) + count * headerLength <= bytes.count else { return [] }
    return (0..<count).map { Int(start) + $0 * headerLength }
  }
}
