import CHostCommand
import Glibc
import Image
import ImageBuilder

/// A volume of `-v`: `FILE:PATH[:ro]`, `SIZE@FILE:PATH` to make FILE if there is none, or `DIR:PATH:ro` to pack a
/// directory at start.
struct VolumeOption {
  private let source: String
  private let path: String
  private let isReadOnly: Bool
  /// Bytes of the file to make.
  private let size: UInt64?

  init(_ text: String) throws(BuildError) {
    let fault = BuildError("-v \(text): write FILE:PATH, SIZE@FILE:PATH or DIR:PATH:ro, PATH absolute")
    var parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    var readOnly = false
    if parts.count > 2, let option = parts.last, option == "ro" || option == "rw" {
      readOnly = option == "ro"
      parts.removeLast()
    }
    guard parts.count >= 2, let path = parts.popLast(), path.hasPrefix("/"), path.utf8.count > 1 else {
      throw fault
    }
    let source = parts.joined(separator: ":")
    guard !source.isEmpty else { throw fault }
    let halves = source.split(separator: "@", maxSplits: 1).map(String.init)
    if halves.count == 2, halves[0].first?.isNumber == true, let size = VolumeOption.bytes(halves[0]) {
      guard size >= 1 << 20, size <= 1 << 44 else {
        throw BuildError("-v \(text): the size must be 1m to 16384g")
      }
      self.size = size
      self.source = halves[1]
    } else {
      size = nil
      self.source = source
    }
    self.path = path
    isReadOnly = readOnly
  }

  /// A number with an optional k, m or g.
  static func bytes(_ text: String) -> UInt64? {
    let units: [Character: UInt64] = ["k": 1 << 10, "m": 1 << 20, "g": 1 << 30]
    var digits = text.lowercased()[...]
    var unit: UInt64 = 1
    if let last = digits.last, let found = units[last] {
      unit = found
      digits = digits.dropLast()
    }
    guard let number = UInt64(digits) else { return nil }
    let (size, overflow) = number.multipliedReportingOverflow(by: unit)
    return overflow ? nil : size
  }

  /// Opens the file, which stays open over exec, and describes it.
  func open() throws(BuildError) -> LaunchVolume {
    var status = stat()
    let exists = stat(source, &status) == 0
    if exists, status.st_mode & S_IFMT == S_IFDIR {
      guard isReadOnly, size == nil else {
        throw BuildError("-v: \(source) is a directory; add :ro to pack it as it is now")
      }
      return LaunchVolume(descriptor: try packed(), isReadOnly: true, path: Array(path.utf8))
    }
    if !exists, let size { try make(size) }
    let descriptor = Glibc.open(source, isReadOnly ? O_RDONLY : O_RDWR)
    guard descriptor >= 0 else {
      let hint = errno == ENOENT ? "; write SIZE@\(source) to make it" : ""
      throw BuildError("cannot open the volume \(source): \(String(cString: strerror(errno)))\(hint)")
    }
    // Two unikernels that write to one file system would destroy it. The lock lasts as long as the descriptor.
    guard lock(descriptor, shared: isReadOnly) else {
      throw BuildError("the volume \(source) is in use by another run")
    }
    return LaunchVolume(descriptor: descriptor, isReadOnly: isReadOnly, path: Array(path.utf8))
  }

  private func make(_ size: UInt64) throws(BuildError) {
    // A file that was made but not formatted must not stay behind.
    let temporary = "\(source).\(getpid())"
    defer { unlink(temporary) }
    try HostProgram.mke2fs(["-b", "4096", "-E", "lazy_itable_init=1", temporary, "\(size >> 10)k"])
    guard rename(temporary, source) == 0 else {
      throw BuildError("cannot make the volume \(source): \(String(cString: strerror(errno)))")
    }
  }

  /// A file system with the directory's contents, in a file without a name.
  private func packed() throws(BuildError) -> Int32 {
    var name = Array(((hostVariable("TMPDIR") ?? "/tmp") + "/swiftlet-volume-XXXXXX").utf8CString)
    let made = mkstemp(&name)
    guard made >= 0 else { throw BuildError("cannot make a temporary file for -v \(source)") }
    close(made)
    let file = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    defer { unlink(file) }
    let contents = contentSize(source)
    // Room for the tables besides; the file is sparse.
    let kilobytes = (contents.bytes + contents.bytes / 8) >> 10 + UInt64(contents.files) + 4096
    let inodes = [
      "-N", "\(contents.files + 64)", "-b", "4096", "-O", "^has_journal,^resize_inode", "-m", "0",
    ]
    try HostProgram.mke2fs(inodes + ["-d", source, file, "\(kilobytes)k"])
    let descriptor = Glibc.open(file, O_RDONLY)
    guard descriptor >= 0 else { throw BuildError("cannot open the packed directory \(source)") }
    return descriptor
  }
}

/// Bytes (each file rounded up to blocks) and number of the files below a directory.
private func contentSize(_ directory: String) -> (bytes: UInt64, files: Int) {
  var total: (bytes: UInt64, files: Int) = (0, 0)
  guard let stream = opendir(directory) else { return total }
  defer { closedir(stream) }
  while let entry = readdir(stream) {
    let name = withUnsafePointer(to: &entry.pointee.d_name) {
      $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
    }
    if name == "." || name == ".." { continue }
    var status = stat()
    guard lstat(directory + "/" + name, &status) == 0 else { continue }
    total.files += 1
    total.bytes += UInt64(status.st_size + 4095) & ~4095
    if status.st_mode & S_IFMT == S_IFDIR {
      let inside = contentSize(directory + "/" + name)
      total = (total.bytes + inside.bytes, total.files + inside.files)
    }
  }
  return total
}

/// The host processes of a run that has just ended may take a moment to go.
func lock(_ descriptor: Int32, shared: Bool) -> Bool {
  for _ in 0..<40 {
    if flock(descriptor, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0 { return true }
    usleep(50_000)
  }
  return false
}
