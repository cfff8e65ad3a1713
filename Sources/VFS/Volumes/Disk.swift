import ABI
public import Ext4
public import Tasks

/// A disk of the host, as ext4 sees it.
public final class Disk: BlockDevice {
  private let number: Int
  public let size: UInt64
  public let isReadOnly: Bool

  public init(number: Int, isReadOnly: Bool) {
    self.number = number
    self.isReadOnly = isReadOnly
    size = host.diskSize(number)
  }

  public func read(_ bytes: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(Errno) {
    try host.readDisk(number, at: offset, bytes)
  }

  public func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(Errno) {
    guard !isReadOnly else { throw .readOnlyFileSystem }
    try host.writeDisk(number, at: offset, bytes)
  }

  public func flush() throws(Errno) { try host.flushDisk(number, unlocked: false) }
  public func flushUnlocked() throws(Errno) { try host.flushDisk(number, unlocked: true) }
  public func discard(at offset: UInt64, count: UInt64) {
    if !isReadOnly { host.discardDisk(number, at: offset, count: count) }
  }
}

/// The host's wall clock.
final class HostClock: Clock {
  var realtimeNanoseconds: UInt64 { host.realtimeNanoseconds }
}
