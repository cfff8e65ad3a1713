/// Lays out an image: says where its parts go, and makes what ends it. Where the bytes of the executable and of the root
/// file system come from is the caller's business.
public struct ImageLayout {
  /// Where the root file system goes.
  public let rootOffset: UInt64
  public let rootLength: UInt64
  /// Manifest and trailer: goes to `tailOffset`, and ends the image.
  public let tail: [UInt8]
  public var tailOffset: UInt64 { rootOffset + rootLength }
  public var length: UInt64 { tailOffset + UInt64(tail.count) }

  /// `rootLength` is a multiple of the page size.
  public init(executableLength: UInt64, rootLength: UInt64, manifest: Manifest) {
    rootOffset = UInt64(ImageFormat.roundUpToPage(Int(executableLength)))
    self.rootLength = rootLength
    let text = manifest.serialise()
    var checksum = Checksum()
    text.withUnsafeBytes { checksum.add($0) }
    var bytes = text
    while bytes.count % 8 != 0 { bytes.append(0) }
    bytes.append64(ImageFormat.trailerMagic)
    bytes.append32(ImageFormat.version)
    bytes.append32(0)
    bytes.append64(rootOffset)
    bytes.append64(rootLength)
    bytes.append64(rootOffset + rootLength)
    bytes.append64(UInt64(text.count))
    bytes.append64(checksum.value)
    bytes.append64(0)
    tail = bytes
  }
}

extension [UInt8] {
  mutating func append32(_ value: UInt32) {
    for shift: UInt32 in [0, 8, 16, 24] { append(UInt8(truncatingIfNeeded: value >> shift)) }
  }

  mutating func append64(_ value: UInt64) {
    append32(UInt32(truncatingIfNeeded: value))
    append32(UInt32(truncatingIfNeeded: value >> 32))
  }
}
