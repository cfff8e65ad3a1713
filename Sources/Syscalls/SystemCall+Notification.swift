import ABI
import Processes
import Tasks
import VFS

/// inotify(7).
extension SystemCall {
  func inotify_init1() throws(Errno) -> Int {
    let flags = number == 253 ? 0 : unsigned(a)
    guard flags & ~(SystemCall.closesOnExecution | SystemCall.isNonblocking) == 0 else { throw .invalid }
    return try install(
      try Inotify(flags: flags), closes: flags & SystemCall.closesOnExecution != 0)
  }

  func inotify_add_watch() throws(Errno) -> Int {
    let mask = unsigned(c)
    // ALL_INOTIFY_BITS; IN_MASK_ADD (0x20000000) and IN_MASK_CREATE (0x10000000) exclude each other.
    guard mask & 0xf700_efff != 0, mask & 0x3000_0000 != 0x3000_0000 else { throw .invalid }
    guard let instance = try file(int(a)) as? Inotify else { throw .invalid }
    // IN_DONT_FOLLOW, IN_ONLYDIR
    let path = try process.fileSystem.resolve(
      try UserSlice.string(b), followLast: mask & 0x0200_0000 == 0)
    if mask & 0x0100_0000 != 0, !path.inode.isDirectory { throw .notDirectory }
    try process.fileSystem.credentials.check(path.inode, 4)
    return Int(try instance.add(path.inode, mask: mask))
  }

  func inotify_rm_watch() throws(Errno) -> Int {
    guard let instance = try file(int(a)) as? Inotify else { throw .invalid }
    try instance.remove(int(b))
    return 0
  }
}
