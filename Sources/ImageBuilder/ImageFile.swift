import Glibc
import Image

/// Writes image files.
public struct ImageFile {
  private let root: RootFileSystem
  private let layout: ImageLayout
  private let executable: MappedFile

  /// `libOS` is the path of the libOS executable.
  public init(libOS: Path, files: FileCollection, manifest: Manifest) throws(BuildError) {
    executable = try MappedFile(libOS)
    guard ELFFile.hasMagic(executable.bytes) else {
      throw BuildError("the libOS \(libOS.text) is not an ELF file; build it with: make build")
    }
    root = try RootFileSystem(files)
    layout = ImageLayout(
      executableLength: UInt64(executable.bytes.count), rootLength: root.length, manifest: manifest)
  }

  public var length: UInt64 { layout.length }

  /// Writes the image to a new file that replaces `path` only when it is complete.
  public func write(to path: Path) throws(BuildError) {
    let temporary = path + Path(".\(getpid()).tmp")
    let descriptor = temporary.withCString { open($0, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o755) }
    guard descriptor >= 0 else { throw .system("create", temporary) }
    let output = HostFile(owning: descriptor)
    do throws(BuildError) {
      try write(descriptor: output.descriptor, path)
      // The image is executable whatever the umask says.
      guard fchmod(output.descriptor, 0o755) == 0 else { throw .system("make executable", path) }
      let renamed = temporary.withCString { from in path.withCString { rename(from, $0) } }
      guard renamed == 0 else { throw .system("create", path) }
    } catch {
      _ = temporary.withCString { unlink($0) }
      throw error
    }
  }

  /// Writes the image to an empty file, open for reading and writing. `path` is for messages.
  public func write(descriptor: Int32, _ path: Path) throws(BuildError) {
    guard ftruncate(descriptor, off_t(layout.length)) == 0 else { throw .system("write", path) }
    try writeAll(executable.bytes, at: 0, descriptor, path)
    if let segment = RootSegment(
      executable.bytes, offset: layout.rootOffset, length: layout.length - layout.rootOffset)
    {
      try write(segment.header, at: segment.headerOffset, descriptor, path)
    }
    try root.write(descriptor: descriptor, at: layout.rootOffset)
    try write(layout.tail, at: layout.tailOffset, descriptor, path)
  }

  private func write(_ bytes: [UInt8], at offset: UInt64, _ descriptor: Int32, _ path: Path)
    throws(BuildError)
  {
    let failure: BuildError? = bytes.withUnsafeBytes { buffer in
      do throws(BuildError) {
        try writeAll(buffer, at: offset, descriptor, path)
        return nil
      } catch { return error }
    }
    if let failure { throw failure }
  }

  private func writeAll(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, _ descriptor: Int32, _ path: Path
  ) throws(BuildError) {
    var done = 0
    while done < bytes.count {
      guard let start = bytes.baseAddress else { return }
      let written = pwrite(descriptor, start + done, bytes.count - done, off_t(offset) + off_t(done))
      if written < 0 && errno == EINTR { continue }
      guard written > 0 else { throw .system("write", path) }
      done += written
    }
  }
}

func currentDirectory() -> Path {
  withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { buffer in
    guard let text = getcwd(buffer.baseAddress, buffer.count) else { return [Path.slash] }
    return Path(String(cString: text))
  }
}
