import ABI
import Ext4
import Tasks

/// A file of a volume. `status` is kept as the disk's inode has it.
class VolumeInode: Inode {
  let volume: Volume
  let file: DiskInode

  init(_ volume: Volume, _ file: DiskInode) {
    self.volume = volume
    self.file = file
    super.init(status: FileStatus())
    status.device = volume.device
    status.inode = UInt64(file.number)
    status.rawDevice = file.type == 0o020000 || file.type == 0o060000 ? file.device : 0
    status.blockSize = 4096
    status.size = Int64(bitPattern: file.size)
    status.modified = file.modified
    refresh()
  }

  deinit { volume.fileSystem.release(file) }

  /// Takes over what an operation of the library changed.
  func refresh() {
    status.mode = file.mode
    status.links = file.links
    status.user = file.user
    status.group = file.group
    status.accessed = file.accessed
    status.changed = file.changed
    if !isRegular {
      status.size = Int64(bitPattern: file.size)
      status.modified = file.modified
    }
  }

  override func currentStatus() -> FileStatus {
    var result = status
    result.blocks = Int64(truncatingIfNeeded: file.sectors(blockSize: volume.fileSystem.blockSize))
    return result
  }

  private func change(_ attributes: AttributeChange) throws(Errno) {
    try volume.fileSystem.setAttributes(file, attributes)
    refresh()
    volume.changed()
  }

  override func setAttributes(mode: UInt32?, user: UInt32?, group: UInt32?) throws(Errno) {
    var attributes = AttributeChange()
    attributes.mode = mode
    attributes.user = user
    attributes.group = group
    try change(attributes)
  }

  override func setTimes(accessed: UInt64?, modified: UInt64?) throws(Errno) {
    var attributes = AttributeChange()
    attributes.accessed = accessed
    attributes.modified = modified
    try change(attributes)
    if let modified { status.modified = modified }
  }

  override var statistics: FileSystemStatistics? {
    let found = volume.fileSystem.statistics
    var result = FileSystemStatistics()
    result.type = 0xEF53
    result.blockSize = Int64(found.blockSize)
    result.blocks = Int64(found.blocks)
    result.freeBlocks = Int64(found.freeBlocks)
    result.availableBlocks = Int64(found.availableBlocks)
    result.files = Int64(found.inodes)
    result.freeFiles = Int64(found.freeInodes)
    if volume.isVolatile {
      // What can really be written is what memory has left.
      let free = min(result.freeBlocks, Int64(max(0, MemoryLimit.available)))
      result.blocks += free - result.freeBlocks
      result.freeBlocks = free
      result.availableBlocks = min(result.availableBlocks, free)
    }
    result.identifier = found.identifier
    result.flags = volume.isReadOnly ? 0x21 : 0x20
    return result
  }

  override var mayHaveAttributes: Bool { volume.fileSystem.mayHaveAttributes(file) }
  override func extendedAttribute(_ name: [UInt8]) throws(Errno) -> [UInt8] {
    try volume.fileSystem.attribute(name, of: file)
  }
  override func extendedAttributeNames() throws(Errno) -> [[UInt8]] {
    try volume.fileSystem.attributeNames(of: file)
  }
  override func setExtendedAttribute(_ name: [UInt8], _ value: [UInt8]?, flags: UInt32) throws(Errno) {
    try volume.fileSystem.setAttribute(name, value, flags: flags, of: file)
    accessLists = nil
    refresh()
    volume.changed()
  }
  override var hasHandle: Bool { true }
  override func synchronizeFileSystem() throws(Errno) { try volume.synchronize() }
}

/// A symbolic link.
final class VolumeLink: VolumeInode {
  private var target: [UInt8]?

  override func readLink() throws(Errno) -> [UInt8] {
    if let target { return target }
    let found = try volume.fileSystem.readLink(file)
    target = found
    return found
  }
}

/// A device, FIFO or socket.
final class VolumeSpecialFile: VolumeInode {
  private var pipe: Pipe?

  override func open(flags: UInt32) throws(Errno) -> OpenFile {
    switch type {
    case 0o020000: return try DeviceTable.open(self, flags)
    case 0o010000:
      let pipe = self.pipe ?? Pipe()
      self.pipe = pipe
      return try pipe.openFIFO(inode: self, flags: flags)
    default: throw .noSuchDevice
    }
  }
  override func truncate(_ size: Int64) throws(Errno) {}
}
