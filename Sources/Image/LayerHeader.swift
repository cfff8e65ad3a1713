/// The first 512 bytes of a file of `--persist`: which image it belongs to, and where its parts are. Little endian.
///
///     header (4096) | bitmap of the image's blocks | the root's blocks, sparse
public struct LayerHeader: Equatable {
  /// "SWLTLAYR"
  private static let magic: UInt64 = 0x5259_414c_544c_5753
  public static let length = 512

  /// The UUID of the image's root, which tells images with different bytes apart.
  public var identity: [UInt8]
  /// Blocks of 4096 bytes: of the image, and of the root that it becomes.
  public var lowerBlocks: UInt64
  public var blocks: UInt64
  /// The root was made ready at a first start that came to its end.
  public var isReady = false

  public init(identity: [UInt8], lowerBlocks: UInt64, blocks: UInt64) {
    self.identity = identity
    self.lowerBlocks = lowerBlocks
    self.blocks = blocks
  }

  public var bitmapOffset: UInt64 { 4096 }
  public var dataOffset: UInt64 { 4096 + (lowerBlocks + 32767) / 32768 * 4096 }
  /// Bytes of the file.
  public var fileLength: UInt64 { dataOffset + blocks * 4096 }

  /// Checks everything; `fileLength` is what there is.
  public init(parsing bytes: UnsafeRawBufferPointer, fileLength: UInt64) throws(ImageError) {
    guard bytes.count >= LayerHeader.length, bytes.load64(0) == LayerHeader.magic else { throw .notALayer }
    guard bytes.load32(8) == 1 else { throw .unsupportedVersion }
    var checksum = Checksum()
    checksum.add(UnsafeRawBufferPointer(rebasing: bytes[0..<48]))
    guard bytes.load64(48) == checksum.value else { throw .wrongChecksum }
    isReady = bytes.load32(12) != 0
    identity = Array(bytes[16..<32])
    lowerBlocks = bytes.load64(32)
    blocks = bytes.load64(40)
    guard lowerBlocks > 0, blocks >= lowerBlocks, blocks < 1 << 40, self.fileLength <= fileLength else {
      throw .sectionOutOfBounds
    }
  }

  public func serialise() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append64(LayerHeader.magic)
    bytes.append32(1)
    bytes.append32(isReady ? 1 : 0)
    bytes += identity
    bytes.append64(lowerBlocks)
    bytes.append64(blocks)
    var checksum = Checksum()
    bytes.withUnsafeBytes { checksum.add($0) }
    bytes.append64(checksum.value)
    while bytes.count < LayerHeader.length { bytes.append(0) }
    return bytes
  }
}
