/// Constants of the image file:
///
///     ELF executable | root file system (ext4, blocks of `pageSize`) | manifest | trailer
///
/// All integers are little endian. The root starts at a multiple of `pageSize`, so that the libOS can map file data
/// straight from the image.
public enum ImageFormat {
  public static let pageSize = 4096
  public static let version: UInt32 = 2

  /// "SWIFTLET"
  static let trailerMagic: UInt64 = 0x5445_4c54_4649_5753
  static let trailerLength = 64
  /// Less is no file system.
  static let leastRoot = 64 * 1024

  /// PATH_MAX without the terminating zero (limits.h).
  static let longestPath = 4095

  /// Rounds up to a page; callers have bounded `offset` already.
  static func roundUpToPage(_ offset: Int) -> Int { (offset &+ (pageSize &- 1)) & ~(pageSize &- 1) }
}

/// The file type bits of st_mode (inode(7)).
public enum FileType {
  public static let mask: UInt32 = 0o170000
  public static let socket: UInt32 = 0o140000
  public static let symbolicLink: UInt32 = 0o120000
  public static let regular: UInt32 = 0o100000
  public static let blockDevice: UInt32 = 0o060000
  public static let directory: UInt32 = 0o040000
  public static let characterDevice: UInt32 = 0o020000
  public static let pipe: UInt32 = 0o010000
}

/// FNV-1a, 64 bit (RFC 9923): finds damage, not malice.
struct Checksum {
  private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325

  mutating func add(_ bytes: UnsafeRawBufferPointer) {
    var hash = value
    for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    value = hash
  }
}

extension UnsafeRawBufferPointer {
  /// Reads a little-endian integer; the caller has checked the bounds.
  func load32(_ offset: Int) -> UInt32 {
    UInt32(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  /// Reads a little-endian integer; the caller has checked the bounds.
  func load64(_ offset: Int) -> UInt64 {
    UInt64(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  /// The bytes from `offset`, or nil if they do not lie inside this buffer.
  func slice(_ offset: UInt64, _ length: UInt64) -> UnsafeRawBufferPointer? {
    let total = UInt64(count)
    guard offset <= total, length <= total &- offset else { return nil }
    return UnsafeRawBufferPointer(rebasing: self[Int(offset)..<Int(offset &+ length)])
  }
}
