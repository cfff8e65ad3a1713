import ABI
import Processes
import Tasks
import VFS

/// chmod(2), chown(2), utimensat(2), truncate(2) and their relatives.
extension SystemCall {
  private func described(_ descriptor: Int32) throws(Errno) -> Path {
    let file = try file(descriptor)
    return file.path ?? Path(inode: file.inode, name: [], parent: nil)
  }

  /// utimensat(2) without a name means the descriptor; EFAULT when that is none but the working directory.
  private func describedWithoutName() throws(Errno) -> Path {
    guard int(a) != SystemCall.workingDirectory else { throw .badAddress }
    return try described(int(a))
  }

  func chmod() throws(Errno) -> Int {
    try process.fileSystem.changeMode(
      try place(SystemCall.workingDirectory, a, flags: 0), unsigned(b) & 0o7777)
    return 0
  }

  func fchmod() throws(Errno) -> Int {
    try process.fileSystem.changeMode(try described(int(a)), unsigned(b) & 0o7777)
    return 0
  }

  func fchmodat() throws(Errno) -> Int {
    try process.fileSystem.changeMode(try place(int(a), b, flags: 0), unsigned(c) & 0o7777)
    return 0
  }

  func fchmodat2() throws(Errno) -> Int {
    guard unsigned(d) & ~0x1100 == 0 else { throw .invalid }
    let path = try place(int(a), b, flags: unsigned(d))
    if path.inode.isSymlink { throw .notSupported }
    try process.fileSystem.changeMode(path, unsigned(c) & 0o7777)
    return 0
  }

  private func own(_ path: Path, _ user: UInt, _ group: UInt) throws(Errno) -> Int {
    try process.fileSystem.changeOwner(
      path, user: unsigned(user) == .max ? nil : unsigned(user),
      group: unsigned(group) == .max ? nil : unsigned(group))
    return 0
  }

  func chown() throws(Errno) -> Int { try own(try place(SystemCall.workingDirectory, a, flags: 0), b, c) }
  func lchown() throws(Errno) -> Int {
    try own(try place(SystemCall.workingDirectory, a, flags: 0x100), b, c)
  }
  func fchown() throws(Errno) -> Int { try own(try described(int(a)), b, c) }
  func fchownat() throws(Errno) -> Int {
    guard unsigned(e) & ~0x1100 == 0 else { throw .invalid }
    return try own(try place(int(a), b, flags: unsigned(e)), c, d)
  }

  // MARK: Times

  /// nil leaves a time; `isNow`: both are the present, which anybody who may write can set (utimensat(2)).
  private func setTimes(_ path: Path, _ accessed: UInt64?, _ modified: UInt64?, isNow: Bool) throws(Errno)
    -> Int
  {
    try MountTable.checkWritable(path)
    let credentials = process.fileSystem.credentials
    if !credentials.isPrivileged, credentials.user != path.inode.status.user {
      guard isNow else { throw .notPermitted }
      try credentials.check(path.inode, 2)
    }
    try path.inode.setTimes(accessed: accessed, modified: modified)
    FileNotification.tell(.attributes, path, path.inode)
    return 0
  }

  private func nanoseconds(_ seconds: Int64, _ fraction: Int64) -> UInt64 {
    // Times before the epoch are kept as the epoch.
    guard seconds >= 0 else { return 0 }
    return UInt64(min(seconds, 18_000_000_000)) * 1_000_000_000 + UInt64(fraction)
  }

  func utimensat() throws(Errno) -> Int {
    guard unsigned(d) & ~0x1100 == 0 else { throw .invalid }
    let now = host.realtimeNanoseconds
    var values: (UInt64?, UInt64?) = (now, now)
    var isNow = true
    if c != 0 {
      let times = try UserSlice.load(c, (Int64(0), Int64(0), Int64(0), Int64(0)))
      isNow = times.1 == 0x3fff_ffff && times.3 == 0x3fff_ffff
      values.0 = try time(times.0, times.1, now)
      values.1 = try time(times.2, times.3, now)
      if values.0 == nil, values.1 == nil { return 0 }
    }
    // A null name means the descriptor's file (futimens(3)).
    let path = b == 0 ? try describedWithoutName() : try place(int(a), b, flags: unsigned(d))
    return try setTimes(path, values.0, values.1, isNow: isNow)
  }

  private func time(_ seconds: Int64, _ fraction: Int64, _ now: UInt64) throws(Errno) -> UInt64? {
    switch fraction {
    case 0x3fff_ffff: return now
    case 0x3fff_fffe: return nil
    case 0..<1_000_000_000: return nanoseconds(seconds, fraction)
    default: throw .invalid
    }
  }

  private func setTimes(_ path: Path, microsecondsAt address: UInt) throws(Errno) -> Int {
    let now = host.realtimeNanoseconds
    guard address != 0 else { return try setTimes(path, now, now, isNow: true) }
    let times = try UserSlice.load(address, (Int64(0), Int64(0), Int64(0), Int64(0)))
    guard (0..<1_000_000).contains(times.1), (0..<1_000_000).contains(times.3) else { throw .invalid }
    return try setTimes(
      path, nanoseconds(times.0, times.1 * 1000), nanoseconds(times.2, times.3 * 1000), isNow: false)
  }

  func utimes() throws(Errno) -> Int {
    try setTimes(try place(SystemCall.workingDirectory, a, flags: 0), microsecondsAt: b)
  }

  func futimesat() throws(Errno) -> Int {
    let path = b == 0 ? try describedWithoutName() : try place(int(a), b, flags: 0)
    return try setTimes(path, microsecondsAt: c)
  }

  func utime() throws(Errno) -> Int {
    let path = try place(SystemCall.workingDirectory, a, flags: 0)
    let now = host.realtimeNanoseconds
    guard b != 0 else { return try setTimes(path, now, now, isNow: true) }
    let times = try UserSlice.load(b, (Int64(0), Int64(0)))
    return try setTimes(path, nanoseconds(times.0, 0), nanoseconds(times.1, 0), isNow: false)
  }

  // MARK: Sizes

  func truncate() throws(Errno) -> Int {
    guard Int64(bitPattern: UInt64(b)) >= 0 else { throw .invalid }
    let path = try place(SystemCall.workingDirectory, a, flags: 0)
    if path.inode.isDirectory { throw .isDirectory }
    guard path.inode.isRegular else { throw .invalid }
    try MountTable.checkWritable(path)
    try process.fileSystem.credentials.check(path.inode, 2)
    if path.inode.status.mode & 0o111 != 0, FileSystemContext.isExecuted?(path.inode) == true {
      throw .textBusy
    }
    try path.inode.truncate(Int64(b))
    FileNotification.tell(.modify, path, path.inode)
    return 0
  }

  func ftruncate() throws(Errno) -> Int {
    guard Int64(bitPattern: UInt64(b)) >= 0 else { throw .invalid }
    let file = try file(int(a))
    guard file.isWritable, file.inode.isRegular else { throw .invalid }
    try file.inode.truncate(Int64(b))
    FileNotification.tell(.modify, file)
    return 0
  }

  func fallocate() throws(Errno) -> Int {
    let file = try writable(int(a))
    if file.inode.type == 0o010000 { throw .illegalSeek }
    let inode = file.inode
    guard inode.isRegular else { throw .operationNotOnDevice }
    let (offset, length) = (Int64(bitPattern: UInt64(c)), Int64(bitPattern: UInt64(d)))
    guard offset >= 0, length > 0 else { throw .invalid }
    guard offset < 1 << 43, length < 1 << 43 else { throw .fileTooLarge }
    // FALLOC_FL_PUNCH_HOLE wants FALLOC_FL_KEEP_SIZE; FALLOC_FL_ZERO_RANGE is for volumes only; collapsing, inserting
    // and the like are not there.
    guard [0, 1, 3, 0x10, 0x11].contains(unsigned(b)) else { throw .notSupported }
    if unsigned(b) == 3, offset >= inode.status.size { return 0 }
    try inode.allocate(mode: unsigned(b), offset: offset, length: length)
    return 0
  }
}
