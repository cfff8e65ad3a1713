public import ABI

/// What `setAttributes` changes; nil leaves it as it is. Times are nanoseconds since 1970.
public struct AttributeChange {
  /// Permissions; the type stays.
  public var mode: UInt32?
  public var user: UInt32?
  public var group: UInt32?
  public var accessed: UInt64?
  public var modified: UInt64?
  /// Of the attributes; nil: now.
  public var changed: UInt64?
  public init() {}
}

extension FileSystem {
  /// chmod(2), chown(2), utimensat(2).
  public func setAttributes(_ inode: DiskInode, _ attributes: AttributeChange) throws(Errno) {
    try perform { () throws(Errno) in
      change(inode)
      if let mode = attributes.mode { inode.mode = inode.type | mode & 0o7777 }
      if let user = attributes.user { inode.user = user }
      if let group = attributes.group { inode.group = group }
      if let accessed = attributes.accessed { inode.accessed = accessed }
      if let modified = attributes.modified { inode.modified = modified }
      inode.changed = attributes.changed ?? clock.realtimeNanoseconds
    }
  }
}
