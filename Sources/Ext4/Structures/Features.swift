/// Feature bits of the superblock (ext4(5); Documentation/filesystems/ext4/super.rst).
enum Feature {
  // Compatible: safe to ignore.
  static let journal: UInt32 = 0x4
  static let directoryIndex: UInt32 = 0x20
  static let sparseSuper2: UInt32 = 0x200
  // Incompatible: unknown ones refuse the mount.
  static let fileType: UInt32 = 0x2
  static let recover: UInt32 = 0x4
  static let metaBlockGroups: UInt32 = 0x10
  static let extents: UInt32 = 0x40
  static let wide: UInt32 = 0x80
  static let flexibleGroups: UInt32 = 0x200
  static let checksumSeed: UInt32 = 0x2000
  static let largeDirectory: UInt32 = 0x4000
  static let knownIncompatible: UInt32 = 0x62d6
  // Compatible for reading: unknown ones allow a read-only mount.
  static let sparseSuper: UInt32 = 0x1
  static let hugeFile: UInt32 = 0x8
  static let groupChecksum: UInt32 = 0x10
  static let bigAllocation: UInt32 = 0x200
  static let metadataChecksum: UInt32 = 0x400
  static let knownReadOnlyCompatible: UInt32 = 0x247b

  /// The field's names of incompatible features that this library does not know.
  private static let names: [(UInt32, StaticString)] = [
    (0x1, "compression"), (0x8, "journal_dev"), (0x100, "mmp"), (0x400, "ea_inode"), (0x1000, "dirdata"),
    (0x8000, "inline_data"), (0x10000, "encrypt"), (0x20000, "casefold"),
  ]

  static func name(ofUnknown incompatible: UInt32) -> StaticString {
    for (bit, name) in names where incompatible & bit != 0 { return name }
    return "an unknown incompatible feature"
  }
}
