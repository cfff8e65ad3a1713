public import ABI
import Tasks

/// Who asks for a file (credentials(7)).
public struct Credentials {
  public var user: UInt32
  public var group: UInt32
  public var groups: [UInt32]
  public init(user: UInt32, group: UInt32, groups: [UInt32]) {
    self.user = user
    self.group = group
    self.groups = groups
  }
  public var isPrivileged: Bool { user == 0 }

  /// `wanted`: 4 read, 2 write, 1 execute or search. EACCES.
  public func check(_ inode: Inode, _ wanted: UInt32) throws(Errno) {
    let status = inode.status
    if isPrivileged {
      if wanted & 1 != 0, !inode.isDirectory, status.mode & 0o111 == 0 { throw .accessDenied }
      return
    }
    var bits = status.mode
    if status.user == user {
      bits >>= 6
    } else if status.mode & 0o070 != 0, inode.mayHaveAttributes, let list = inode.accessList() {
      // Linux asks no list whose mask lets nothing pass: the mode alone decides then.
      guard list.permits(wanted, self, group: status.group) else { throw .accessDenied }
      return
    } else if status.group == group || groups.contains(status.group) {
      bits >>= 3
    }
    if bits & wanted != wanted { throw .accessDenied }
  }

  /// A sticky directory lets only owners remove (unlink(2), EPERM).
  func checkSticky(_ directory: Inode, _ inode: Inode) throws(Errno) {
    guard directory.status.mode & 0o1000 != 0, !isPrivileged else { return }
    guard inode.status.user == user || directory.status.user == user else { throw .notPermitted }
  }
}

/// A link that leads to an inode rather than to a name (/proc/PID/fd/N, /proc/PID/exe).
open class MagicLink: Inode {
  open func destination() throws(Errno) -> Path { throw .noSuchFile }
}

/// Resolution of path names (path_resolution(7)).
struct PathWalk {
  var root: Path
  /// RESOLVE_ flags of openat2(2): NO_XDEV 1, NO_MAGICLINKS 2, NO_SYMLINKS 4, BENEATH 8, IN_ROOT 16.
  var restrictions: UInt64 = 0
  let credentials: Credentials
  private var links = 0

  init(root: Path, credentials: Credentials) {
    self.root = root
    self.credentials = credentials
  }

  /// The file that `name` leads to; with `followLast` false a symbolic link at the end is itself the result.
  mutating func resolve(_ name: [UInt8], from start: Path, followLast: Bool = true) throws(Errno) -> Path {
    let (parent, last, mustBeDirectory) = try resolveParent(name, from: start)
    guard !last.isEmpty else { return parent }
    let found = try step(parent, last)
    let result = followLast || mustBeDirectory ? try follow(found) : found
    if mustBeDirectory, !result.inode.isDirectory { throw .notDirectory }
    return result
  }

  /// The directory that the last component of `name` lies in, and that component (empty when the name is a
  /// directory by its form: `/`, `a/..`). ENOENT for an empty name.
  mutating func resolveParent(_ name: [UInt8], from start: Path) throws(Errno) -> (Path, [UInt8], Bool) {
    guard !name.isEmpty else { throw .noSuchFile }
    guard name.count < 4096 else { throw .nameTooLong }
    if name[0] == 0x2f, restrictions & 8 != 0 { throw .crossDevice }
    var place = name[0] == 0x2f ? root : start
    if restrictions & 1 != 0, place.inode.status.device != start.inode.status.device { throw .crossDevice }
    var at = 0
    while at < name.count, name[at] == 0x2f { at += 1 }
    guard at < name.count else { return (place, [], true) }
    while true {
      var end = at
      while end < name.count, name[end] != 0x2f { end += 1 }
      var next = end
      while next < name.count, name[next] == 0x2f { next += 1 }
      let component = at == 0 && end == name.count ? name : Array(name[at..<end])
      guard next < name.count else {
        if PathWalk.dots(component) > 0 { return (try step(place, component), [], true) }
        guard place.inode.isDirectory else { throw .notDirectory }
        return (place, component, end < name.count)
      }
      place = try follow(try step(place, component))
      guard place.inode.isDirectory else { throw .notDirectory }
      at = next
    }
  }

  /// 1 for `.`, 2 for `..`, 0 for other names.
  @inline(__always)
  private static func dots(_ name: [UInt8]) -> Int {
    guard name.count <= 2, name[0] == 0x2e else { return 0 }
    return name.count == 1 ? 1 : name[1] == 0x2e ? 2 : 0
  }

  private func step(_ place: Path, _ name: [UInt8]) throws(Errno) -> Path {
    guard place.inode.isDirectory else { throw .notDirectory }
    guard name.count <= 255 else { throw .nameTooLong }
    try credentials.check(place.inode, 1)
    let dots = PathWalk.dots(name)
    if dots == 1 { return place }
    if dots == 2 {
      if restrictions & 8 != 0, place.inode === root.inode { throw .crossDevice }
      return place.inode === root.inode ? place : place.parent ?? place
    }
    let inode = MountTable.top(try place.inode.lookup(name))
    if restrictions & 1 != 0, inode.status.device != place.inode.status.device { throw .crossDevice }
    return Path(inode: inode, name: name, parent: place)
  }

  mutating func follow(_ path: Path) throws(Errno) -> Path {
    guard path.inode.isSymlink else { return path }
    links += 1
    // MS_NOSYMFOLLOW
    if MountTable.flags(path) & 0x2000 != 0 { throw .tooManySymlinks }
    guard links <= 40 else { throw .tooManySymlinks }
    if restrictions & 4 != 0 { throw .tooManySymlinks }
    if restrictions & 0x1a != 0, path.inode is MagicLink {
      throw restrictions & 2 != 0 ? .tooManySymlinks : .crossDevice
    }
    if let magic = path.inode as? MagicLink { return try magic.destination() }
    return try resolve(try path.inode.readLink(), from: path.parent ?? root)
  }
}
