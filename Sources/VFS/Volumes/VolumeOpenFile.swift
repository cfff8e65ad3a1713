import ABI
import Tasks

/// A regular file of a volume in use.
final class VolumeOpenFile: OpenFile {
  private let file: VolumeFile
  /// The errors of writing back that this descriptor has told of.
  private var failuresSeen: Int

  init(inode: VolumeFile, flags: UInt32) {
    file = inode
    failuresSeen = inode.failures
    super.init(inode: inode, flags: flags)
  }

  override func read(_ slice: UserSlice) throws(Errno) -> Int {
    advance(by: try read(slice, at: offset))
  }

  override func read(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    guard offset >= 0 else { throw .invalid }
    guard isDirect else { return try file.read(slice, at: offset) }
    try checkAligned(slice, offset)
    return try file.readDirectly(slice, at: offset)
  }

  /// O_DIRECT: past the cache. Where there is no device behind it, memory is where the data belongs.
  private var isDirect: Bool { flags & 0o40000 != 0 && !file.volume.isVolatile }

  /// Offset, length and address in units of the device's sectors (open(2)). EINVAL.
  private func checkAligned(_ slice: UserSlice, _ offset: Int64) throws(Errno) {
    guard (UInt(truncatingIfNeeded: offset) | UInt(slice.count) | slice.address) & 511 == 0 else {
      throw .invalid
    }
  }

  override func write(_ slice: UserSlice) throws(Errno) -> Int {
    if flags & 0o2000 != 0 { offset = file.status.size }
    return advance(by: try put(slice, at: offset))
  }

  override func write(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    guard offset >= 0 else { throw .invalid }
    return try put(slice, at: flags & 0o2000 != 0 ? file.status.size : offset)
  }

  /// O_DSYNC and O_SYNC make each write durable.
  private func put(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    let count: Int
    if isDirect {
      try checkAligned(slice, offset)
      count = try file.writeDirectly(slice, at: offset)
    } else {
      count = try file.write(slice, at: offset)
    }
    if flags & 0o10000 != 0 { try synchronize(dataOnly: flags & 0o4000000 == 0) }
    return count
  }

  override func control(_ request: UInt32, argument: UInt) throws(Errno) -> Int {
    try file.volume.control(request, argument: argument)
  }

  override func seek(_ offset: Int64, whence: Int32) throws(Errno) -> Int64 {
    guard whence == 3 || whence == 4 else { return try move(offset, whence, end: file.status.size) }
    // SEEK_DATA, SEEK_HOLE
    self.offset = try file.seek(hole: whence == 4, from: offset)
    return self.offset
  }

  override func synchronize() throws(Errno) { try synchronize(dataOnly: false) }

  override func synchronizeData() throws(Errno) { try synchronize(dataOnly: true) }

  /// An error since this descriptor last asked is told once, wherever it happened.
  private func synchronize(dataOnly: Bool) throws(Errno) {
    try? file.synchronize(dataOnly: dataOnly)
    guard file.failures != failuresSeen, let failure = file.lastFailure else { return }
    failuresSeen = file.failures
    throw failure
  }
}
