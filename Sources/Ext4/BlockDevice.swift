public import ABI

/// A disk, or a file that plays one. Offsets and counts are bytes, multiples of 512.
///
/// A write may be lost, or reach the disk after a later one, until `flush` has returned; a sector is written whole or
/// not at all. Calls wait until they are done.
public protocol BlockDevice: AnyObject {
  /// Bytes.
  var size: UInt64 { get }
  var isReadOnly: Bool { get }
  /// Fills `bytes`; EIO.
  func read(_ bytes: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(Errno)
  /// EIO, ENOSPC, EROFS.
  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(Errno)
  /// Returns when every write before it is durable.
  func flush() throws(Errno)
}

/// What the file system cannot know by itself.
public protocol Clock: AnyObject {
  /// Nanoseconds since 1970.
  var realtimeNanoseconds: UInt64 { get }
}

extension Errno {
  /// EUCLEAN: the structure on the disk is damaged.
  public static var damaged: Errno { Errno(rawValue: 117) }
}
