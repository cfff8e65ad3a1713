import ABI
import Processes
import Tasks
import VFS

/// Extended attributes (xattr(7)): user.*, trusted.*, security.* and access control lists (acl(5)) of files in memory and
/// on disks.
extension SystemCall {
  /// XATTR_SIZE_MAX and XATTR_LIST_MAX
  private static var largest: UInt { 65536 }

  /// Calls 188 to 199: set, get, list and remove, each by name, by name without following a link, by descriptor.
  func xattr() throws(Errno) -> Int {
    let operation = (number - 188) / 3
    let variant = (number - 188) % 3
    let attribute: [UInt8]
    if operation == 2 { attribute = [] } else { attribute = try attributeName(b) }
    if operation == 0 {
      guard unsigned(e) & ~3 == 0, unsigned(e) != 3 else { throw .invalid }
      guard d <= SystemCall.largest else { throw .argumentListTooLong }
    }
    let value = operation == 0 && d > 0 ? try UserSlice(c, Int(d)).bytes() : []
    let path: Path
    if variant == 2 {
      let file = try file(int(a))
      path = file.path ?? Path(inode: file.inode, name: [], parent: nil)
    } else {
      path = try place(SystemCall.workingDirectory, a, flags: variant == 1 ? 0x100 : 0)
    }
    switch operation {
    case 0: return try setAttribute(path, attribute, value)
    case 1: return try getAttribute(path, attribute)
    case 2: return try listAttributes(path)
    default: return try removeAttribute(path, attribute)
    }
  }

  private func attributeName(_ address: UInt) throws(Errno) -> [UInt8] {
    var name: [UInt8] = []
    do throws(Errno) { name = try UserSlice.string(address, limit: 256) } catch {
      throw error == .nameTooLong ? .outOfRange : error
    }
    guard !name.isEmpty else { throw .outOfRange }
    return name
  }

  private func has(_ name: [UInt8], _ prefix: StaticString) -> Bool {
    name.starts(with: bytes(prefix)) && name.count > prefix.utf8CodeUnitCount
  }

  /// What Linux's xattr_permission says. `writes`: EPERM where reading would be ENODATA.
  private func checkAttribute(_ path: Path, _ name: [UInt8], writes: Bool) throws(Errno) {
    let inode = path.inode
    if writes { try MountTable.checkWritable(path) }
    guard TemporaryFileSystem.owns(inode.status.device) || inode.statistics != nil else {
      throw .notSupported
    }
    if has(name, "trusted.") {
      guard process.capabilities.effective & Capabilities.administration != 0 else {
        throw writes ? .notPermitted : .noData
      }
      return
    }
    if has(name, "security.") {
      guard !writes || process.capabilities.effective & Capabilities.administration != 0 else {
        throw .notPermitted
      }
      return
    }
    if isAccessList(name) {
      guard !inode.isSymlink else { throw .notSupported }
      guard !writes || owns(inode) else { throw .notPermitted }
      return
    }
    guard has(name, "user.") else { throw .notSupported }
    guard inode.isRegular || inode.isDirectory else { throw writes ? .notPermitted : .noData }
    if inode.isDirectory, inode.status.mode & 0o1000 != 0, writes, !owns(inode) { throw .notPermitted }
    try process.fileSystem.credentials.check(inode, writes ? 2 : 4)
  }

  private func owns(_ inode: Inode) -> Bool {
    process.credentials.isPrivileged || process.fileSystem.credentials.user == inode.status.user
  }

  private func setAttribute(_ path: Path, _ name: [UInt8], _ value: [UInt8]) throws(Errno) -> Int {
    try checkAttribute(path, name, writes: true)
    let inode = path.inode
    if isAccessList(name) {
      try setAccessList(inode, name, value)
    } else {
      try inode.setExtendedAttribute(name, value, flags: unsigned(e))
    }
    changed(path)
    return 0
  }

  private func isAccessList(_ name: [UInt8]) -> Bool {
    name == AccessList.accessName || name == AccessList.defaultName
  }

  /// An empty value takes the list away.
  private func setAccessList(_ inode: Inode, _ name: [UInt8], _ value: [UInt8]) throws(Errno) {
    let list = AccessList(value)
    guard list != nil || value.isEmpty || value == [2, 0, 0, 0] else { throw .invalid }
    if name == AccessList.accessName { return try inode.setAccessList(list) }
    guard inode.isDirectory else { throw list == nil ? .notSupported : .accessDenied }
    if let list {
      try inode.setExtendedAttribute(name, list.value, flags: 0)
    } else if inode.accessList(isDefault: true) != nil {
      try inode.setExtendedAttribute(name, nil, flags: 0)
    }
  }

  private func changed(_ path: Path) {
    path.inode.status.changed = host.realtimeNanoseconds
    FileNotification.tell(.attributes, path, path.inode)
  }

  private func getAttribute(_ path: Path, _ name: [UInt8]) throws(Errno) -> Int {
    try checkAttribute(path, name, writes: false)
    return try give(try path.inode.extendedAttribute(name), at: c, size: d)
  }

  /// A size of 0 asks how much there is.
  private func give(_ value: [UInt8], at address: UInt, size: UInt) throws(Errno) -> Int {
    if size == 0 { return value.count }
    guard UInt(value.count) <= size else { throw .outOfRange }
    try UserSlice(address, value.count).store(value)
    return value.count
  }

  private func listAttributes(_ path: Path) throws(Errno) -> Int {
    var list: [UInt8] = []
    for name in try path.inode.extendedAttributeNames() {
      if has(name, "trusted."), process.capabilities.effective & Capabilities.administration == 0 { continue }
      list += name
      list.append(0)
    }
    return try give(list, at: b, size: c)
  }

  private func removeAttribute(_ path: Path, _ name: [UInt8]) throws(Errno) -> Int {
    try checkAttribute(path, name, writes: true)
    if isAccessList(name) {
      try setAccessList(path.inode, name, [])
    } else {
      try path.inode.setExtendedAttribute(name, nil, flags: 0)
    }
    changed(path)
    return 0
  }
}
