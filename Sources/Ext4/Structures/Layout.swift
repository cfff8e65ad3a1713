import ABI

/// Geometry that does not change while the file system is mounted, checked once: later code divides by it.
struct Layout {
  var blockSize = 1024
  var blocks: UInt64 = 0
  var firstDataBlock: UInt64 = 0
  var blocksPerGroup: UInt64 = 8192
  var inodesPerGroup: UInt32 = 8
  var inodes: UInt32 = 0
  var inodeSize: UInt32 = 128
  var firstInode: UInt32 = 11
  var descriptorSize = 32
  var groups = 0
  var compatible: UInt32 = 0
  var incompatible: UInt32 = 0
  var readOnlyCompatible: UInt32 = 0
  var reservedDescriptorBlocks: UInt64 = 0
  var firstMetaGroup: UInt64 = 0
  var backupGroups: (UInt32, UInt32) = (0, 0)
  var flexibleGroupBits: UInt8 = 0
  var checksumSeed: UInt32 = 0
  var uuid: [UInt8] = []

  func has(incompatible feature: UInt32) -> Bool { incompatible & feature != 0 }
  func has(readOnlyCompatible feature: UInt32) -> Bool { readOnlyCompatible & feature != 0 }
  var hasChecksums: Bool { has(readOnlyCompatible: Feature.metadataChecksum) }
  var hasGroupChecksums: Bool { hasChecksums || has(readOnlyCompatible: Feature.groupChecksum) }
  var descriptorsPerBlock: Int { blockSize / descriptorSize }
  var descriptorBlocks: Int { (groups + descriptorsPerBlock - 1) / descriptorsPerBlock }

  /// Reads and checks the superblock; the 1024 bytes at byte 1024 of the device.
  init(superblock s: ByteView, deviceSize: UInt64) throws(MountError) {
    guard s.u16(56) == 0xEF53 else { throw MountError(.invalid, "no ext4 file system") }
    let isDynamic = s.u32(76) != 0
    compatible = isDynamic ? s.u32(92) : 0
    incompatible = isDynamic ? s.u32(96) : 0
    readOnlyCompatible = isDynamic ? s.u32(100) : 0
    let unknown = incompatible & ~Feature.knownIncompatible
    guard unknown == 0 else { throw MountError(.notSupported, Feature.name(ofUnknown: unknown)) }
    guard !has(readOnlyCompatible: Feature.bigAllocation) else { throw MountError(.notSupported, "bigalloc") }
    if hasChecksums {
      guard s.u8(373) == 1 else { throw MountError(.notSupported, "the checksum type") }
      guard Checksum.crc32c(~0, s.part(0, 1020)) == s.u32(1020) else {
        throw MountError(.badMessage, "the superblock's checksum")
      }
    }
    uuid = s.bytes(104, 16)
    checksumSeed =
      has(incompatible: Feature.checksumSeed) ? s.u32(624) : Checksum.crc32c(~0, s.part(104, 16))
    try readSizes(s, isDynamic: isDynamic)
    try readGroups(s, deviceSize: deviceSize)
  }

  private mutating func readSizes(_ s: ByteView, isDynamic: Bool) throws(MountError) {
    guard s.u32(24) <= 2 else { throw MountError(.notSupported, "blocks of more than 4096 bytes") }
    blockSize = 1024 << Int(s.u32(24))
    guard s.u32(28) == s.u32(24) else { throw MountError(.damaged, "the cluster size") }
    inodeSize = isDynamic ? UInt32(s.u16(88)) : 128
    guard inodeSize >= 128, Int(inodeSize) <= blockSize, inodeSize & (inodeSize - 1) == 0 else {
      throw MountError(.damaged, "the inode size")
    }
    firstInode = isDynamic ? s.u32(84) : 11
    guard firstInode >= 11 else { throw MountError(.damaged, "the first inode") }
    if has(incompatible: Feature.wide) {
      descriptorSize = Int(s.u16(254))
      guard descriptorSize >= 64, descriptorSize <= blockSize, descriptorSize & (descriptorSize - 1) == 0
      else {
        throw MountError(.damaged, "the group descriptor size")
      }
    }
    reservedDescriptorBlocks = UInt64(s.u16(206))
    firstMetaGroup = UInt64(s.u32(260))
    backupGroups = (s.u32(588), s.u32(592))
    flexibleGroupBits = s.u8(372)
    guard flexibleGroupBits < 32 else { throw MountError(.damaged, "the flexible group size") }
  }

  private mutating func readGroups(_ s: ByteView, deviceSize: UInt64) throws(MountError) {
    blocks = UInt64(s.u32(4))
    if has(incompatible: Feature.wide) { blocks |= UInt64(s.u32(336)) << 32 }
    firstDataBlock = UInt64(s.u32(20))
    blocksPerGroup = UInt64(s.u32(32))
    inodesPerGroup = s.u32(40)
    inodes = s.u32(0)
    guard blocks <= deviceSize / UInt64(blockSize) else {
      throw MountError(.damaged, "a device that is too small")
    }
    guard firstDataBlock == (blockSize == 1024 ? 1 : 0), firstDataBlock < blocks else {
      throw MountError(.damaged, "the first data block")
    }
    guard blocksPerGroup >= 256, blocksPerGroup <= UInt64(blockSize * 8), blocksPerGroup & 7 == 0 else {
      throw MountError(.damaged, "the blocks of a group")
    }
    let perBlock = UInt32(blockSize) / inodeSize
    guard inodesPerGroup >= perBlock, inodesPerGroup <= UInt32(blockSize * 8), inodesPerGroup & 7 == 0 else {
      throw MountError(.damaged, "the inodes of a group")
    }
    let count = (blocks - firstDataBlock + blocksPerGroup - 1) / blocksPerGroup
    // 2^19 groups are 64 TiB of 4096-byte blocks.
    guard count <= 1 << 19, count * UInt64(inodesPerGroup) == UInt64(inodes) else {
      throw MountError(.damaged, "the number of groups or inodes")
    }
    groups = Int(count)
  }

  func firstBlock(ofGroup group: Int) -> UInt64 { firstDataBlock &+ UInt64(group) &* blocksPerGroup }

  func blocks(inGroup group: Int) -> Int { Int(min(blocksPerGroup, blocks - firstBlock(ofGroup: group))) }

  func group(of block: UInt64) -> Int { Int((block &- firstDataBlock) / blocksPerGroup) }

  var inodeTableBlocks: UInt64 {
    (UInt64(inodesPerGroup) * UInt64(inodeSize) + UInt64(blockSize) - 1) / UInt64(blockSize)
  }

  /// Whether the group starts with a copy of the superblock (sparse_super: 0, 1 and powers of 3, 5 and 7).
  func hasSuperblock(_ group: Int) -> Bool {
    if group == 0 { return true }
    if compatible & Feature.sparseSuper2 != 0 {
      return group == Int(backupGroups.0) || group == Int(backupGroups.1)
    }
    if group == 1 || !has(readOnlyCompatible: Feature.sparseSuper) { return true }
    if group & 1 == 0 { return false }
    for base in [3, 5, 7] {
      var power = base
      while power < group { power *= base }
      if power == group { return true }
    }
    return false
  }

  /// Blocks of the superblock's copy and the descriptors at the start of a group.
  func headBlocks(ofGroup group: Int) -> UInt64 {
    let hasSuper = hasSuperblock(group)
    let metaGroup = UInt64(group / descriptorsPerBlock)
    if !has(incompatible: Feature.metaBlockGroups) || metaGroup < firstMetaGroup {
      guard hasSuper else { return 0 }
      let old = has(incompatible: Feature.metaBlockGroups) ? firstMetaGroup : UInt64(descriptorBlocks)
      return 1 + old + reservedDescriptorBlocks
    }
    let place = group % descriptorsPerBlock
    let holds = place == 0 || place == 1 || place == descriptorsPerBlock - 1
    return (hasSuper ? 1 : 0) + (holds ? 1 : 0)
  }

  /// Where block `index` of the group descriptors is.
  func descriptorBlock(_ index: Int) -> UInt64 {
    if !has(incompatible: Feature.metaBlockGroups) || UInt64(index) < firstMetaGroup {
      return firstDataBlock + 1 + UInt64(index)
    }
    let group = index * descriptorsPerBlock
    return firstBlock(ofGroup: group) + (hasSuperblock(group) ? 1 : 0)
  }
}
