import ABI
import Processes
import Tasks
import VFS

/// A file system being set up (fsopen(2)) or changed (fspick(2)).
final class MountConfiguration: OpenFile {
  let type: StaticString
  /// fspick: the mount that FSCONFIG_CMD_RECONFIGURE changes.
  let mount: MountTable.Mount?
  var source = bytes("none")
  var options: [UInt8] = []
  /// `ro` and `rw`.
  var isReadOnly: Bool
  /// After FSCONFIG_CMD_CREATE.
  var root: Inode?

  init(type: StaticString, mount: MountTable.Mount? = nil) {
    self.type = type
    self.mount = mount
    isReadOnly = (mount?.flags ?? 0) & 1 != 0
    super.init(inode: PipeInodes.anonymous(mode: 0o600), flags: 2)
  }

  override func read(_ slice: UserSlice) throws(Errno) -> Int { throw .noData }

  func add(_ option: [UInt8]) throws(Errno) {
    guard options.count + option.count < 4094 else { throw .invalid }
    if !options.isEmpty { options.append(0x2c) }
    options += option
  }
}

/// A mount that is nowhere in the tree yet (fsmount(2), open_tree(2)).
final class DetachedMount: OpenFile {
  let type: StaticString
  let source: [UInt8]
  var mountFlags: UInt32

  init(_ root: Inode, type: StaticString, source: [UInt8], mountFlags: UInt32) {
    self.type = type
    self.source = source
    self.mountFlags = mountFlags
    super.init(inode: root, flags: 0o10000000)
    path = Path(inode: root, name: [], parent: nil)
  }
}

/// mount(2) in steps: fsopen(2), fsconfig(2), fsmount(2), move_mount(2), open_tree(2), fspick(2), mount_setattr(2).
extension SystemCall {
  func dispatchMountObjects() throws(Errno) -> Int? {
    switch number {
    case 428: return try open_tree()
    case 429: return try move_mount()
    case 430: return try fsopen()
    case 431: return try fsconfig()
    case 432: return try fsmount()
    case 433: return try fspick()
    case 442: return try mount_setattr()
    default: return nil
    }
  }

  private func checkAdministration() throws(Errno) {
    guard process.capabilities.effective & Capabilities.administration != 0 else { throw .notPermitted }
  }

  private func fsopen() throws(Errno) -> Int {
    try checkAdministration()
    guard unsigned(b) & ~1 == 0 else { throw .invalid }
    let name = try UserSlice.string(a)
    guard name == bytes("tmpfs") || name == bytes("ramfs") else { throw .operationNotOnDevice }
    return try install(
      MountConfiguration(type: name == bytes("tmpfs") ? "tmpfs" : "ramfs"), closes: b & 1 != 0)
  }

  /// FSPICK_CLOEXEC 1, SYMLINK_NOFOLLOW 2, NO_AUTOMOUNT 4, EMPTY_PATH 8.
  private func fspick() throws(Errno) -> Int {
    try checkAdministration()
    guard unsigned(c) & ~15 == 0 else { throw .invalid }
    let path = try place(int(a), b, flags: (c & 8 != 0 ? 0x1000 : 0) | (c & 2 != 0 ? 0x100 : 0))
    guard let mount = MountTable.mount(at: path) else { throw .invalid }
    return try install(MountConfiguration(type: mount.type, mount: mount), closes: c & 1 != 0)
  }

  /// SET_FLAG 0, SET_STRING 1, SET_BINARY 2, SET_PATH 3, SET_PATH_EMPTY 4, SET_FD 5, CMD_CREATE 6, RECONFIGURE 7.
  private func fsconfig() throws(Errno) -> Int {
    guard int(a) >= 0 else { throw .invalid }
    let (hasKey, hasValue, extra) = (c != 0, d != 0, int(e))
    switch int(b) {
    case 0: guard hasKey, !hasValue, extra == 0 else { throw .invalid }
    case 1: guard hasKey, hasValue, extra == 0 else { throw .invalid }
    case 2: guard hasKey, hasValue, extra > 0, extra <= 1 << 20 else { throw .invalid }
    case 3, 4:
      guard hasKey, hasValue, extra == SystemCall.workingDirectory || extra >= 0 else { throw .invalid }
    case 5: guard hasKey, !hasValue, extra >= 0 else { throw .invalid }
    case 6, 7: guard !hasKey, !hasValue, extra == 0 else { throw .invalid }
    default: throw .notSupported
    }
    guard let configuration = try file(int(a)) as? MountConfiguration else { throw .invalid }
    switch int(b) {
    case 0:
      try setOption(configuration, try UserSlice.string(c, limit: 256), nil)
    case 1:
      try setOption(configuration, try UserSlice.string(c, limit: 256), try UserSlice.string(d, limit: 256))
    case 6:
      guard configuration.root == nil, configuration.mount == nil else { throw .busy }
      let settings = try TemporarySettings(configuration.options, process.fileSystem.credentials)
      configuration.root = TemporaryFileSystem.makeFileSystem(
        mode: settings.mode, user: settings.user, group: settings.group)
    case 7:
      guard let mount = configuration.mount else { throw .invalid }
      mount.flags = mount.flags & ~1 | (configuration.isReadOnly ? 1 : 0)
      MountTable.update()
    default: throw .notSupported
    }
    return 0
  }

  /// What every file system knows (fs_context.c), then the file system's own.
  private func setOption(_ configuration: MountConfiguration, _ key: [UInt8], _ value: [UInt8]?) throws(Errno)
  {
    let common = [bytes("sync"), bytes("async"), bytes("dirsync"), bytes("lazytime"), bytes("nolazytime")]
    if key == bytes("ro") {
      configuration.isReadOnly = true
    } else if key == bytes("rw") {
      configuration.isReadOnly = false
    } else if key == bytes("source"), let value {
      configuration.source = value
    } else if !common.contains(key) {
      guard !key.isEmpty else { throw .invalid }
      let option = value.map { key + [0x3d] + $0 } ?? key
      _ = try TemporarySettings(option, process.fileSystem.credentials)
      try configuration.add(option)
    }
  }

  /// MOUNT_ATTR_ flags as ST_ flags. EINVAL.
  private func attributes(_ value: UInt64) throws(Errno) -> UInt32 {
    guard value & ~0x20_00bf == 0, value & 0x30 != 0x30 else { throw .invalid }
    var result = UInt32(value & 15)
    if value & 0x10 != 0 { result |= 0x400 }
    if value & 0x20 != 0 { result |= 0x10_0000 }
    if value & 0x80 != 0 { result |= 0x800 }
    if value & 0x20_0000 != 0 { result |= 0x2000 }
    return result
  }

  private func fsmount() throws(Errno) -> Int {
    try checkAdministration()
    guard unsigned(b) & ~1 == 0 else { throw .invalid }
    let flags = try attributes(UInt64(unsigned(c)))
    guard let configuration = try file(int(a)) as? MountConfiguration else { throw .invalid }
    guard let root = configuration.root else { throw .invalid }
    return try install(
      DetachedMount(
        root, type: configuration.type, source: configuration.source,
        mountFlags: flags | (configuration.isReadOnly ? 1 : 0)), closes: b & 1 != 0)
  }

  /// OPEN_TREE_CLONE 1, O_CLOEXEC, and AT_ flags EMPTY_PATH, NO_AUTOMOUNT, RECURSIVE, SYMLINK_NOFOLLOW.
  private func open_tree() throws(Errno) -> Int {
    let flags = unsigned(c)
    guard flags & ~(1 | 0o2000000 | 0x9900) == 0, flags & 0x8001 != 0x8000 else { throw .invalid }
    if flags & 1 != 0 { try checkAdministration() }
    let path = try place(int(a), b, flags: flags & 0x1100)
    let closes = flags & 0o2000000 != 0
    guard flags & 1 != 0 else {
      return try install(try process.fileSystem.open(path, 0o10000000), closes: closes)
    }
    let mount = MountTable.mount(of: path)
    return try install(
      DetachedMount(
        path.inode, type: mount?.type ?? "tmpfs", source: mount?.source ?? bytes("none"),
        mountFlags: mount?.flags ?? 0), closes: closes)
  }

  /// MOVE_MOUNT_F_SYMLINKS 1, F_AUTOMOUNTS 2, F_EMPTY_PATH 4; T_ the same times 16; SET_GROUP 0x100, BENEATH 0x200.
  private func move_mount() throws(Errno) -> Int {
    try checkAdministration()
    let flags = unsigned(e)
    guard flags & ~0x77 == 0 else { throw .invalid }
    let target = try place(
      int(c), d, flags: (flags & 0x40 != 0 ? 0x1000 : 0) | (flags & 0x10 == 0 ? 0x100 : 0))
    let name = try UserSlice.string(b)
    if name.isEmpty, flags & 4 != 0, let detached = try description(int(a)) as? DetachedMount {
      guard target.inode.isDirectory == detached.inode.isDirectory else { throw .notDirectory }
      MountTable.mount(
        detached.inode, on: target.inode, place: target.absolute, type: detached.type,
        source: detached.source, flags: detached.mountFlags)
      return 0
    }
    let from = try place(int(a), b, flags: (flags & 4 != 0 ? 0x1000 : 0) | (flags & 1 == 0 ? 0x100 : 0))
    return try moveMount(from, to: target)
  }

  /// struct mount_attr: set, clear, propagation, user name space.
  private func mount_setattr() throws(Errno) -> Int {
    guard unsigned(c) & ~0x9900 == 0, e >= 32 else { throw .invalid }
    guard e <= 4096 else { throw .argumentListTooLong }
    try checkAdministration()
    let record = try UserSlice.load(d, (UInt64(0), UInt64(0), UInt64(0), UInt64(0)))
    let (set, clear) = (
      try attributes(record.0), record.1 & 0x70 == 0x70 ? 0x10_0400 : try attributes(record.1)
    )
    let path = try place(int(a), b, flags: unsigned(c) & 0x1100)
    if let detached = try? description(int(a)) as? DetachedMount, detached.inode === path.inode {
      detached.mountFlags = detached.mountFlags & ~clear | set
      return 0
    }
    guard let mount = MountTable.mount(at: path) else { throw .invalid }
    mount.flags = mount.flags & ~clear | set
    MountTable.update()
    return 0
  }
}
