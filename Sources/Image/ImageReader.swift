/// One file of an image. The buffers point into the image and live as long as it.
public struct ImageEntry {
  /// Relative to the root, without a leading slash; empty for the root directory itself.
  public let path: UnsafeRawBufferPointer
  /// Linux st_mode, with the file type.
  public let mode: UInt32
  public let uid: UInt32
  public let gid: UInt32
  /// Linux device number, of device files only.
  public let rdev: UInt32
  /// Seconds since 1970.
  public let mtimeSeconds: UInt64
  public let mtimeNanoseconds: UInt32
  /// The content of a regular file (page-aligned in the image) or the target of a symbolic link.
  public let data: UnsafeRawBufferPointer
  /// Where `data` starts in the image, in bytes.
  public let dataOffset: UInt64
  /// The index of the earlier entry that is the same file, if this one is a hard link; it has no data of its
  /// own.
  public let hardLinkIndex: Int?

  public var fileType: UInt32 { mode & FileType.mask }
}

/// Reads an image that lies in memory. `init` checks everything once, so that access afterwards cannot fail.
/// The caller keeps the bytes alive and unchanged.
public struct ImageReader {
  public let manifest: Manifest
  public let entryCount: Int
  /// Where the archive starts in the file, in bytes: a multiple of the page size.
  public let archiveOffset: Int
  private let archive: UnsafeRawBufferPointer
  private let paths: UnsafeRawBufferPointer

  public init(_ bytes: UnsafeRawBufferPointer) throws(ImageError) {
    let trailer = try Trailer(endOf: bytes)
    guard let archive = bytes.slice(trailer.archiveOffset, trailer.archiveLength),
      let text = bytes.slice(trailer.manifestOffset, trailer.manifestLength)
    else { throw .sectionOutOfBounds }
    guard archive.count >= ImageFormat.archiveHeaderLength,
      archive.load64(0) == ImageFormat.archiveMagic, archive.load32(12) == 0, archive.load64(24) == 0
    else { throw .notAnArchive }
    let count = Int(archive.load32(8))
    let indexLength = archive.load64(16)
    let header = UInt64(ImageFormat.archiveHeaderLength)
    guard let index = archive.slice(header, indexLength) else { throw .indexOutOfBounds }
    let recordsLength = count &* ImageFormat.recordLength
    guard recordsLength <= index.count else { throw .tooManyEntries }

    var checksum = Checksum()
    checksum.add(text)
    checksum.add(UnsafeRawBufferPointer(rebasing: archive[0..<(Int(header) &+ index.count)]))
    guard checksum.value == trailer.checksum else { throw .wrongChecksum }

    self.archive = archive
    self.archiveOffset = Int(trailer.archiveOffset)
    self.entryCount = count
    self.paths = UnsafeRawBufferPointer(rebasing: index[recordsLength...])
    self.manifest = try Manifest(parsing: text)
    try ArchiveCheck(archive: archive, paths: paths, count: count).run()
  }

  /// The entry at `index`, which must be in `0..<entryCount`. Entry 0 is the root directory; parents come
  /// before their children.
  public func entry(_ index: Int) -> ImageEntry {
    precondition(index >= 0 && index < entryCount)
    let record = Record(archive: archive, index: index)
    let link = record.hardLinkIndex
    return ImageEntry(
      path: record.path(in: paths) ?? UnsafeRawBufferPointer(start: nil, count: 0), mode: record.mode,
      uid: record.uid, gid: record.gid, rdev: record.rdev, mtimeSeconds: record.mtimeSeconds,
      mtimeNanoseconds: record.mtimeNanoseconds,
      data: archive.slice(record.dataOffset, record.dataLength)
        ?? UnsafeRawBufferPointer(start: nil, count: 0),
      dataOffset: UInt64(archiveOffset) &+ record.dataOffset,
      hardLinkIndex: link == ImageFormat.noHardLink ? nil : Int(link))
  }
}

/// The last 64 bytes of an image.
struct Trailer {
  var archiveOffset: UInt64
  var archiveLength: UInt64
  var manifestOffset: UInt64
  var manifestLength: UInt64
  var checksum: UInt64

  /// Parses the trailer; the sections it names lie before it and do not overlap.
  init(endOf bytes: UnsafeRawBufferPointer) throws(ImageError) {
    guard bytes.count >= ImageFormat.trailerLength else { throw .tooShort }
    let start = bytes.count &- ImageFormat.trailerLength
    guard bytes.load64(start) == ImageFormat.trailerMagic else { throw .notAnImage }
    guard bytes.load32(start &+ 8) == ImageFormat.version else { throw .unsupportedVersion }
    guard bytes.load32(start &+ 12) == 0, bytes.load64(start &+ 56) == 0 else { throw .unknownFlags }
    archiveOffset = bytes.load64(start &+ 16)
    archiveLength = bytes.load64(start &+ 24)
    manifestOffset = bytes.load64(start &+ 32)
    manifestLength = bytes.load64(start &+ 40)
    checksum = bytes.load64(start &+ 48)
    guard archiveOffset % UInt64(ImageFormat.pageSize) == 0 else { throw .misalignedSection }
    let body = UInt64(start)
    guard archiveOffset <= body, archiveLength <= body &- archiveOffset,
      manifestOffset >= archiveOffset &+ archiveLength, manifestOffset <= body,
      manifestLength <= body &- manifestOffset
    else { throw .sectionOutOfBounds }
  }
}

/// A view of one index record; the record itself lies inside the archive.
struct Record {
  private let archive: UnsafeRawBufferPointer
  private let offset: Int

  init(archive: UnsafeRawBufferPointer, index: Int) {
    self.archive = archive
    offset = ImageFormat.archiveHeaderLength &+ index &* ImageFormat.recordLength
  }

  var pathOffset: UInt32 { archive.load32(offset) }
  var pathLength: UInt32 { archive.load32(offset &+ 4) }
  var mode: UInt32 { archive.load32(offset &+ 8) }
  var uid: UInt32 { archive.load32(offset &+ 12) }
  var gid: UInt32 { archive.load32(offset &+ 16) }
  var rdev: UInt32 { archive.load32(offset &+ 20) }
  var mtimeSeconds: UInt64 { archive.load64(offset &+ 24) }
  var dataOffset: UInt64 { archive.load64(offset &+ 32) }
  var dataLength: UInt64 { archive.load64(offset &+ 40) }
  var hardLinkIndex: UInt32 { archive.load32(offset &+ 48) }
  var mtimeNanoseconds: UInt32 { archive.load32(offset &+ 52) }
  var reserved: UInt64 { archive.load64(offset &+ 56) }

  func path(in paths: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
    paths.slice(UInt64(pathOffset), UInt64(pathLength))
  }
}
