import ABI
import Processes
import Tasks
import VFS

/// Calls that make, remove and rename names, and move about in the tree.
extension SystemCall {
  private var here: Int32 { SystemCall.workingDirectory }

  // MARK: Making

  private func makeDirectory(_ descriptor: Int32, _ address: UInt, _ mode: UInt32) throws(Errno) -> Int {
    let name = try UserSlice.string(address)
    try process.fileSystem.makeDirectory(name, at: try start(descriptor, name), mode: mode)
    return 0
  }

  func mkdir() throws(Errno) -> Int { try makeDirectory(here, a, unsigned(b)) }
  func mkdirat() throws(Errno) -> Int { try makeDirectory(int(a), b, unsigned(c)) }

  private func makeNode(_ descriptor: Int32, _ address: UInt, _ mode: UInt32, _ device: UInt32) throws(Errno)
    -> Int
  {
    let name = try UserSlice.string(address)
    let type = mode & 0o170000
    guard [0, 0o100000, 0o010000, 0o020000, 0o060000, 0o140000].contains(type) else {
      throw type == 0o040000 ? .notPermitted : .invalid
    }
    if type == 0o020000 || type == 0o060000, !process.credentials.isPrivileged { throw .notPermitted }
    // The numbers' bits are spread out (makedev(3)); our tables have the major number above 8 bits.
    let major = UInt64(device >> 8 & 0xfff)
    let minor = UInt64(device & 0xff | device >> 12 & 0xfff00)
    try process.fileSystem.makeNode(
      name, at: try start(descriptor, name), mode: mode, device: major << 8 | minor)
    return 0
  }

  func mknod() throws(Errno) -> Int { try makeNode(here, a, unsigned(b), unsigned(c)) }
  func mknodat() throws(Errno) -> Int { try makeNode(int(a), b, unsigned(c), unsigned(d)) }

  private func makeSymlink(_ target: UInt, _ descriptor: Int32, _ address: UInt) throws(Errno) -> Int {
    let content = try UserSlice.string(target)
    let name = try UserSlice.string(address)
    try process.fileSystem.makeSymlink(content, name, at: try start(descriptor, name))
    return 0
  }

  func symlink() throws(Errno) -> Int { try makeSymlink(a, here, b) }
  func symlinkat() throws(Errno) -> Int { try makeSymlink(a, int(b), c) }

  /// linkat(2): AT_SYMLINK_FOLLOW (0x400), AT_EMPTY_PATH (0x1000).
  private func makeLink(_ from: Int32, _ old: UInt, _ to: Int32, _ new: UInt, _ flags: UInt32) throws(Errno)
    -> Int
  {
    guard flags & ~0x1400 == 0 else { throw .invalid }
    let source = try place(from, old, flags: flags & 0x1000 | (flags & 0x400 == 0 ? 0x100 : 0))
    let name = try UserSlice.string(new)
    try process.fileSystem.link(source, name, at: try start(to, name))
    return 0
  }

  func link() throws(Errno) -> Int { try makeLink(here, a, here, b, 0) }
  func linkat() throws(Errno) -> Int { try makeLink(int(a), b, int(c), d, unsigned(e)) }

  // MARK: Removing and renaming

  private func remove(_ descriptor: Int32, _ address: UInt, directory: Bool) throws(Errno) -> Int {
    let name = try UserSlice.string(address)
    try process.fileSystem.unlink(name, at: try start(descriptor, name), directory: directory)
    return 0
  }

  func unlink() throws(Errno) -> Int { try remove(here, a, directory: false) }
  func rmdir() throws(Errno) -> Int { try remove(here, a, directory: true) }
  func unlinkat() throws(Errno) -> Int {
    guard unsigned(c) & ~0x200 == 0 else { throw .invalid }
    return try remove(int(a), b, directory: unsigned(c) != 0)
  }

  private func rename(_ from: Int32, _ old: UInt, _ to: Int32, _ new: UInt, _ flags: UInt32) throws(Errno)
    -> Int
  {
    let name = try UserSlice.string(old)
    let newName = try UserSlice.string(new)
    try process.fileSystem.rename(
      name, at: try start(from, name), to: newName, at: try start(to, newName), flags: flags)
    return 0
  }

  func rename() throws(Errno) -> Int { try rename(here, a, here, b, 0) }
  func renameat() throws(Errno) -> Int { try rename(int(a), b, int(c), d, 0) }
  func renameat2() throws(Errno) -> Int { try rename(int(a), b, int(c), d, unsigned(e)) }

  // MARK: Reading links and directories

  private func readLink(_ descriptor: Int32, _ address: UInt, _ buffer: UInt, _ size: UInt) throws(Errno)
    -> Int
  {
    guard int(size) > 0 else { throw .invalid }
    // An empty name means the link that an O_PATH descriptor holds.
    let path = try place(descriptor, address, flags: descriptor == here ? 0x100 : 0x1100)
    let target = try path.inode.readLink()
    let count = min(target.count, Int(int(size)))
    try UserSlice(buffer, count).store(count == target.count ? target : Array(target[..<count]))
    return count
  }

  func readlink() throws(Errno) -> Int { try readLink(here, a, b, c) }
  func readlinkat() throws(Errno) -> Int { try readLink(int(a), b, c, d) }

  func getdents64() throws(Errno) -> Int {
    let file = try file(int(a))
    let count = try file.readDirectory(try UserSlice(b, Int(unsigned(c))))
    wasRead(file, count)
    return count
  }

  /// The old form: d_ino, d_off, d_reclen, name, NUL, and the type in the record's last byte. Records have the same
  /// length as new ones or need less, so they are changed in place.
  func getdents() throws(Errno) -> Int {
    let slice = try UserSlice(b, min(Int(unsigned(c)), SystemCall.bounceSize))
    let file = try file(int(a))
    let bounce = UnsafeMutableRawBufferPointer.allocate(byteCount: max(slice.count, 1), alignment: 16)
    defer { bounce.deallocate() }
    let start = file.offset
    let count = try file.readDirectory(UserSlice(kernel: bounce).prefix(slice.count))
    var record = 0
    while record + 19 <= count {
      let length = Int(bounce[record + 16]) | Int(bounce[record + 17]) << 8
      guard length > 19, record + length <= count else { break }
      let type = bounce[record + 18]
      for index in (record + 18)..<(record + length - 1) { bounce[index] = bounce[index + 1] }
      bounce[record + length - 1] = type
      record += length
    }
    do throws(Errno) { try slice.copyOut(UnsafeRawBufferPointer(rebasing: bounce[..<count])) } catch {
      file.offset = start
      throw error
    }
    return count
  }

  // MARK: Where a process stands

  private func enter(_ path: Path) throws(Errno) {
    guard path.inode.isDirectory else { throw .notDirectory }
    try process.fileSystem.credentials.check(path.inode, 1)
    process.fileSystem.workingDirectory = path
  }

  func chdir() throws(Errno) -> Int {
    try enter(try process.fileSystem.resolve(try UserSlice.string(a)))
    return 0
  }

  func fchdir() throws(Errno) -> Int {
    guard let path = try description(int(a)).path else { throw .notDirectory }
    guard path.inode.isDirectory else { throw .notDirectory }
    try enter(path)
    return 0
  }

  func chroot() throws(Errno) -> Int {
    let path = try process.fileSystem.resolve(try UserSlice.string(a))
    guard path.inode.isDirectory else { throw .notDirectory }
    try process.fileSystem.credentials.check(path.inode, 1)
    // CAP_SYS_CHROOT
    guard process.capabilities.effective & 1 << 18 != 0 else { throw .notPermitted }
    process.fileSystem.root = path
    return 0
  }

  /// getcwd(2): the length with the NUL. ENOENT for a removed directory, ERANGE.
  func getcwd() throws(Errno) -> Int {
    let context: FileSystemContext = process.fileSystem
    guard context.workingDirectory.inode.status.links > 0 else { throw .noSuchFile }
    var names: [[UInt8]] = []
    var place = context.workingDirectory
    while place.inode !== context.root.inode, let parent = place.parent {
      names.append(place.name)
      place = parent
    }
    var result: [UInt8] = names.isEmpty ? [0x2f] : []
    for name in names.reversed() {
      result.append(0x2f)
      result += name
    }
    result.append(0)
    guard UInt(result.count) <= b else { throw .outOfRange }
    try UserSlice(a, result.count).store(result)
    return result.count
  }

  func umask() throws(Errno) -> Int {
    let old = process.fileSystem.mask
    process.fileSystem.mask = unsigned(a) & 0o777
    return Int(old)
  }

  // MARK: Handles

  /// FILEID_INO32_GEN-like: device and inode number, 16 bytes.
  private static var handleSize: UInt32 { 16 }

  /// name_to_handle_at(2). EOVERFLOW with the size needed.
  func name_to_handle_at() throws(Errno) -> Int {
    // AT_HANDLE_FID 0x200, AT_SYMLINK_FOLLOW 0x400, AT_EMPTY_PATH 0x1000
    guard unsigned(e) & ~0x1600 == 0 else { throw .invalid }
    let flags = unsigned(e) & 0x1000 | (unsigned(e) & 0x400 == 0 ? 0x100 : 0)
    let path = try place(int(a), b, flags: flags)
    guard path.inode.hasHandle else { throw .notSupported }
    let size = try UserSlice.load(c, UInt32(0))
    guard size <= 128 else { throw .invalid }
    try UserSlice.store(Int32(truncatingIfNeeded: MountTable.mount(of: path)?.identifier ?? 0), at: d)
    guard size >= SystemCall.handleSize else {
      try UserSlice.store(SystemCall.handleSize, at: c)
      throw .overflow
    }
    let status = path.inode.status
    try UserSlice.store((SystemCall.handleSize, UInt32(1)), at: c)
    try UserSlice.store((status.device, status.inode), at: c &+ 8)
    return 0
  }

  /// open_by_handle_at(2): the file is looked for in the tree. ESTALE when it has no name any more.
  func open_by_handle_at() throws(Errno) -> Int {
    // CAP_DAC_READ_SEARCH
    guard process.capabilities.effective & 4 != 0 else { throw .notPermitted }
    let (size, kind) = try UserSlice.load(b, (UInt32(0), UInt32(0)))
    guard size > 0, size <= 128 else { throw .invalid }
    let anchor =
      int(a) == SystemCall.workingDirectory
      ? process.fileSystem.workingDirectory : try description(int(a)).path
    guard let anchor, size >= SystemCall.handleSize, kind == 1 else { throw .stale }
    let (device, number) = try UserSlice.load(b &+ 8, (UInt64(0), UInt64(0)))
    var top = anchor
    while let parent = top.parent, parent.inode.status.device == top.inode.status.device { top = parent }
    guard device == anchor.inode.status.device,
      let found = top.find(number)
    else { throw .stale }
    let flags = unsigned(c)
    if found.inode.isSymlink, flags & SystemCall.isPathOnly == 0 { throw .tooManySymlinks }
    let file = try process.fileSystem.open(found, flags & ~SystemCall.closesOnExecution)
    return try install(file, closes: flags & SystemCall.closesOnExecution != 0)
  }
}
