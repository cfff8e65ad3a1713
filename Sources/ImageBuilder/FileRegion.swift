import ABI
import Ext4
import Glibc

/// Part of a file of this machine, as a disk: where an image's root file system is made. Nothing need be durable: the
/// file gets its name when it is complete.
final class FileRegion: BlockDevice {
  private let descriptor: Int32
  private let start: UInt64
  let size: UInt64
  let isReadOnly = false

  /// The descriptor stays the caller's, open for reading and writing.
  init(descriptor: Int32, start: UInt64, size: UInt64) {
    self.descriptor = descriptor
    self.start = start
    self.size = size
  }

  func read(_ bytes: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(Errno) {
    try transfer(bytes.count, offset) { done, place in
      pread(descriptor, bytes.baseAddress.map { $0 + done }, bytes.count - done, place)
    }
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(Errno) {
    try transfer(bytes.count, offset) { done, place in
      pwrite(descriptor, bytes.baseAddress.map { $0 + done }, bytes.count - done, place)
    }
  }

  private func transfer(_ count: Int, _ offset: UInt64, _ call: (Int, off_t) -> Int) throws(Errno) {
    guard offset <= size, UInt64(count) <= size - offset else { throw .inputOutput }
    var done = 0
    while done < count {
      let part = call(done, off_t(start + offset) + off_t(done))
      if part < 0, errno == EINTR { continue }
      guard part > 0 else { throw part < 0 ? Errno(rawValue: errno) : .inputOutput }
      done += part
    }
  }

  func flush() throws(Errno) {}
}

/// Time stands still, so that equal files give equal images.
final class ImageClock: Clock {
  /// Not 0, which file systems take for "never".
  static let seconds: UInt64 = 1
  var realtimeNanoseconds: UInt64 { ImageClock.seconds * 1_000_000_000 }
}
