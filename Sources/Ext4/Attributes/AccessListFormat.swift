import ABI

/// POSIX access control lists are kept shorter than programs see them: version 1, with identities only where an entry
/// has one (fs/ext4/acl.h).
enum AccessListFormat {
  private static func hasIdentity(_ tag: UInt8) -> Bool { tag == 2 || tag == 8 }

  /// From what programs give, version 2: EINVAL for anything else.
  static func disk(_ value: [UInt8]) throws(Errno) -> [UInt8] {
    guard value.count >= 4, (value.count - 4) % 8 == 0, Array(value[..<4]) == [2, 0, 0, 0] else {
      throw .invalid
    }
    var result: [UInt8] = [1, 0, 0, 0]
    for at in stride(from: 4, to: value.count, by: 8) {
      result += value[at..<at + (hasIdentity(value[at]) ? 8 : 4)]
    }
    return result
  }

  /// What programs see; EINVAL for damage.
  static func program(_ value: [UInt8]) throws(Errno) -> [UInt8] {
    guard value.count >= 4, Array(value[..<4]) == [1, 0, 0, 0] else { throw .invalid }
    var result: [UInt8] = [2, 0, 0, 0]
    var at = 4
    while at < value.count {
      guard at + 4 <= value.count else { throw .invalid }
      let length = hasIdentity(value[at]) ? 8 : 4
      guard at + length <= value.count else { throw .invalid }
      result += value[at..<at + length]
      if length == 4 { result += [0xff, 0xff, 0xff, 0xff] }
      at += length
    }
    return result
  }
}
