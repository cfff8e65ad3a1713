/// One file to be put into an archive.
public struct ArchiveFile {
  /// Relative to the root, without a leading slash; empty for the root directory.
  public var path: [UInt8]
  /// Linux st_mode, with the file type.
  public var mode: UInt32
  public var uid: UInt32
  public var gid: UInt32
  public var rdev: UInt32
  public var mtimeSeconds: UInt64
  public var mtimeNanoseconds: UInt32
  /// Bytes of the file or of the symbolic link's target; 0 for a hard link.
  public var dataLength: UInt64
  public var hardLinkIndex: UInt32?

  public init(path: [UInt8], mode: UInt32, dataLength: UInt64 = 0) {
    self.path = path
    self.mode = mode
    uid = 0
    gid = 0
    rdev = 0
    mtimeSeconds = 0
    mtimeNanoseconds = 0
    self.dataLength = dataLength
    hardLinkIndex = nil
  }
}

/// Lays out an image: says where each part goes and makes the parts that are not file data. Where the bytes
/// come from and go to is the caller's business.
public struct ImageLayout {
  /// Header, index and path pool: goes to `archiveOffset`.
  public let archiveIndex: [UInt8]
  /// Where each file's data goes, from the start of the image.
  public let dataOffsets: [UInt64]
  public let archiveOffset: UInt64
  /// Manifest and trailer: goes to `tailOffset`, and ends the image.
  public let tail: [UInt8]
  public let tailOffset: UInt64
  public var length: UInt64 { tailOffset + UInt64(tail.count) }

  /// `files` begin with the root directory and have parents before children.
  public init(executableLength: UInt64, files: [ArchiveFile], manifest: Manifest) throws(ImageError) {
    archiveOffset = UInt64(ImageFormat.roundUpToPage(Int(executableLength)))
    var pool: [UInt8] = []
    for file in files { pool += file.path }
    let indexLength = files.count * ImageFormat.recordLength + pool.count
    guard files.count < Int(ImageFormat.noHardLink), pool.count < Int(UInt32.max) else {
      throw .tooManyEntries
    }

    var index: [UInt8] = []
    index.reserveCapacity(ImageFormat.archiveHeaderLength + indexLength)
    index.append64(ImageFormat.archiveMagic)
    index.append32(UInt32(files.count))
    index.append32(0)
    index.append64(UInt64(indexLength))
    index.append64(0)
    var pathOffset = 0
    var offset = UInt64(ImageFormat.roundUpToPage(ImageFormat.archiveHeaderLength + indexLength))
    var offsets: [UInt64] = []
    for file in files {
      let dataOffset = file.dataLength == 0 ? 0 : offset
      index.appendRecord(file, pathOffset: pathOffset, dataOffset: dataOffset)
      pathOffset += file.path.count
      offsets.append(archiveOffset + dataOffset)
      offset = UInt64(ImageFormat.roundUpToPage(Int(offset + file.dataLength)))
    }
    index += pool

    let text = manifest.serialise()
    var checksum = Checksum()
    text.withUnsafeBytes { checksum.add($0) }
    index.withUnsafeBytes { checksum.add($0) }
    tailOffset = archiveOffset + offset
    tail = makeTail(
      text, archiveOffset: archiveOffset, archiveLength: offset, checksum: checksum.value)
    archiveIndex = index
    dataOffsets = offsets
  }
}

private func makeTail(
  _ manifest: [UInt8], archiveOffset: UInt64, archiveLength: UInt64, checksum: UInt64
) -> [UInt8] {
  var bytes = manifest
  while bytes.count % 8 != 0 { bytes.append(0) }
  bytes.append64(ImageFormat.trailerMagic)
  bytes.append32(ImageFormat.version)
  bytes.append32(0)
  bytes.append64(archiveOffset)
  bytes.append64(archiveLength)
  bytes.append64(archiveOffset + archiveLength)
  bytes.append64(UInt64(manifest.count))
  bytes.append64(checksum)
  bytes.append64(0)
  return bytes
}

extension [UInt8] {
  fileprivate mutating func append32(_ value: UInt32) {
    for shift: UInt32 in [0, 8, 16, 24] { append(UInt8(truncatingIfNeeded: value >> shift)) }
  }

  fileprivate mutating func append64(_ value: UInt64) {
    append32(UInt32(truncatingIfNeeded: value))
    append32(UInt32(truncatingIfNeeded: value >> 32))
  }

  fileprivate mutating func appendRecord(_ file: ArchiveFile, pathOffset: Int, dataOffset: UInt64) {
    append32(UInt32(truncatingIfNeeded: pathOffset))
    append32(UInt32(truncatingIfNeeded: file.path.count))
    append32(file.mode)
    append32(file.uid)
    append32(file.gid)
    append32(file.rdev)
    append64(file.mtimeSeconds)
    append64(dataOffset)
    append64(file.dataLength)
    append32(file.hardLinkIndex ?? ImageFormat.noHardLink)
    append32(file.mtimeNanoseconds)
    append64(0)
  }
}
