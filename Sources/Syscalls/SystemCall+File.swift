import ABI
import Processes
import Tasks
import VFS

/// Descriptors: open(2), close(2), dup(2) and what the other families need to find files.
extension SystemCall {
  static var workingDirectory: Int32 { -100 }
  static var isPathOnly: UInt32 { 0o10000000 }
  static var closesOnExecution: UInt32 { 0o2000000 }
  static var isNonblocking: UInt32 { 0o4000 }

  /// The open file of a descriptor, O_PATH or not. EBADF.
  @inline(__always)
  func description(_ descriptor: Int32) throws(Errno) -> OpenFile { try process.descriptors.file(descriptor) }

  /// The open file of a descriptor that can be used. EBADF, also for O_PATH (open(2)).
  @inline(__always)
  func file(_ descriptor: Int32) throws(Errno) -> OpenFile {
    let file = try process.descriptors.file(descriptor)
    guard file.flags & SystemCall.isPathOnly == 0 else { throw .badFileDescriptor }
    return file
  }

  /// Where relative names start: nil (the working directory) for AT_FDCWD. EBADF, ENOTDIR.
  func directory(_ descriptor: Int32) throws(Errno) -> Path? {
    if descriptor == SystemCall.workingDirectory { return nil }
    guard let path = try description(descriptor).path else { throw .notDirectory }
    return path
  }

  /// `directory`, without a look at the descriptor when the name is absolute.
  func start(_ descriptor: Int32, _ name: [UInt8]) throws(Errno) -> Path? {
    name.first == 0x2f ? nil : try directory(descriptor)
  }

  /// The file at `path`, opened to be executed. ENOENT, EACCES.
  func openProgram(_ path: [UInt8]) throws(Errno) -> OpenFile {
    try openProgram(try process.fileSystem.resolve(path))
  }

  func openProgram(_ found: Path) throws(Errno) -> OpenFile {
    guard found.inode.isRegular else { throw .accessDenied }
    try process.fileSystem.credentials.check(found.inode, 1)
    let file = try found.inode.open(flags: 0)
    if file.path == nil { file.path = found }
    return file
  }

  func install(_ file: OpenFile, closes: Bool, minimum: Int = 0) throws(Errno) -> Int {
    do throws(Errno) {
      return Int(try process.descriptors.install(file, closesOnExecution: closes, minimum: minimum))
    } catch {
      // Nobody else knows of a file that is new.
      if file.references == 0 { file.released() }
      throw error
    }
  }

  private func open(_ descriptor: Int32, _ address: UInt, _ flags: UInt32, _ mode: UInt32) throws(Errno)
    -> Int
  {
    let name = try UserSlice.string(address)
    let isUnnamed = flags & 0o20200000 == 0o20200000
    if isUnnamed, flags & 3 == 0 { throw .invalid }
    if !isUnnamed, flags & 0o200100 == 0o200100 { throw .invalid }
    var kept = flags & ~SystemCall.closesOnExecution
    if flags & SystemCall.isPathOnly != 0 { kept &= 0o10600000 }
    let file = try process.fileSystem.open(name, at: try start(descriptor, name), flags: kept, mode: mode)
    return try install(file, closes: flags & SystemCall.closesOnExecution != 0)
  }

  func open_() throws(Errno) -> Int { try open(SystemCall.workingDirectory, a, unsigned(b), unsigned(c)) }
  func openat() throws(Errno) -> Int { try open(int(a), b, unsigned(c), unsigned(d)) }
  func creat() throws(Errno) -> Int { try open(SystemCall.workingDirectory, a, 0o1101, unsigned(b)) }

  /// openat2(2): struct open_how. RESOLVE_ flags that restrict the walk are not known: EINVAL, as on old kernels.
  func openat2() throws(Errno) -> Int {
    guard d >= 24 else { throw .invalid }
    let how = try UserSlice.load(c, (UInt64(0), UInt64(0), UInt64(0)))
    // RESOLVE_NO_XDEV and RESOLVE_NO_MAGICLINKS are hardening: a walk that ignores them still finds the file.
    guard how.2 & ~3 == 0, how.0 >> 32 == 0, how.1 & ~0o7777 == 0 else { throw .invalid }
    return try open(int(a), b, UInt32(how.0), UInt32(how.1))
  }

  func close() throws(Errno) -> Int {
    try process.descriptors.close(int(a))
    return 0
  }

  func close_range() throws(Errno) -> Int {
    let (first, last, flags) = (unsigned(a), unsigned(b), unsigned(c))
    guard first <= last, flags & ~6 == 0 else { throw .invalid }
    if flags & 2 != 0, process.descriptors.users > 1 {  // CLOSE_RANGE_UNSHARE
      process.descriptors.users -= 1
      process.descriptors = process.descriptors.copy()
    }
    guard first <= UInt32(Int32.max) else { return 0 }
    let end = Int32(min(last, UInt32(Int32.max)))
    guard flags & 4 != 0 else {
      process.descriptors.closeRange(Int32(first), end)
      return 0
    }
    for (descriptor, _) in process.descriptors.open where descriptor >= Int32(first) && descriptor <= end {
      try process.descriptors.setClosesOnExecution(descriptor, true)
    }
    return 0
  }

  func dup() throws(Errno) -> Int { try install(try description(int(a)), closes: false) }

  func dup2() throws(Errno) -> Int {
    let file = try description(int(a))
    if int(a) == int(b) { return Int(int(b)) }
    try process.descriptors.replace(int(b), file, closesOnExecution: false)
    return Int(int(b))
  }

  func dup3() throws(Errno) -> Int {
    guard unsigned(c) & ~SystemCall.closesOnExecution == 0, int(a) != int(b) else { throw .invalid }
    let file = try description(int(a))
    try process.descriptors.replace(int(b), file, closesOnExecution: unsigned(c) != 0)
    return Int(int(b))
  }
}
