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

  /// EACCES; ETXTBSY while somebody may write to it.
  func openProgram(_ found: Path) throws(Errno) -> OpenFile {
    guard found.inode.isRegular, MountTable.flags(found) & 8 == 0 else { throw .accessDenied }
    try process.fileSystem.credentials.check(found.inode, 1)
    if found.inode.writers > 0 { throw .textBusy }
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

  private func open(
    _ descriptor: Int32, _ address: UInt, _ flags: UInt32, _ mode: UInt32, restrictions: UInt64 = 0
  ) throws(Errno) -> Int {
    let name = try UserSlice.string(address)
    let isUnnamed = flags & 0o20200000 == 0o20200000
    if isUnnamed, flags & 3 == 0 { throw .invalid }
    if !isUnnamed, flags & 0o200100 == 0o200100 { throw .invalid }
    var kept = flags & ~SystemCall.closesOnExecution
    if flags & SystemCall.isPathOnly != 0 { kept &= 0o10600000 }
    // RESOLVE_IN_ROOT takes the directory as the root of absolute names too.
    let from = restrictions & 0x18 != 0 ? try directory(descriptor) : try start(descriptor, name)
    let file = try process.fileSystem.open(
      name, at: from, flags: kept, mode: mode, restrictions: restrictions)
    let descriptor = try install(file, closes: flags & SystemCall.closesOnExecution != 0)
    if kept & SystemCall.isPathOnly == 0 { FileNotification.tell(.open, file) }
    return descriptor
  }

  func open_() throws(Errno) -> Int { try open(SystemCall.workingDirectory, a, unsigned(b), unsigned(c)) }
  func openat() throws(Errno) -> Int { try open(int(a), b, unsigned(c), unsigned(d)) }
  func creat() throws(Errno) -> Int { try open(SystemCall.workingDirectory, a, 0o1101, unsigned(b)) }

  /// openat2(2): struct open_how; strict about what openat(2) ignores.
  func openat2() throws(Errno) -> Int {
    guard d >= 24 else { throw .invalid }
    guard d <= 4096 else { throw .argumentListTooLong }
    let how = try UserSlice.load(c, (UInt64(0), UInt64(0), UInt64(0)))
    for byte in try UserSlice(c &+ 24, Int(d) - 24).bytes() where byte != 0 { throw .argumentListTooLong }
    guard how.0 & ~0x7f_ffc3 == 0, how.2 & ~0x3f == 0, how.2 & 0x18 != 0x18 else { throw .invalid }
    let flags = UInt32(how.0)
    // A mode without O_CREAT or O_TMPFILE; other flags with O_PATH.
    let makes = flags & 0o100 != 0 || flags & 0o20200000 == 0o20200000
    guard makes ? how.1 & ~0o7777 == 0 : how.1 == 0 else { throw .invalid }
    if flags & SystemCall.isPathOnly != 0, flags & ~0o12600000 != 0 { throw .invalid }
    // RESOLVE_CACHED: everything is in memory, but nothing may be made.
    if how.2 & 0x20 != 0, makes || flags & 0o1000 != 0 { throw .again }
    return try open(int(a), b, flags, UInt32(how.1), restrictions: how.2 & 0x1f)
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
