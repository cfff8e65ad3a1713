import Image

extension FileCollection {
  /// Adds the directories and the files of /etc that programs expect, where they are missing.
  public mutating func addMinimalSystem() {
    for directory in ["dev", "proc", "sys", "run", "var"] {
      addMissing(directory, mode: FileType.directory | 0o755)
    }
    addMissing("root", mode: FileType.directory | 0o700)
    addMissing("tmp", mode: FileType.directory | 0o1777)
    addMissing("var/tmp", mode: FileType.directory | 0o1777)
    addMissing("etc", mode: FileType.directory | 0o755)
    addMissing(
      "etc/passwd", mode: FileType.regular | 0o644,
      """
      root:x:0:0:root:/root:/bin/sh
      www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
      nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin

      """)
    addMissing(
      "etc/group", mode: FileType.regular | 0o644, "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n")
    addMissing(
      "etc/hosts", mode: FileType.regular | 0o644, "127.0.0.1\tlocalhost\n::1\tlocalhost\n")
    addMissing(
      "etc/nsswitch.conf", mode: FileType.regular | 0o644,
      "passwd: files\ngroup: files\nhosts: files dns\n")
    // The libOS answers for this file once it knows the name servers.
    addMissing("etc/resolv.conf", mode: FileType.regular | 0o644)
  }
}

/// The user database of an image: the content of its /etc/passwd and /etc/group.
public struct UserDatabase {
  private let users: [[Path]]
  private let groups: [[Path]]

  public init(passwd: [UInt8], group: [UInt8]) {
    users = fields(passwd, atLeast: 4)
    groups = fields(group, atLeast: 3)
  }

  public init(_ files: FileCollection) throws(BuildError) {
    self.init(
      passwd: try files.data(of: Path("etc/passwd")) ?? [], group: try files.data(of: Path("etc/group")) ?? []
    )
  }

  /// The identity for `USER[:GROUP]`, each a name or a number.
  public func identity(_ text: String) throws(BuildError) -> UserIdentity {
    let parts = Path(text).split(separator: UInt8(ascii: ":"), maxSplits: 1, omittingEmptySubsequences: false)
      .map { Path($0) }
    let named = users.first { $0[0] == parts[0] }
    guard let uid = number(parts[0]) ?? named.flatMap({ number($0[2]) }) else {
      throw BuildError("no user \(parts[0].text) in the image's /etc/passwd")
    }
    guard parts.count == 2 else {
      let user = named ?? users.first { number($0[2]) == uid }
      return UserIdentity(uid: uid, gid: user.flatMap { number($0[3]) } ?? 0)
    }
    let group = groups.first { $0[0] == parts[1] }
    guard let gid = number(parts[1]) ?? group.flatMap({ number($0[2]) }) else {
      throw BuildError("no group \(parts[1].text) in the image's /etc/group")
    }
    return UserIdentity(uid: uid, gid: gid)
  }
}

private func number(_ text: Path) -> UInt32? {
  guard let number = UInt32(text.text), number != UInt32.max else { return nil }
  return number
}

private func fields(_ text: [UInt8], atLeast count: Int) -> [[Path]] {
  text.split(separator: UInt8(ascii: "\n")).map { line in
    line.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false).map { Path($0) }
  }.filter { $0.count >= count }
}
