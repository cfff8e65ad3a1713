import ABI
import Processes
import Tasks
import VFS

/// `struct stat` of x86-64 (asm/stat.h), 144 bytes.
struct LinuxStatus: BitwiseCopyable {
  var device: UInt64 = 0
  var inode: UInt64 = 0
  var links: UInt64 = 0
  var mode: UInt32 = 0
  var user: UInt32 = 0
  var group: UInt32 = 0
  var padding: UInt32 = 0
  var rawDevice: UInt64 = 0
  var size: Int64 = 0
  var blockSize: Int64 = 0
  var blocks: Int64 = 0
  var accessed = LinuxTime()
  var modified = LinuxTime()
  var changed = LinuxTime()
  var reserved: (Int64, Int64, Int64) = (0, 0, 0)

  init(_ status: FileStatus) {
    device = status.device
    inode = status.inode
    links = UInt64(status.links)
    mode = status.mode
    user = status.user
    group = status.group
    rawDevice = LinuxStatus.spread(status.rawDevice)
    size = status.size
    blockSize = Int64(status.blockSize)
    blocks = status.blocks
    accessed = LinuxTime(nanoseconds: status.accessed)
    modified = LinuxTime(nanoseconds: status.modified)
    changed = LinuxTime(nanoseconds: status.changed)
  }

  /// The program's form of a device number (makedev(3)): minor numbers past 255 have their upper bits on top.
  static func spread(_ number: UInt64) -> UInt64 { number }
}

/// `struct timespec`.
struct LinuxTime: BitwiseCopyable {
  var seconds: Int64 = 0
  var nanoseconds: Int64 = 0
  init() {}
  init(nanoseconds value: UInt64) {
    seconds = Int64(value / 1_000_000_000)
    nanoseconds = Int64(value % 1_000_000_000)
  }
}

/// `struct statx_timestamp`.
struct ExtendedTime: BitwiseCopyable {
  var seconds: Int64 = 0
  var nanoseconds: UInt32 = 0
  var reserved: Int32 = 0
  init(_ value: UInt64) {
    seconds = Int64(value / 1_000_000_000)
    nanoseconds = UInt32(value % 1_000_000_000)
  }
}

/// `struct statx` (linux/stat.h), 256 bytes.
struct ExtendedStatus: BitwiseCopyable {
  /// STATX_BASIC_STATS
  var mask: UInt32 = 0x17ff
  var blockSize: UInt32
  var attributes: UInt64 = 0
  var links: UInt32
  var user: UInt32
  var group: UInt32
  var mode: UInt16
  var padding: UInt16 = 0
  var inode: UInt64
  var size: UInt64
  var blocks: UInt64
  var attributesMask: UInt64 = 0
  var accessed: ExtendedTime
  var born = ExtendedTime(0)
  var changed: ExtendedTime
  var modified: ExtendedTime
  var rawDeviceMajor: UInt32
  var rawDeviceMinor: UInt32
  var deviceMajor: UInt32
  var deviceMinor: UInt32
  var mount: UInt64 = 0
  var directAlignment: UInt64 = 0
  var reserved:
    (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) =
      (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

  init(_ status: FileStatus) {
    blockSize = UInt32(bitPattern: status.blockSize)
    links = status.links
    user = status.user
    group = status.group
    mode = UInt16(truncatingIfNeeded: status.mode)
    inode = status.inode
    size = UInt64(bitPattern: status.size)
    blocks = UInt64(bitPattern: status.blocks)
    accessed = ExtendedTime(status.accessed)
    changed = ExtendedTime(status.changed)
    modified = ExtendedTime(status.modified)
    rawDeviceMajor = UInt32(truncatingIfNeeded: status.rawDevice >> 8)
    rawDeviceMinor = UInt32(truncatingIfNeeded: status.rawDevice & 0xff)
    deviceMajor = UInt32(truncatingIfNeeded: status.device >> 8)
    deviceMinor = UInt32(truncatingIfNeeded: status.device & 0xff)
  }
}

/// stat(2), access(2), statfs(2) and their relatives.
extension SystemCall {
  /// The file that a descriptor and a name mean, by the flags AT_SYMLINK_NOFOLLOW (0x100) and AT_EMPTY_PATH (0x1000).
  func place(_ descriptor: Int32, _ address: UInt, flags: UInt32) throws(Errno) -> Path {
    let context: FileSystemContext = process.fileSystem
    let name = address == 0 && flags & 0x1000 != 0 ? [] : try UserSlice.string(address)
    if name.isEmpty, flags & 0x1000 != 0 {
      if descriptor == SystemCall.workingDirectory { return context.workingDirectory }
      let file = try description(descriptor)
      return file.path ?? Path(inode: file.inode, name: [], parent: nil)
    }
    return try context.resolve(name, at: try start(descriptor, name), followLast: flags & 0x100 == 0)
  }

  private func status(_ descriptor: Int32, _ address: UInt, _ target: UInt, _ flags: UInt32) throws(Errno)
    -> Int
  {
    // The C library's fstat(3): an empty name.
    if flags & 0x1000 != 0, descriptor >= 0, address != 0, try UserSlice.load(address, UInt8(0)) == 0 {
      try UserSlice.store(LinuxStatus(try description(descriptor).inode.currentStatus()), at: target)
      return 0
    }
    let path = try place(descriptor, address, flags: flags)
    try UserSlice.store(LinuxStatus(path.inode.currentStatus()), at: target)
    return 0
  }

  func stat() throws(Errno) -> Int { try status(SystemCall.workingDirectory, a, b, 0) }
  func lstat() throws(Errno) -> Int { try status(SystemCall.workingDirectory, a, b, 0x100) }

  func fstat() throws(Errno) -> Int {
    try UserSlice.store(LinuxStatus(try description(int(a)).inode.currentStatus()), at: b)
    return 0
  }

  func newfstatat() throws(Errno) -> Int {
    // AT_NO_AUTOMOUNT (0x800) says nothing here.
    guard unsigned(d) & ~0x1900 == 0 else { throw .invalid }
    return try status(int(a), b, c, unsigned(d))
  }

  func statx() throws(Errno) -> Int {
    // AT_STATX_SYNC_TYPE (0x6000): at most one of its bits.
    guard unsigned(c) & ~0x7900 == 0, unsigned(c) & 0x6000 != 0x6000, unsigned(d) & 0x8000_0000 == 0 else {
      throw .invalid
    }
    let path = try place(int(a), b, flags: unsigned(c))
    var status = ExtendedStatus(path.inode.currentStatus())
    // STATX_ATTR_MOUNT_ROOT; mounts have the numbers that /proc/PID/mountinfo gives them.
    status.attributesMask = 0x2000
    if MountTable.mount(at: path) != nil { status.attributes = 0x2000 }
    status.mount = UInt64(MountTable.mount(of: path)?.identifier ?? 0)
    try UserSlice.store(status, at: e)
    return 0
  }

  /// faccessat2(2): the real ids decide unless AT_EACCESS (0x200) is given.
  private func access(_ descriptor: Int32, _ address: UInt, _ mode: UInt32, _ flags: UInt32) throws(Errno)
    -> Int
  {
    guard mode & ~7 == 0, flags & ~0x1300 == 0 else { throw .invalid }
    let path = try place(descriptor, address, flags: flags)
    guard mode != 0 else { return 0 }
    var credentials = process.fileSystem.credentials
    if flags & 0x200 == 0 {
      credentials.user = process.credentials.realUser
      credentials.group = process.credentials.realGroup
    }
    try credentials.check(path.inode, mode)
    let isSpecial = path.inode.type == 0o020000 || path.inode.type == 0o060000 || path.inode.type == 0o010000
    if mode & 2 != 0, !isSpecial { try MountTable.checkWritable(path) }
    // MS_NOEXEC
    if mode & 1 != 0, path.inode.isRegular, MountTable.flags(path) & 8 != 0 { throw .accessDenied }
    return 0
  }

  func access() throws(Errno) -> Int { try access(SystemCall.workingDirectory, a, unsigned(b), 0) }
  func faccessat() throws(Errno) -> Int { try access(int(a), b, unsigned(c), 0) }
  func faccessat2() throws(Errno) -> Int { try access(int(a), b, unsigned(c), unsigned(d)) }

  // MARK: statfs(2)

  private func store(_ s: FileSystemStatistics, flags: UInt32, at target: UInt) throws(Errno) {
    let head: (Int64, Int64, Int64, Int64, Int64, Int64, Int64) = (
      s.type, s.blockSize, s.blocks, s.freeBlocks, s.availableBlocks, s.files, s.freeFiles
    )
    let tail: (UInt64, Int64, Int64, Int64, Int64, Int64, Int64, Int64) = (
      s.identifier, 255, s.blockSize, Int64(flags) | s.flags, 0, 0, 0, 0
    )
    try UserSlice.store(head, at: target)
    try UserSlice.store(tail, at: target &+ 56)
  }

  private func store(_ inode: Inode, flags: UInt32 = 0, at target: UInt) throws(Errno) {
    if let statistics = inode.statistics { return try store(statistics, flags: flags, at: target) }
    let device = inode.status.device
    // f_type: TMPFS_MAGIC, PROC_SUPER_MAGIC has its own device, PIPEFS_MAGIC for what has no name.
    let type: Int64 =
      switch device {
      case _ where TemporaryFileSystem.owns(device): 0x0102_1994
      case 0xd: 0x5049_5045
      case 0x15: 0x6265_6572  // SYSFS_MAGIC
      case PseudoTerminalDirectory.device: 0x1cd1
      default: 0x9fa0
      }
    let isMemory = TemporaryFileSystem.owns(device)
    let total = isMemory ? Int64(frames.totalFrames) : 0
    let free = isMemory ? Int64(frames.freeFrames) : 0
    let head: (Int64, Int64, Int64, Int64, Int64, Int64, Int64) = (type, 4096, total, free, free, total, free)
    // f_fsid, f_namelen, f_frsize, f_flags, f_spare
    let tail: (UInt64, Int64, Int64, Int64, Int64, Int64, Int64, Int64) = (
      device, 255, 4096, Int64(0x20 | flags), 0, 0, 0, 0
    )
    try UserSlice.store(head, at: target)
    try UserSlice.store(tail, at: target &+ 56)
  }

  func statfs() throws(Errno) -> Int {
    let path = try process.fileSystem.resolve(try UserSlice.string(a))
    try store(path.inode, flags: MountTable.flags(path), at: b)
    return 0
  }

  func fstatfs() throws(Errno) -> Int {
    let file = try description(int(a))
    try store(file.inode, flags: file.path.map { MountTable.flags($0) } ?? 0, at: b)
    return 0
  }
}
