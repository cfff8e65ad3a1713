public import ABI
public import Ext4
public import Tasks

/// A mounted ext4 file system and its files in use. Kernel lock held for every call.
public final class Volume {
  let fileSystem: FileSystem
  /// st_dev of its files.
  let device: UInt64
  /// Files in use or lately used, by number. Files without a name are only kept by who uses them.
  private var inodes: [UInt32: Inode] = [:]
  private static let mostInodes = 8192
  private var inodesBeforeTrim = mostInodes

  nonisolated(unsafe) public private(set) static var mounted: [Volume] = []
  nonisolated(unsafe) private static var timer: VolumeTimer?
  /// How long data and metadata stay in memory only, as ext4's commit interval: 5 s.
  private static let interval: UInt64 = 5_000_000_000

  /// Mounts what is on `disk`.
  public init(_ disk: any BlockDevice, isReadOnly: Bool) throws(MountError) {
    fileSystem = try FileSystem.mount(disk, clock: HostClock(), readOnly: isReadOnly)
    // Major number 254, as Linux's virtual disks have.
    device = 254 << 8 | UInt64(Volume.mounted.count)
    Volume.mounted.append(self)
    MemoryLimit.reclaim = Volume.reclaim
  }

  var isReadOnly: Bool { fileSystem.isReadOnly }

  public func root() throws(Errno) -> Inode { try inode(FileSystem.rootNumber) }

  // MARK: Files in use

  func inode(_ number: UInt32) throws(Errno) -> Inode {
    if let inode = inodes[number] { return inode }
    return adopt(try fileSystem.inode(number))
  }

  /// The object for a file that the library gave, held.
  func adopt(_ file: DiskInode) -> Inode {
    trim()
    let inode: VolumeInode =
      switch file.type {
      case 0o100000: VolumeFile(self, file)
      case 0o040000: VolumeDirectory(self, file)
      case 0o120000: VolumeLink(self, file)
      default: VolumeSpecialFile(self, file)
      }
    inodes[file.number] = inode
    return inode
  }

  /// A file lost its last name: it goes with its last user.
  func forget(_ inode: VolumeInode) { inodes[inode.file.number] = nil }

  private func trim() {
    guard inodes.count >= inodesBeforeTrim else { return }
    for number in Array(inodes.keys) where number != FileSystem.rootNumber {
      guard var inode = inodes.removeValue(forKey: number) else { continue }
      if isKnownUniquelyReferenced(&inode), (inode as? VolumeFile)?.isDirty != true { continue }
      inodes[number] = inode
    }
    inodesBeforeTrim = max(Volume.mostInodes, inodes.count + inodes.count / 2)
  }

  // MARK: Durability

  /// Something changed: it is written back within the interval.
  func changed() {
    if Volume.timer == nil { Volume.timer = VolumeTimer() }
    if let timer = Volume.timer, !timer.isArmed { timer.arm(host.monotonicNanoseconds + Volume.interval) }
  }

  /// Writes all files' data and commits. Every file is tried; the first error.
  public func synchronize() throws(Errno) {
    guard !isReadOnly else { return }
    var failure: Errno?
    for inode in Array(inodes.values) {
      guard let file = inode as? VolumeFile, file.mayBeDirty else { continue }
      do throws(Errno) { try file.writeBack() } catch { failure = failure ?? error }
    }
    do throws(Errno) { try fileSystem.synchronize() } catch { failure = failure ?? error }
    if let failure { throw failure }
  }

  /// sync(2): what fails is told by fsync(2) of the files.
  public static func synchronizeAll() {
    for volume in mounted { try? volume.synchronize() }
  }

  /// At the end of the unikernel: leaves the volumes clean.
  public static func unmountAll() {
    for volume in mounted {
      try? volume.synchronize()
      try? volume.fileSystem.unmount()
    }
    mounted = []
  }

  // MARK: Memory

  /// Pages of all files in memory that wait to be written, and those in memory at all.
  nonisolated(unsafe) static var dirtyPages = 0
  nonisolated(unsafe) static var cachedPages = 0
  nonisolated(unsafe) private static var isReclaiming = false

  /// A writer that makes this many pages dirty writes its own back: an eighth of memory.
  static var mostDirtyPages: Int { frames.totalFrames / 8 }

  /// Gives up cached pages until `count` frames are free; dirty ones are written first if there is no other way.
  static func reclaim(_ count: Int) {
    guard !isReclaiming, cachedPages > 0 else { return }
    isReclaiming = true
    defer { isReclaiming = false }
    let goal = frames.freeFrames + count + 256
    for writes in [false, true] {
      for volume in mounted {
        for inode in volume.inodes.values {
          guard frames.freeFrames < goal else { return }
          guard let file = inode as? VolumeFile else { continue }
          if writes { try? file.writeBack() }
          file.dropClean()
        }
      }
    }
  }
}

/// Writes back what has waited long enough.
private final class VolumeTimer: Timer {
  override func fire(now: UInt64) { Volume.synchronizeAll() }
}
