/// An inode in memory: its bytes as they are on the disk. One object an inode; changes go through
/// `FileSystem.change(_:)` first.
public final class DiskInode {
  public let number: UInt32
  let view: ByteView
  /// The block of the inode table that holds it, and where.
  let buffer: Buffer
  let place: Int
  /// Start value of the checksums of everything that belongs to this inode.
  var seed: UInt32 = 0
  var operation: UInt64 = 0
  /// The transaction that changed it last, and the last that changed what fdatasync(2) promises.
  var transaction: UInt32 = 0
  var dataTransaction: UInt32 = 0
  var isDirty = false
  /// Holders (`FileSystem.inode` and `release`).
  var users = 0
  var wasUsed = true
  /// Where the next allocation is likely to fit.
  var goal: UInt64 = 0

  init(number: UInt32, size: Int, buffer: Buffer, place: Int) {
    self.number = number
    self.buffer = buffer
    self.place = place
    view = FileSystem.allocate(size)
    view.copy(buffer.view.part(place, size))
    buffer.pins += 1
  }

  deinit {
    buffer.pins -= 1
    view.base.deallocate()
  }

  static let indexFlag: UInt32 = 0x1000
  static let hugeFlag: UInt32 = 0x40000
  static let extentsFlag: UInt32 = 0x80000
  /// Inodes whose contents need features that are not known here.
  static let foreignFlags: UInt32 = 0x1000_0000 | 0x20_0000 | 0x800

  public internal(set) var mode: UInt32 {
    get { UInt32(view.u16(0)) }
    set { view.set16(0, UInt16(truncatingIfNeeded: newValue)) }
  }
  public var type: UInt32 { mode & 0o170000 }
  public var isDirectory: Bool { type == 0o040000 }
  public var isRegular: Bool { type == 0o100000 }
  public var isSymlink: Bool { type == 0o120000 }

  public internal(set) var user: UInt32 {
    get { UInt32(view.u16(2)) | UInt32(view.u16(120)) << 16 }
    set { set(newValue, 2, 120) }
  }
  public internal(set) var group: UInt32 {
    get { UInt32(view.u16(24)) | UInt32(view.u16(122)) << 16 }
    set { set(newValue, 24, 122) }
  }
  private func set(_ value: UInt32, _ low: Int, _ high: Int) {
    view.set16(low, UInt16(truncatingIfNeeded: value))
    view.set16(high, UInt16(truncatingIfNeeded: value >> 16))
  }

  /// Bytes. Only regular files and directories have the high half.
  public internal(set) var size: UInt64 {
    get { UInt64(view.u32(4)) | UInt64(view.u32(108)) << 32 }
    set {
      view.set32(4, UInt32(truncatingIfNeeded: newValue))
      view.set32(108, UInt32(truncatingIfNeeded: newValue >> 32))
    }
  }
  public internal(set) var links: UInt32 {
    get { UInt32(view.u16(26)) }
    set { view.set16(26, UInt16(truncatingIfNeeded: newValue)) }
  }
  public internal(set) var flags: UInt32 {
    get { view.u32(32) }
    set { view.set32(32, newValue) }
  }
  var usesExtents: Bool { flags & DiskInode.extentsFlag != 0 }
  var deletionTime: UInt32 {
    get { view.u32(20) }
    set { view.set32(20, newValue) }
  }
  public internal(set) var generation: UInt32 {
    get { view.u32(100) }
    set { view.set32(100, newValue) }
  }
  var attributeBlock: UInt64 {
    get { UInt64(view.u32(104)) | UInt64(view.u16(118)) << 32 }
    set {
      view.set32(104, UInt32(truncatingIfNeeded: newValue))
      view.set16(118, UInt16(truncatingIfNeeded: newValue >> 32))
    }
  }
  /// The 60 bytes of i_block.
  var root: ByteView { view.part(40, 60) }

  /// Units of 512 bytes, or of blocks with the huge-file flag.
  private var rawBlocks: UInt64 {
    get { UInt64(view.u32(28)) | UInt64(view.u16(116)) << 32 }
    set {
      view.set32(28, UInt32(truncatingIfNeeded: newValue))
      view.set16(116, UInt16(truncatingIfNeeded: newValue >> 32))
    }
  }
  /// Space in use, in units of 512 bytes.
  public func sectors(blockSize: Int) -> UInt64 {
    flags & DiskInode.hugeFlag != 0 ? rawBlocks &* UInt64(blockSize / 512) : rawBlocks
  }
  func addBlocks(_ count: Int, blockSize: Int) {
    let unit = flags & DiskInode.hugeFlag != 0 ? 1 : blockSize / 512
    rawBlocks = rawBlocks &+ UInt64(bitPattern: Int64(count &* unit))
  }

  /// Device number of a device file, as Linux encodes it for programs.
  public internal(set) var device: UInt64 {
    get {
      let old = UInt64(view.u32(40) & 0xFFFF)
      if old != 0 { return old }
      let new = UInt64(view.u32(44))
      let (major, minor) = (new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00)
      return minor & 0xFF | major << 8 | (minor & 0xFFF00) << 12
    }
    set {
      let (major, minor) = (newValue >> 8 & 0xFFF, newValue & 0xFF | newValue >> 12 & 0xFFF00)
      root.clear(0, 60)
      if major < 256, minor < 256 {
        view.set32(40, UInt32(major << 8 | minor))
      } else {
        view.set32(44, UInt32(minor & 0xFF | major << 8 | (minor & 0xFFF00) << 12))
      }
    }
  }

  /// Bytes that the inode uses past the first 128.
  var extraSize: Int { view.count > 128 ? Int(view.u16(128)) : 0 }

  // Nanoseconds since 1970: 32 bits of seconds, then 2 more and 30 of nanoseconds in the extra field.
  private func time(_ offset: Int, _ extra: Int) -> UInt64 {
    var seconds = Int64(Int32(bitPattern: view.u32(offset)))
    var nanoseconds: UInt64 = 0
    if extra + 4 <= 128 + extraSize {
      let more = view.u32(extra)
      seconds &+= Int64(more & 3) << 32
      nanoseconds = UInt64(more >> 2)
    }
    return seconds < 0 ? 0 : UInt64(seconds) &* 1_000_000_000 &+ min(nanoseconds, 999_999_999)
  }
  private func setTime(_ offset: Int, _ extra: Int, _ time: UInt64) {
    let seconds = time / 1_000_000_000
    view.set32(offset, UInt32(truncatingIfNeeded: seconds))
    guard extra + 4 <= 128 + extraSize else { return }
    let low = Int64(Int32(truncatingIfNeeded: seconds))
    let epoch = UInt32(truncatingIfNeeded: (Int64(seconds) &- low) >> 32) & 3
    view.set32(extra, epoch | UInt32(time % 1_000_000_000) << 2)
  }
  public internal(set) var accessed: UInt64 {
    get { time(8, 140) }
    set { setTime(8, 140, newValue) }
  }
  public internal(set) var changed: UInt64 {
    get { time(12, 132) }
    set { setTime(12, 132, newValue) }
  }
  public internal(set) var modified: UInt64 {
    get { time(16, 136) }
    set { setTime(16, 136, newValue) }
  }
  public internal(set) var created: UInt64 {
    get { time(144, 148) }
    set { if extraSize >= 24 { setTime(144, 148, newValue) } }
  }
}

// MARK: Checksum

extension DiskInode {
  private var hasHighChecksum: Bool { extraSize >= 4 }

  func makeSeed(_ layout: Layout) {
    seed = Checksum.crc32c(Checksum.crc32c(layout.checksumSeed, number: number), number: generation)
  }

  /// Of the inode's bytes with the checksum's fields as zeros.
  func computeChecksum() -> UInt32 {
    let (low, high) = (view.u16(124), view.u16(130))
    let hasHigh = hasHighChecksum
    view.set16(124, 0)
    if hasHigh { view.set16(130, 0) }
    let crc = Checksum.crc32c(seed, view)
    view.set16(124, low)
    if hasHigh { view.set16(130, high) }
    return hasHigh ? crc : crc & 0xFFFF
  }

  var checksum: UInt32 {
    get { UInt32(view.u16(124)) | (hasHighChecksum ? UInt32(view.u16(130)) << 16 : 0) }
    set {
      view.set16(124, UInt16(truncatingIfNeeded: newValue))
      if hasHighChecksum { view.set16(130, UInt16(truncatingIfNeeded: newValue >> 16)) }
    }
  }
}
