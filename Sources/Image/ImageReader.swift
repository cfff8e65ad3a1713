/// Reads an image that lies in memory: what it runs, and where its root file system is. What that holds is not looked
/// at, so reading takes no longer for a big image. The caller keeps the bytes alive and unchanged.
public struct ImageReader {
  public let manifest: Manifest
  /// The root: an ext4 file system.
  public let root: UnsafeRawBufferPointer
  /// Where the root starts in the file, in bytes: a multiple of the page size.
  public let rootOffset: Int

  public init(_ bytes: UnsafeRawBufferPointer) throws(ImageError) {
    let trailer = try Trailer(endOf: bytes)
    guard let root = bytes.slice(trailer.rootOffset, trailer.rootLength),
      let text = bytes.slice(trailer.manifestOffset, trailer.manifestLength)
    else { throw .sectionOutOfBounds }
    var checksum = Checksum()
    checksum.add(text)
    guard checksum.value == trailer.checksum else { throw .wrongChecksum }
    guard root.count >= ImageFormat.leastRoot else { throw .missingRoot }
    self.root = root
    rootOffset = Int(trailer.rootOffset)
    manifest = try Manifest(parsing: text)
  }
}

/// The last 64 bytes of an image.
struct Trailer {
  var rootOffset: UInt64
  var rootLength: UInt64
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
    rootOffset = bytes.load64(start &+ 16)
    rootLength = bytes.load64(start &+ 24)
    manifestOffset = bytes.load64(start &+ 32)
    manifestLength = bytes.load64(start &+ 40)
    checksum = bytes.load64(start &+ 48)
    guard (rootOffset | rootLength) % UInt64(ImageFormat.pageSize) == 0 else { throw .misalignedSection }
    let body = UInt64(start)
    guard rootOffset <= body, rootLength <= body &- rootOffset,
      manifestOffset >= rootOffset &+ rootLength, manifestOffset <= body,
      manifestLength <= body &- manifestOffset
    else { throw .sectionOutOfBounds }
  }
}
