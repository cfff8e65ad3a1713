import ABI
import Processes
import Tasks
import VFS

/// mount(2) and umount2(2): temporary file systems, other views of directories (MS_BIND), moves and flags.
extension SystemCall {
  private static var readOnly: UInt { 0x1 }
  private static var remount: UInt { 0x20 }
  private static var bind: UInt { 0x1000 }
  private static var move: UInt { 0x2000 }
  /// MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED: there is one name space, so nothing propagates.
  private static var propagation: UInt { 0x1e_0000 }

  /// The ST_ flags that stay with a mount: MS_RDONLY, NOSUID, NODEV, NOEXEC as they are; the times' flags and
  /// MS_NOSYMFOLLOW have other numbers.
  private func mountFlags(_ flags: UInt) -> UInt32 {
    var result = unsigned(flags) & 0x1f
    if flags & 0x400 != 0 { result |= 0x400 }  // MS_NOATIME
    if flags & 0x800 != 0 { result |= 0x800 }  // MS_NODIRATIME
    if flags & 0x100 != 0 { result |= 0x2000 }  // MS_NOSYMFOLLOW
    if flags & 0x20_0000 != 0 { result |= 0x1000 }  // MS_RELATIME
    if flags & 0x100_0000 != 0 { result |= 0x10_0000 }  // MS_STRICTATIME
    return result
  }

  func mount() throws(Errno) -> Int {
    let type = c == 0 ? nil : try UserSlice.string(c)
    let source = a == 0 ? bytes("none") : try UserSlice.string(a)
    var options: [UInt8] = []
    if e != 0 { options = try UserSlice.string(e) }
    let path = try process.fileSystem.resolve(try UserSlice.string(b))
    guard process.capabilities.effective & Capabilities.administration != 0 else { throw .notPermitted }
    let flags = d & 0xffff_0000 == 0xc0ed_0000 ? d & 0xffff : d
    if flags & SystemCall.remount != 0 { return try remount(path, flags, options) }
    if flags & SystemCall.bind != 0 { return try bindMount(source, path) }
    if flags & SystemCall.propagation != 0 {
      guard MountTable.mount(at: path) != nil else { throw .invalid }
      return 0
    }
    if flags & SystemCall.move != 0 { return try moveMount(source, path) }
    guard let type else { throw .invalid }
    return try newMount(type, source, path, flags, options)
  }

  private func remount(_ path: Path, _ flags: UInt, _ options: [UInt8]) throws(Errno) -> Int {
    guard let mount = MountTable.mount(at: path) else { throw .invalid }
    if flags & SystemCall.readOnly != 0, mount.flags & 1 == 0, isWritten(mount.device) { throw .busy }
    mount.flags = mountFlags(flags)
    MountTable.update()
    return 0
  }

  private func bindMount(_ source: [UInt8], _ path: Path) throws(Errno) -> Int {
    guard !source.isEmpty else { throw .invalid }
    let from = try process.fileSystem.resolve(source)
    guard from.inode.isDirectory == path.inode.isDirectory else { throw .notDirectory }
    let old = MountTable.mount(of: from)
    MountTable.mount(
      from.inode, on: path.inode, place: path.absolute, type: old?.type ?? "tmpfs", source: old?.source,
      flags: old?.flags ?? 0)
    return 0
  }

  private func moveMount(_ source: [UInt8], _ path: Path) throws(Errno) -> Int {
    try moveMount(try process.fileSystem.resolve(source), to: path)
  }

  func moveMount(_ from: Path, to path: Path) throws(Errno) -> Int {
    guard let mount = MountTable.mount(at: from), mount.place != bytes("/") else { throw .invalid }
    guard from.inode.isDirectory == path.inode.isDirectory else { throw .notDirectory }
    var place: Path? = path
    while let current = place {
      if current.inode === from.inode { throw .tooManySymlinks }
      place = current.parent
    }
    try MountTable.unmount(mount)
    MountTable.mount(
      mount.root, on: path.inode, place: path.absolute, type: mount.type, source: mount.source,
      flags: mount.flags, identifier: mount.identifier)
    return 0
  }

  private func newMount(_ type: [UInt8], _ source: [UInt8], _ path: Path, _ flags: UInt, _ options: [UInt8])
    throws(Errno) -> Int
  {
    let root: Inode
    let name: StaticString
    if type == bytes("tmpfs") || type == bytes("ramfs") {
      name = type == bytes("tmpfs") ? "tmpfs" : "ramfs"
      let settings = try TemporarySettings(options, process.fileSystem.credentials)
      root = TemporaryFileSystem.makeFileSystem(
        mode: settings.mode, user: settings.user, group: settings.group)
    } else if let known = MountTable.mounts.first(where: {
      bytes($0.type) == type && !TemporaryFileSystem.owns($0.device)
    }) {
      // proc(5) and sysfs(5) are the same wherever they are shown.
      name = known.type
      root = known.root
    } else {
      throw .operationNotOnDevice
    }
    guard path.inode.isDirectory else { throw .notDirectory }
    MountTable.mount(
      root, on: path.inode, place: path.absolute, type: name, source: source, flags: mountFlags(flags))
    return 0
  }

  // MARK: umount2(2)

  /// MNT_FORCE 1, MNT_DETACH 2, MNT_EXPIRE 4, UMOUNT_NOFOLLOW 8.
  func umount2() throws(Errno) -> Int {
    let flags = unsigned(b)
    guard flags & ~15 == 0 else { throw .invalid }
    let path = try process.fileSystem.resolve(try UserSlice.string(a), followLast: flags & 8 == 0)
    guard let mount = MountTable.mount(at: path) else { throw .invalid }
    guard process.capabilities.effective & Capabilities.administration != 0 else { throw .notPermitted }
    if flags & 4 != 0, flags & 3 != 0 { throw .invalid }
    if mount.place == bytes("/") { throw .busy }
    if flags & 2 == 0, !mount.isOverItself, isUsed(mount) { throw .busy }
    if flags & 4 != 0, !mount.isExpiring {
      mount.isExpiring = true
      throw .again
    }
    try MountTable.unmount(mount)
    return 0
  }

  /// A process stands in the mount or has a file of it open. Other views of the same file system do not count.
  private func isUsed(_ mount: MountTable.Mount) -> Bool {
    for other in ProcessTable.processes.values where !other.isZombie {
      guard let context = other.fileSystem else { continue }
      if MountTable.mount(of: context.workingDirectory) === mount { return true }
      if MountTable.mount(of: context.root) === mount { return true }
      for (_, file) in other.descriptors.open {
        if let path = file.path, MountTable.mount(of: path) === mount { return true }
      }
      for area in other.addressSpace.areas {
        if let path = area.path, MountTable.mount(of: path) === mount { return true }
      }
    }
    return false
  }

  /// Somebody may write to a file of the file system.
  private func isWritten(_ device: UInt64) -> Bool {
    for other in ProcessTable.processes.values where !other.isZombie {
      for (_, file) in other.descriptors.open
      where file.isWritable && file.inode.status.device == device && file.inode.isRegular { return true }
    }
    return false
  }
}

/// Options of a tmpfs (tmpfs(5)). EINVAL for what it does not know.
struct TemporarySettings {
  var mode: UInt32 = 0o1777
  var user: UInt32
  var group: UInt32

  init(_ options: [UInt8], _ credentials: Credentials) throws(Errno) {
    user = credentials.user
    group = credentials.group
    for option in options.split(separator: 0x2c) {
      let parts = option.split(separator: 0x3d, maxSplits: 1, omittingEmptySubsequences: false)
      let name = Array(parts[0])
      let value = parts.count > 1 ? Array(parts[1]) : []
      if name == bytes("mode") {
        mode = try TemporarySettings.number(value, base: 8)
      } else if name == bytes("uid") {
        user = try TemporarySettings.number(value, base: 10)
      } else if name == bytes("gid") {
        group = try TemporarySettings.number(value, base: 10)
      } else if ![bytes("size"), bytes("nr_blocks"), bytes("nr_inodes"), bytes("huge")].contains(name) {
        // The size is that of memory, whatever the limit.
        throw .invalid
      }
    }
  }

  private static func number(_ digits: [UInt8], base: UInt32) throws(Errno) -> UInt32 {
    guard !digits.isEmpty, digits.count <= 10 else { throw .invalid }
    var value: UInt64 = 0
    for digit in digits {
      guard digit >= 0x30, digit < 0x30 + UInt8(base) else { throw .invalid }
      value = value * UInt64(base) + UInt64(digit - 0x30)
    }
    guard value < UInt64(UInt32.max) else { throw .invalid }
    return UInt32(value)
  }
}
