public import ABI
import Tasks

/// Directories over which other file systems lie (mount(2)). Kernel lock held.
public enum MountTable {
  /// A file system in the tree.
  public final class Mount {
    /// What name_to_handle_at(2), statx(2) and /proc/PID/mountinfo call it, as long as it is mounted.
    public let identifier: Int
    /// What /proc/mounts shows.
    public let place: [UInt8]
    public let type: StaticString
    public let source: [UInt8]
    public let device: UInt64
    /// ST_ flags of statfs(2): read-only 1, no set-user-id 2, no devices 4, no execution 8, no access times 1024.
    public var flags: UInt32
    public let root: Inode
    /// The directory that is covered; nil for the root of all.
    let point: Inode?
    /// A directory over itself hides nothing, so that nobody can be found to stand in it.
    public var isOverItself: Bool { point === root }
    /// MNT_EXPIRE asked once since the last use.
    public var isExpiring = false

    init(
      identifier: Int, place: [UInt8], type: StaticString, source: [UInt8], root: Inode, point: Inode?,
      flags: UInt32
    ) {
      self.identifier = identifier
      self.place = place
      self.type = type
      self.source = source
      self.root = root
      self.point = point
      self.flags = flags
      device = root.status.device
    }
  }

  /// In order of mounting, the root first.
  nonisolated(unsafe) public private(set) static var mounts: [Mount] = []
  /// Some mount has flags: without, nobody need look.
  nonisolated(unsafe) private static var hasFlags = false

  /// The tree's own root.
  public static func mountRoot(_ root: Inode, type: StaticString = "tmpfs", source: StaticString = "tmpfs") {
    enter(
      Mount(
        identifier: freeIdentifier, place: bytes("/"), type: type, source: bytes(source), root: root,
        point: nil, flags: 0))
  }

  /// Shows `root` in place of `directory`. `place`, `type` and `source` are what /proc/mounts tells. A mount that moves
  /// keeps its `identifier`.
  public static func mount(
    _ root: Inode, on directory: Inode, place: [UInt8] = [], type: StaticString = "tmpfs",
    source: [UInt8]? = nil, flags: UInt32 = 0, identifier: Int? = nil
  ) {
    // A directory may lie over itself, with flags of its own: nothing is hidden.
    if root !== directory { directory.mountedRoot = root }
    enter(
      Mount(
        identifier: identifier ?? freeIdentifier, place: place, type: type, source: source ?? bytes(type),
        root: root, point: directory, flags: flags))
  }

  /// The least that no mount has.
  private static var freeIdentifier: Int {
    var result = 20
    while mounts.contains(where: { $0.identifier == result }) { result += 1 }
    return result
  }

  private static func enter(_ mount: Mount) {
    mounts.append(mount)
    mount.root.rootMounts += 1
    update()
  }

  /// Call after flags of a mount have changed.
  public static func update() {
    hasFlags = false
    for mount in mounts where mount.flags != 0 { hasFlags = true }
  }

  /// Takes the mount out of the tree. EBUSY when another one lies on it.
  public static func unmount(_ mount: Mount) throws(Errno) {
    guard let point = mount.point, mount.root.mountedRoot == nil else { throw .busy }
    if point !== mount.root { point.mountedRoot = nil }
    mount.root.rootMounts -= 1
    mounts.removeAll { $0 === mount }
    update()
  }

  /// Forgets all mounts: tests begin anew.
  public static func reset() {
    for mount in mounts {
      mount.root.rootMounts -= 1
      mount.point?.mountedRoot = nil
    }
    mounts = []
    update()
  }

  /// The mount whose root `path` is; nil when it is the root of none.
  public static func mount(at path: Path) -> Mount? {
    guard path.inode.rootMounts > 0 else { return nil }
    for mount in mounts.reversed() where mount.root === path.inode {
      // A directory may be shown in several places (MS_BIND).
      if path.inode.rootMounts == 1 || mount.place == path.absolute { return mount }
    }
    return nil
  }

  /// The mount that `path` lies in.
  public static func mount(of path: Path) -> Mount? {
    var place: Path? = path
    while let current = place {
      if let mount = mount(at: current) { return mount }
      place = current.parent
    }
    return mounts.first
  }

  /// The mount that `mount` lies on; nil for the root of all.
  public static func parent(of mount: Mount) -> Mount? {
    var result: Mount?
    for other in mounts {
      if other === mount { break }
      let isAbove =
        other.place == mount.place
        || mount.place.starts(with: other.place + (other.place.count > 1 ? bytes("/") : []))
      if isAbove, other.place.count >= result?.place.count ?? 0 { result = other }
    }
    return result
  }

  /// ST_ flags of the mount that `path` lies in.
  @inline(__always)
  public static func flags(_ path: Path) -> UInt32 { hasFlags ? mount(of: path)?.flags ?? 0 : 0 }

  /// EROFS when nothing may be changed at `path`.
  @inline(__always)
  public static func checkWritable(_ path: Path) throws(Errno) {
    if hasFlags, flags(path) & 1 != 0 { throw .readOnlyFileSystem }
  }

  @inline(__always)
  static func top(_ inode: Inode) -> Inode {
    var result = inode
    while let root = result.mountedRoot { result = root }
    return result
  }
}
