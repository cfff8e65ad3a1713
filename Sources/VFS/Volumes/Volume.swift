public import ABI
public import Ext4
public import Tasks

/// A mounted ext4 file system and its files in use. Kernel lock held for every call.
public final class Volume {
  let fileSystem: FileSystem
  /// st_dev of its files.
  let device: UInt64
  /// Files in use or lately used, by number. Files without a name are only kept by who uses them.
  private var inodes: [UInt32: VolumeInode] = [:]
  private var mostInodes = 8192
  private var inodesBeforeTrim = 8192
  /// The image's disk, where this is the root: pages of files that did not change are shown straight from the image.
  let image: LayeredDisk?
  /// Nothing outlives the run: there is nowhere to write back to, and what was written stays in memory as it is.
  let isVolatile: Bool

  nonisolated(unsafe) public private(set) static var mounted: [Volume] = []
  nonisolated(unsafe) private static var timer: VolumeTimer?
  /// How long data and metadata stay in memory only, as ext4's commit interval: 5 s.
  private static let interval: UInt64 = 5_000_000_000

  /// Mounts what is on `disk`.
  public init(_ disk: any BlockDevice, isReadOnly: Bool) throws(MountError) {
    image = nil
    isVolatile = false
    fileSystem = try FileSystem.mount(disk, clock: HostClock(), readOnly: isReadOnly)
    device = Volume.nextDevice
    enter()
  }

  /// Mounts the root. A volatile one is made larger first, to have room for what memory holds and for many small files.
  public init(root disk: LayeredDisk) throws(MountError) {
    fileSystem = try FileSystem.mount(disk, clock: HostClock())
    image = fileSystem.blockSize == BlockLayer.blockBytes ? disk : nil
    isVolatile = disk.isVolatile
    if isVolatile {
      do throws(Errno) { try fileSystem.grow(to: disk.size / UInt64(fileSystem.blockSize)) } catch {
        throw MountError(error, "making room in it")
      }
    }
    device = Volume.nextDevice
    enter()
  }

  /// Readies a root that is to be kept, at its first start: as large as its disk, and with a journal. Everything is on
  /// the disk when this returns.
  public static func prepare(root disk: LayeredDisk) throws(MountError) {
    let fileSystem = try FileSystem.mount(disk, clock: HostClock())
    do throws(Errno) {
      try fileSystem.grow(to: disk.size / UInt64(fileSystem.blockSize))
      try fileSystem.addJournal(blocks: 4096)
      try fileSystem.unmount()
    } catch { throw MountError(error, "making room in it") }
  }

  /// Major number 254, as Linux's virtual disks have.
  private static var nextDevice: UInt64 { 254 << 8 | UInt64(mounted.count) }

  private func enter() {
    // Metadata in memory is a copy of what is on the disk: a 32nd of memory at most.
    fileSystem.cacheLimit = min(8192, max(64, frames.totalFrames / 32))
    mostInodes = fileSystem.cacheLimit
    inodesBeforeTrim = mostInodes
    Volume.mounted.append(self)
    MemoryLimit.reclaim = Volume.reclaim
  }

  var isReadOnly: Bool { fileSystem.isReadOnly }

  public func root() throws(Errno) -> Inode { try inode(FileSystem.rootNumber) }

  // MARK: Files in use

  func inode(_ number: UInt32) throws(Errno) -> VolumeInode {
    if let inode = inodes[number] { return inode }
    return adopt(try fileSystem.inode(number))
  }

  /// The object for a file that the library gave, held.
  func adopt(_ file: DiskInode) -> VolumeInode {
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

  /// A file has a name again.
  func keep(_ inode: VolumeInode) { inodes[inode.file.number] = inode }

  /// A file lost its last name: it goes with its last user.
  func forget(_ inode: VolumeInode) { inodes[inode.file.number] = nil }

  private func trim() {
    guard inodes.count >= inodesBeforeTrim else { return }
    for inode in inodes.values { (inode as? VolumeDirectory)?.forgetNames() }
    for number in Array(inodes.keys) where number != FileSystem.rootNumber {
      guard var inode = inodes.removeValue(forKey: number) else { continue }
      if isKnownUniquelyReferenced(&inode), (inode as? VolumeFile)?.mayBeDirty != true { continue }
      inodes[number] = inode
    }
    inodesBeforeTrim = max(mostInodes, inodes.count + inodes.count / 2)
  }

  // MARK: Durability

  /// Something changed: it is written back within the interval.
  func changed() {
    guard !isVolatile else { return }
    if Volume.timer == nil { Volume.timer = VolumeTimer() }
    if let timer = Volume.timer, !timer.isArmed { timer.arm(host.monotonicNanoseconds + Volume.interval) }
  }

  /// Writes all files' data and commits. Every file is tried; the first error.
  public func synchronize() throws(Errno) {
    guard !isReadOnly, !isVolatile else { return }
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
      if !volume.isVolatile {
        try? volume.synchronize()
        try? volume.fileSystem.unmount()
      }
      // Files keep their volume.
      for inode in volume.inodes.values { (inode as? VolumeDirectory)?.forgetNames() }
      volume.inodes = [:]
    }
    mounted = []
  }

  /// ioctl(2) of any file: FITRIM, which passes free blocks on to the device. The caller has checked that the program may.
  func control(_ request: UInt32, argument: UInt) throws(Errno) -> Int {
    guard request == 0xc018_5879 else { throw .notTerminal }
    guard !isReadOnly else { throw .readOnlyFileSystem }
    let (start, length, least) = try UserSlice.load(argument, (UInt64(0), UInt64(0), UInt64(0)))
    let trimmed = try fileSystem.trim(from: start, length: length, atLeast: least)
    try UserSlice.store((start, trimmed, least), at: argument)
    return 0
  }

  // MARK: Memory

  /// Pages of all files in memory that wait to be written, and those in memory at all.
  nonisolated(unsafe) static var dirtyPages = 0
  nonisolated(unsafe) static var cachedPages = 0
  nonisolated(unsafe) private static var isReclaiming = false

  /// Pages of files in memory that a device holds or will hold: in all, and those that can be given up at once.
  public static var cache: (pages: Int, clean: Int) {
    var result = (pages: 0, clean: 0)
    for volume in mounted where !volume.isVolatile {
      for inode in volume.inodes.values {
        guard let file = inode as? VolumeFile else { continue }
        result.pages += file.pages.count
        if file.mappings == 0, !file.isShared { result.clean += file.pages.count - file.dirty.count }
      }
    }
    return result
  }

  /// Bytes that wait to be written to a device.
  public static var dirtyBytes: UInt64 { UInt64(max(0, dirtyPages)) << 12 }

  func countDirty(_ pages: Int) { if !isVolatile { Volume.dirtyPages += pages } }

  /// Before something is added to a volatile file system: room for the metadata, which stays in memory too, and for the
  /// libOS's own tables. ENOSPC.
  func checkRoom() throws(Errno) {
    guard isVolatile else { return }
    // Taking away what is there takes memory at first, too.
    try checkMemory(fileSystem.pendingBlocks + max(64, frames.totalFrames / 64))
    let own = inodes.count + 1 >= inodes.capacity ? inodes.capacity * 2 * 24 : 0
    let growth = max(own, fileSystem.nextGrowth)
    guard growth > 4096 else { return }
    do throws(Errno) { try MemoryLimit.checkHeap(bytes: growth) } catch { throw .noSpace }
  }

  /// Room in memory for `count` pages of files. A volatile file system is full when memory is: ENOSPC; ENOMEM.
  func checkMemory(_ count: Int) throws(Errno) {
    do throws(Errno) { try MemoryLimit.check(count) } catch { throw isVolatile ? .noSpace : error }
  }

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
          if writes, !volume.isVolatile { try? file.writeBack() }
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
