import ABI
import Tasks

/// A block device of memory, /dev/ram0 (brd in Linux): sparse, so that it costs what is written to it.
final class MemoryDisk: OpenFile {
  static let size: Int64 = 512 << 20
  nonisolated(unsafe) private static var contents: TemporaryFile?

  nonisolated(unsafe) private static var isReadOnly = false
  /// 512-byte sectors.
  nonisolated(unsafe) private static var readAhead: UInt = 256

  private let file: TemporaryFile

  init(_ inode: Inode, flags: UInt32) throws(Errno) {
    if let known = MemoryDisk.contents {
      file = known
    } else {
      file = TemporaryFile(status: TemporaryFileSystem.status(mode: 0o100600, user: 0, group: 0))
      try file.truncate(MemoryDisk.size)
      MemoryDisk.contents = file
    }
    super.init(inode: inode, flags: flags)
  }

  override func read(_ slice: UserSlice) throws(Errno) -> Int {
    advance(by: try file.read(slice, at: offset))
  }

  override func write(_ slice: UserSlice) throws(Errno) -> Int {
    let count = try write(slice, at: offset)
    offset += Int64(count)
    return count
  }

  override func read(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    try file.read(slice, at: offset)
  }

  override func write(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    if MemoryDisk.isReadOnly { throw .notPermitted }
    guard offset >= 0, offset < MemoryDisk.size else { throw .noSpace }
    return try file.write(slice.prefix(Int(min(Int64(slice.count), MemoryDisk.size - offset))), at: offset)
  }

  override func seek(_ offset: Int64, whence: Int32) throws(Errno) -> Int64 {
    let base: Int64
    switch whence {
    case 0: base = 0
    case 1: base = self.offset
    case 2: base = MemoryDisk.size
    default: throw .invalid
    }
    let (place, overflow) = base.addingReportingOverflow(offset)
    guard !overflow, place >= 0, place <= MemoryDisk.size else { throw .invalid }
    self.offset = place
    return place
  }

  override func control(_ request: UInt32, argument: UInt) throws(Errno) -> Int {
    switch request {
    case 0x8008_1272: try UserSlice.store(UInt64(MemoryDisk.size), at: argument)  // BLKGETSIZE64
    case 0x1260: try UserSlice.store(UInt64(MemoryDisk.size / 512), at: argument)  // BLKGETSIZE
    case 0x1268, 0x127b: try UserSlice.store(UInt32(512), at: argument)  // BLKSSZGET, BLKPBSZGET
    case 0x125d:  // BLKROSET
      MemoryDisk.isReadOnly = try UserSlice.load(argument, Int32(0)) != 0
    case 0x125e: try UserSlice.store(Int32(MemoryDisk.isReadOnly ? 1 : 0), at: argument)  // BLKROGET
    case 0x1262: MemoryDisk.readAhead = argument  // BLKRASET, BLKFRASET
    case 0x1264: MemoryDisk.readAhead = argument
    case 0x1263, 0x1265: try UserSlice.store(MemoryDisk.readAhead, at: argument)  // BLKRAGET, BLKFRAGET
    case 0x1261: break  // BLKFLSBUF
    default: throw .notTerminal
    }
    return 0
  }

  override func synchronize() throws(Errno) {}
}
