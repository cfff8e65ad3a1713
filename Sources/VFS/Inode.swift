public import ABI
import Tasks

/// What stat(2) tells of a file.
public struct FileStatus {
  public var device: UInt64 = 0
  public var inode: UInt64 = 0
  public var mode: UInt32 = 0
  public var links: UInt32 = 1
  public var user: UInt32 = 0
  public var group: UInt32 = 0
  /// Device number of a device file.
  public var rawDevice: UInt64 = 0
  public var size: Int64 = 0
  public var blockSize: Int32 = 4096
  /// 512-byte units.
  public var blocks: Int64 = 0
  /// Nanoseconds since the epoch.
  public var accessed: UInt64 = 0
  public var modified: UInt64 = 0
  public var changed: UInt64 = 0
  public init() {}
}

/// What statfs(2) tells of a file system; the counts of blocks are of `blockSize` bytes.
public struct FileSystemStatistics {
  public var type: Int64 = 0
  public var blockSize: Int64 = 4096
  public var blocks: Int64 = 0
  public var freeBlocks: Int64 = 0
  public var availableBlocks: Int64 = 0
  public var files: Int64 = 0
  public var freeFiles: Int64 = 0
  public var identifier: UInt64 = 0
  public var flags: Int64 = 0
  public init() {}
}

/// A file of a file system: regular file, directory, symbolic link, device, FIFO or socket.
///
/// One object a file while it is in use. Kernel lock held for every call. Permission checks are the caller's (path
/// walk); these calls do the work. Directory calls on anything else give ENOTDIR.
open class Inode {
  public final var status: FileStatus
  /// Locks of fcntl(2), made when the first is asked for.
  public final var recordLocks: RecordLocks?
  /// Locks of flock(2), which know nothing of the others.
  public final var fileLocks: RecordLocks?

  /// What lies over it (mount(2)), and how many mounts have it as their root.
  final var mountedRoot: Inode?
  final var rootMounts = 0
  /// Who is told what happens to it (inotify(7)).
  final var watches: [FileWatch]?
  /// Extended attributes by name (xattr(7)).
  public final var extendedAttributes: [[UInt8]: [UInt8]]?
  /// Access control lists as they were read last; nil: not yet.
  final var accessLists: (access: AccessList?, initial: AccessList?)?
  /// False if it surely has no extended attributes.
  open var mayHaveAttributes: Bool { extendedAttributes != nil }
  /// Open files that refer to it: a file without names lives as long as one does.
  public final private(set) var opens = 0
  /// Those that may write.
  public final private(set) var writers = 0
  /// O_TMPFILE without O_EXCL: the file may be given a name (linkat(2)).
  public final var isLinkable = false
  /// A lease (fcntl(2), F_SETLEASE): 0 read, 1 write, and the open file that holds it.
  public final var leaseKind: Int32 = 2
  public final var leaseHolder: ObjectIdentifier?

  public init(status: FileStatus) { self.status = status }

  final func opened(by file: OpenFile) {
    opens += 1
    if file.isWritable { writers += 1 }
  }

  final func closed(by file: OpenFile) {
    opens -= 1
    if file.isWritable { writers -= 1 }
    if leaseHolder == ObjectIdentifier(file) { leaseHolder = nil }
    if let waiter = file.asynchronous {
      waiter.queue?.remove(waiter)
      file.asynchronous = nil
    }
    file.directoryWatch = nil
    guard FileNotification.isWanted else { return }
    if file.flags & 0o10000000 == 0 {
      FileNotification.tell(file.isWritable ? .closeWritten : .closeUnwritten, file)
    }
    if status.links == 0, opens == 0 { FileNotification.tellGone(self) }
  }

  public final var type: UInt32 { status.mode & 0o170000 }
  public final var isDirectory: Bool { type == 0o040000 }
  public final var isRegular: Bool { type == 0o100000 }
  public final var isSymlink: Bool { type == 0o120000 }

  /// stat(2): subclasses that compute sizes override it.
  open func currentStatus() -> FileStatus { status }

  // Directories.
  open func lookup(_ name: [UInt8]) throws(Errno) -> Inode { throw .notDirectory }
  /// Makes a file of `mode` (type and permissions); `device` for device files, `target` for symbolic links.
  open func create(
    _ name: [UInt8], mode: UInt32, user: UInt32, group: UInt32, device: UInt64, target: [UInt8]
  )
    throws(Errno) -> Inode
  { throw .notDirectory }
  open func link(_ name: [UInt8], to inode: Inode) throws(Errno) { throw .notDirectory }
  /// Removes a name; a directory must be empty and `directory` true (rmdir).
  open func unlink(_ name: [UInt8], directory: Bool) throws(Errno) { throw .notDirectory }
  open func rename(_ name: [UInt8], to newParent: Inode, as newName: [UInt8], flags: UInt32) throws(Errno) {
    throw .notDirectory
  }
  open func readLink() throws(Errno) -> [UInt8] { throw .invalid }
  /// O_TMPFILE of open(2): a file without a name in this directory's file system. EOPNOTSUPP.
  open func createUnnamed(mode: UInt32, user: UInt32, group: UInt32) throws(Errno) -> Inode {
    throw .notSupported
  }
  /// The names in a directory, without `.` and `..`.
  open func children() throws(Errno) -> [[UInt8]] { [] }
  /// The process whose /proc/PID this is: pidfd_send_signal(2) takes such a directory for it.
  open func processNumber() throws(Errno) -> Int32 { throw .badFileDescriptor }
  /// Whether name_to_handle_at(2) works: its file system finds files by number.
  open var hasHandle: Bool { TemporaryFileSystem.owns(status.device) }

  // All.
  open func setAttributes(mode: UInt32?, user: UInt32?, group: UInt32?) throws(Errno) {
    if let mode { status.mode = type | (mode & 0o7777) }
    if let user { status.user = user }
    if let group { status.group = group }
    status.changed = host.realtimeNanoseconds
  }
  open func setTimes(accessed: UInt64?, modified: UInt64?) throws(Errno) {
    if let accessed { status.accessed = accessed }
    if let modified { status.modified = modified }
    status.changed = host.realtimeNanoseconds
  }
  open func truncate(_ size: Int64) throws(Errno) { throw .invalid }
  /// fallocate(2); EOPNOTSUPP for modes that the file system does not know.
  open func allocate(mode: UInt32, offset: Int64, length: Int64) throws(Errno) { throw .operationNotOnDevice }
  /// The file system's own figures; nil where there are none.
  open var statistics: FileSystemStatistics? { nil }
  /// What a file's mappings changed becomes durable (msync(2)).
  open func synchronizeContents() throws(Errno) {}
  /// syncfs(2)
  open func synchronizeFileSystem() throws(Errno) {}

  // Extended attributes (xattr(7)), by their full names. ENODATA.
  open func extendedAttribute(_ name: [UInt8]) throws(Errno) -> [UInt8] {
    guard let value = extendedAttributes?[name] else { throw .noData }
    return value
  }
  open func extendedAttributeNames() throws(Errno) -> [[UInt8]] { Array((extendedAttributes ?? [:]).keys) }
  /// Removes the attribute where `value` is nil. `flags`: 1 XATTR_CREATE, 2 XATTR_REPLACE.
  open func setExtendedAttribute(_ name: [UInt8], _ value: [UInt8]?, flags: UInt32) throws(Errno) {
    var attributes = extendedAttributes ?? [:]
    let isKnown = attributes[name] != nil
    if flags & 1 != 0, isKnown { throw .fileExists }
    if !isKnown, value == nil || flags & 2 != 0 { throw .noData }
    attributes[name] = value
    extendedAttributes = attributes
    accessLists = nil
  }
  /// Opens the file (permissions checked, O_CREAT, O_EXCL and O_TRUNC already dealt with).
  open func open(flags: UInt32) throws(Errno) -> OpenFile { throw .noSuchDevice }

  // Regular files whose contents are frames of the arena: what mmap(2) maps.
  /// The arena offset of the frame that holds page `index`, made if there is none; nil if the file is not mappable.
  open func frame(page index: Int) throws(Errno) -> UInt? { nil }
  /// Where in the image file page `index` lies, unchanged since; nil if it is not (or no longer) there.
  open func imageOffset(page index: Int) -> UInt? { nil }
  /// Mappings that show this file; frames must stay while it is not 0.
  public final var mappings = 0
  /// Some program may write to the frames through a shared mapping.
  public final var isShared = false
  /// Called after a mapped file became shorter: mappings show nothing behind its end (SIGBUS).
  nonisolated(unsafe) public static var wasTruncated: ((Inode) -> Void)? = nil
}
