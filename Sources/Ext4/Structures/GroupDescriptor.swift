/// A view of a group's descriptor. Writing through it needs `FileSystem.change` on its buffer first.
struct GroupDescriptor {
  let view: ByteView
  let buffer: Buffer

  private var isWide: Bool { view.count >= 64 }

  private func wide(_ low: Int, _ high: Int) -> UInt64 {
    UInt64(view.u32(low)) | (isWide ? UInt64(view.u32(high)) << 32 : 0)
  }
  private func count(_ low: Int, _ high: Int) -> UInt32 {
    UInt32(view.u16(low)) | (isWide ? UInt32(view.u16(high)) << 16 : 0)
  }
  private func setCount(_ low: Int, _ high: Int, _ value: UInt32) {
    view.set16(low, UInt16(truncatingIfNeeded: value))
    if isWide { view.set16(high, UInt16(truncatingIfNeeded: value >> 16)) }
  }

  var blockBitmap: UInt64 { wide(0, 32) }
  var inodeBitmap: UInt64 { wide(4, 36) }
  var inodeTable: UInt64 { wide(8, 40) }
  /// Says where a new group's structures are.
  func setPlaces(blockBitmap: UInt64, inodeBitmap: UInt64, inodeTable: UInt64) {
    for (low, high, block) in [(0, 32, blockBitmap), (4, 36, inodeBitmap), (8, 40, inodeTable)] {
      view.set32(low, UInt32(truncatingIfNeeded: block))
      if isWide { view.set32(high, UInt32(truncatingIfNeeded: block >> 32)) }
    }
  }
  var freeBlocks: UInt32 {
    get { count(12, 44) }
    nonmutating set { setCount(12, 44, newValue) }
  }
  var freeInodes: UInt32 {
    get { count(14, 46) }
    nonmutating set { setCount(14, 46, newValue) }
  }
  var directories: UInt32 {
    get { count(16, 48) }
    nonmutating set { setCount(16, 48, newValue) }
  }
  /// Inodes at the table's end that were never used.
  var unusedInodes: UInt32 {
    get { count(28, 50) }
    nonmutating set { setCount(28, 50, newValue) }
  }
  var flags: UInt16 {
    get { view.u16(18) }
    nonmutating set { view.set16(18, newValue) }
  }
  static let inodesUninitialised: UInt16 = 1
  static let blocksUninitialised: UInt16 = 2
  /// The inode table is known to be zeros where no inode was written.
  static let inodesZeroed: UInt16 = 4

  var blockBitmapChecksum: UInt32 {
    get { count(24, 56) }
    nonmutating set { setCount(24, 56, newValue) }
  }
  var inodeBitmapChecksum: UInt32 {
    get { count(26, 58) }
    nonmutating set { setCount(26, 58, newValue) }
  }
  /// The bits of a bitmap's checksum that the descriptor has room for.
  var checksumMask: UInt32 { isWide ? ~0 : 0xFFFF }

  var checksum: UInt16 {
    get { view.u16(30) }
    nonmutating set { view.set16(30, newValue) }
  }

  func computeChecksum(_ layout: Layout, group: Int) -> UInt16 {
    let number = UInt32(truncatingIfNeeded: group)
    if layout.hasChecksums {
      var crc = Checksum.crc32c(layout.checksumSeed, number: number)
      crc = Checksum.crc32c(crc, view.part(0, 30))
      // The checksum's own two bytes count as zeros.
      let held = checksum
      checksum = 0
      crc = Checksum.crc32c(crc, view.part(30, 2))
      checksum = held
      return UInt16(truncatingIfNeeded: Checksum.crc32c(crc, view.part(32, view.count - 32)))
    }
    var crc: UInt16 = ~0
    for byte in layout.uuid { crc = Checksum.crc16(crc, byte) }
    for shift: UInt32 in [0, 8, 16, 24] {
      crc = Checksum.crc16(crc, UInt8(truncatingIfNeeded: number >> shift))
    }
    crc = Checksum.crc16(crc, view.part(0, 30))
    return view.count > 32 ? Checksum.crc16(crc, view.part(32, view.count - 32)) : crc
  }
}
