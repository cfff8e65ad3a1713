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
  /// `flush`, during which a lock that keeps others from the file system may be given up.
  func flushUnlocked() throws(Errno)
  /// Whether blocks are to be given to `discard` as soon as they are free for good.
  var wantsDiscards: Bool { get }
  /// Nobody needs these bytes any more: what is read there from now on is not defined.
  func discard(at offset: UInt64, count: UInt64)
}

extension BlockDevice {
  public func flushUnlocked() throws(Errno) { try flush() }
  public var wantsDiscards: Bool { false }
  public func discard(at offset: UInt64, count: UInt64) {}
}

/// A file system in memory that is only read.
public final class MappedDevice: BlockDevice {
  private let bytes: UnsafeRawBufferPointer

  /// The caller keeps the bytes alive and unchanged.
  public init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  public var size: UInt64 { UInt64(bytes.count) }
  public var isReadOnly: Bool { true }

  public func read(_ target: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(Errno) {
    guard offset <= size, UInt64(target.count) <= size - offset else { throw .inputOutput }
    target.copyMemory(
      from: UnsafeRawBufferPointer(rebasing: bytes[Int(offset)..<Int(offset) + target.count]))
  }
  public func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(Errno) {
    throw .readOnlyFileSystem
  }
  public func flush() throws(Errno) {}
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
