/// One file to be put into an image.
public struct PackedFile {
  /// Relative to the root, without a leading slash; empty for the root directory.
  public var path: Path
  /// Linux st_mode, with the file type.
  public var mode: UInt32
  public var uid: UInt32 = 0
  public var gid: UInt32 = 0
  /// Linux device number, of device files only.
  public var rdev: UInt32 = 0
  /// Nanoseconds since 1970.
  public var modified: UInt64 = 0
  /// Bytes of the file or of the symbolic link's target; 0 for a hard link.
  public var dataLength: UInt64
  /// The earlier file that this one is another name of.
  public var hardLinkIndex: Int?

  /// Extended attributes that a file system keeps (xattr(7)), in the order of their names.
  public var attributes: [(name: [UInt8], value: [UInt8])] = []

  public init(path: Path, mode: UInt32, dataLength: UInt64 = 0) {
    self.path = path
    self.mode = mode
    self.dataLength = dataLength
  }
}
