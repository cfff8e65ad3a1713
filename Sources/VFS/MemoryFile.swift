public import ABI
import Tasks

/// memfd_create(2): a file of memory that no directory names.
public enum MemoryFile {
  /// `name` is what /proc/PID/fd shows behind `memfd:`.
  public static func make(name: [UInt8], root: Path, user: UInt32, group: UInt32, seals: UInt32) throws(Errno)
    -> OpenFile
  {
    let inode = try TemporaryFileSystem.make(
      mode: 0o100777, user: user, group: group, device: 0, target: [])
    inode.status.links = 0
    if let file = inode as? TemporaryFile { file.seals = seals }
    let file = try inode.open(flags: 2)
    file.path = Path(inode: inode, name: bytes("memfd:") + name + bytes(" (deleted)"), parent: root)
    return file
  }
}
