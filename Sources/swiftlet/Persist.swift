import Ext4
import Glibc
import Image
import ImageBuilder

/// What tells an image's root from others.
struct RootIdentity {
  let identity: [UInt8]
  /// Of 4096 bytes.
  let blocks: UInt64

  init(of reader: ImageReader) throws(BuildError) {
    identity = try ImageRoot(reader).fileSystem.identity
    blocks = UInt64(reader.root.count) / 4096
  }
}

/// The file of `--persist`: `FILE`, or `SIZE@FILE` to say how large the root is that it is made for.
struct PersistOption {
  private let file: String
  private let size: UInt64
  private static let usualSize: UInt64 = 8 << 30

  init(_ text: String) throws(BuildError) {
    let halves = text.split(separator: "@", maxSplits: 1).map(String.init)
    if halves.count == 2, halves[0].first?.isNumber == true, let size = VolumeOption.bytes(halves[0]) {
      guard size >= 64 << 20, size <= 1 << 44 else {
        throw BuildError("--persist \(text): the size must be 64m to 16384g")
      }
      self.size = size
      file = halves[1]
    } else {
      size = PersistOption.usualSize
      file = text
    }
    guard !file.isEmpty else { throw BuildError("--persist needs a file") }
  }

  /// Opens the file, which stays open over exec; makes it if there is none. It must belong to the image.
  func open(for root: RootIdentity) throws(BuildError) -> Int32 {
    if access(file, F_OK) != 0 { try make(for: root) }
    let descriptor = Glibc.open(file, O_RDWR)
    guard descriptor >= 0 else {
      throw BuildError("cannot open \(file): \(String(cString: strerror(errno)))")
    }
    guard lock(descriptor, shared: false) else { throw BuildError("\(file) is in use by another run") }
    var status = stat()
    var bytes = [UInt8](repeating: 0, count: LayerHeader.length)
    guard fstat(descriptor, &status) == 0, pread(descriptor, &bytes, bytes.count, 0) >= 0 else {
      throw BuildError("cannot read \(file): \(String(cString: strerror(errno)))")
    }
    let header = try parse(bytes, UInt64(status.st_size))
    guard header.identity == root.identity, header.lowerBlocks == root.blocks else {
      throw BuildError(
        "\(file) keeps the changes of another image, or of this one before it was built anew; use another file"
      )
    }
    return descriptor
  }

  private func parse(_ bytes: [UInt8], _ length: UInt64) throws(BuildError) -> LayerHeader {
    let result: Result<LayerHeader, ImageError> = bytes.withUnsafeBytes { bytes in
      do throws(ImageError) { return .success(try LayerHeader(parsing: bytes, fileLength: length)) } catch {
        return .failure(error)
      }
    }
    switch result {
    case .success(let header): return header
    case .failure(let error): throw BuildError("\(file): \(error.description)")
    }
  }

  private func make(for root: RootIdentity) throws(BuildError) {
    let header = LayerHeader(
      identity: root.identity, lowerBlocks: root.blocks, blocks: root.blocks + size / 4096)
    let bytes = header.serialise()
    // A file without its header must not stay behind.
    let temporary = "\(file).\(getpid())"
    defer { unlink(temporary) }
    let output = HostFile(owning: Glibc.open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600))
    guard output.descriptor >= 0, ftruncate(output.descriptor, off_t(header.fileLength)) == 0,
      pwrite(output.descriptor, bytes, bytes.count, 0) == bytes.count, fsync(output.descriptor) == 0,
      rename(temporary, file) == 0
    else { throw BuildError("cannot make \(file): \(String(cString: strerror(errno)))") }
  }
}
