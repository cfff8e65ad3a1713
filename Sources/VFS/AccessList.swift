public import ABI

/// A POSIX access control list (acl(5)), as programs see it in system.posix_acl_access and system.posix_acl_default
/// (linux/posix_acl_xattr.h).
public struct AccessList: Equatable {
  enum Tag {
    static let userOwner: UInt16 = 1
    static let user: UInt16 = 2
    static let groupOwner: UInt16 = 4
    static let group: UInt16 = 8
    static let mask: UInt16 = 16
    static let other: UInt16 = 32
  }
  struct Entry: Equatable {
    var tag: UInt16
    /// 4 read, 2 write, 1 execute or search.
    var permissions: UInt32
    /// Of the user or the group that the entry names.
    var identity: UInt32
  }

  public static let accessName = bytes("system.posix_acl_access")
  public static let defaultName = bytes("system.posix_acl_default")

  private(set) var entries: [Entry] = []

  /// Nil for what is no valid list: its entries must be complete and in order.
  public init?(_ value: [UInt8]) {
    guard value.count >= 4, (value.count - 4) % 8 == 0, AccessList.number(value, 0, 4) == 2 else {
      return nil
    }
    for at in stride(from: 4, to: value.count, by: 8) {
      let permissions = AccessList.number(value, at + 2, 2)
      guard permissions <= 7 else { return nil }
      entries.append(
        Entry(
          tag: UInt16(AccessList.number(value, at, 2)), permissions: permissions,
          identity: AccessList.number(value, at + 4, 4)))
    }
    guard isComplete else { return nil }
  }

  private static func number(_ bytes: [UInt8], _ at: Int, _ size: Int) -> UInt32 {
    var result: UInt32 = 0
    for i in 0..<size { result |= UInt32(bytes[at + i]) << UInt32(8 * i) }
    return result
  }

  /// Owner, users, owning group, groups, mask (which named entries need), others: each tag in its turn.
  private var isComplete: Bool {
    var previous: UInt16 = 0
    var needsMask = false
    var seen: UInt16 = 0
    for entry in entries {
      let mayRepeat = entry.tag == Tag.user || entry.tag == Tag.group
      guard entry.tag.nonzeroBitCount == 1, entry.tag <= Tag.other,
        entry.tag > previous || mayRepeat && entry.tag == previous
      else { return false }
      if mayRepeat { needsMask = true }
      seen |= entry.tag
      previous = entry.tag
    }
    let needed = Tag.userOwner | Tag.groupOwner | Tag.other
    return seen & needed == needed && (!needsMask || seen & Tag.mask != 0)
  }

  public var value: [UInt8] {
    var result: [UInt8] = [2, 0, 0, 0]
    for entry in entries {
      let isNamed = entry.tag == Tag.user || entry.tag == Tag.group
      let identity = isNamed ? entry.identity : UInt32.max
      result += [UInt8(truncatingIfNeeded: entry.tag), 0, UInt8(truncatingIfNeeded: entry.permissions), 0]
      for shift: UInt32 in [0, 8, 16, 24] { result.append(UInt8(truncatingIfNeeded: identity >> shift)) }
    }
    return result
  }

  /// It says no more than the mode's nine bits.
  public var isMinimal: Bool { entries.count == 3 }

  private func permissions(_ tag: UInt16) -> UInt32? {
    for entry in entries where entry.tag == tag { return entry.permissions }
    return nil
  }

  /// The entry that the group's bits of the mode show: the mask, or the owning group's without one.
  private var groupTag: UInt16 { permissions(Tag.mask) == nil ? Tag.groupOwner : Tag.mask }

  /// The nine bits of the mode that go with it.
  public var mode: UInt32 {
    (permissions(Tag.userOwner) ?? 0) << 6 | (permissions(groupTag) ?? 0) << 3 | (permissions(Tag.other) ?? 0)
  }

  /// chmod(2).
  public mutating func change(mode: UInt32) {
    let group = groupTag
    for index in entries.indices {
      switch entries[index].tag {
      case Tag.userOwner: entries[index].permissions = mode >> 6 & 7
      case group: entries[index].permissions = mode >> 3 & 7
      case Tag.other: entries[index].permissions = mode & 7
      default: break
      }
    }
  }

  /// What a new file of `mode` gets in a directory whose default list this is: nobody may do more than `mode` says.
  func inherited(mode: UInt32) -> AccessList {
    var result = self
    result.change(mode: self.mode & mode)
    return result
  }

  /// The access check algorithm of acl(5) for who is not the owner.
  func permits(_ wanted: UInt32, _ who: Credentials, group: UInt32) -> Bool {
    let mask = permissions(Tag.mask) ?? 7
    var isInGroup = false
    for entry in entries {
      switch entry.tag {
      case Tag.user where entry.identity == who.user: return entry.permissions & mask & wanted == wanted
      case Tag.groupOwner, Tag.group:
        let identity = entry.tag == Tag.group ? entry.identity : group
        guard identity == who.group || who.groups.contains(identity) else { continue }
        if entry.permissions & mask & wanted == wanted { return true }
        isInGroup = true
      case Tag.other: return !isInGroup && entry.permissions & wanted == wanted
      default: break
      }
    }
    return false
  }
}

extension Inode {
  /// Its access control list, or with `isDefault` that of new files in it; nil if the mode says everything.
  public final func accessList(isDefault: Bool = false) -> AccessList? {
    guard mayHaveAttributes else { return nil }
    if accessLists == nil {
      let name = AccessList.accessName
      accessLists = (
        (try? extendedAttribute(name)).flatMap { AccessList($0) },
        isDirectory ? (try? extendedAttribute(AccessList.defaultName)).flatMap { AccessList($0) } : nil
      )
    }
    return isDefault ? accessLists?.initial : accessLists?.access
  }

  /// Makes `list` the access control list, and the mode what goes with it; nil takes it away. A list that says no more
  /// than the mode is not kept.
  public final func setAccessList(_ list: AccessList?) throws(Errno) {
    if let list, !list.isMinimal {
      try setExtendedAttribute(AccessList.accessName, list.value, flags: 0)
    } else if accessList() != nil {
      try setExtendedAttribute(AccessList.accessName, nil, flags: 0)
    }
    if let list, list.mode != status.mode & 0o777 {
      try setAttributes(mode: status.mode & 0o7000 | list.mode, user: nil, group: nil)
    }
  }

  /// Gives a new file in this directory what the directory's default list says; `mode` is what its maker asked for.
  final func inherit(to inode: Inode, mode: UInt32) throws(Errno) {
    guard let list = accessList(isDefault: true), !inode.isSymlink else { return }
    try inode.setAccessList(list.inherited(mode: mode & 0o777))
    if inode.isDirectory {
      try inode.setExtendedAttribute(AccessList.defaultName, list.value, flags: 0)
    }
  }
}
