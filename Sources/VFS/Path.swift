/// A place in the file tree: an inode, its name and its parent. Kept by working directories and open files, so that
/// `..`, getcwd(2) and /proc can tell where they are.
public final class Path {
  public let inode: Inode
  public var name: [UInt8]
  public var parent: Path?

  public init(inode: Inode, name: [UInt8], parent: Path?) {
    self.inode = inode
    self.name = name
    self.parent = parent
  }

  /// The absolute path in bytes, `/` for the root.
  public var absolute: [UInt8] {
    var parts: [[UInt8]] = []
    var place: Path? = self
    while let current = place, current.parent != nil {
      parts.append(current.name)
      place = current.parent
    }
    if parts.isEmpty { return [0x2f] }
    var result: [UInt8] = []
    for part in parts.reversed() {
      result.append(0x2f)
      result.append(contentsOf: part)
    }
    return result
  }

  /// The file of that inode number in the same file system, here or below, by a name of it.
  public func find(_ number: UInt64) -> Path? {
    if inode.status.inode == number { return self }
    var waiting = [self]
    while let directory = waiting.popLast() {
      for name in (try? directory.inode.children()) ?? [] {
        guard let found = try? directory.inode.lookup(name) else { continue }
        let path = Path(inode: found, name: name, parent: directory)
        if found.status.inode == number { return path }
        if found.isDirectory { waiting.append(path) }
      }
    }
    return nil
  }
}
