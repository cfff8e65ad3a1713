public import ABI
import Tasks
import VFS

/// A key or a keyring (keyrings(7)). Kernel lock held for every call.
public final class Key {
  public enum Kind {
    /// The payload can be read by programs.
    case user
    /// The payload cannot.
    case logon
    case large
    case keyring

    public init?(_ name: [UInt8]) {
      if name == bytes("user") {
        self = .user
      } else if name == bytes("logon") {
        self = .logon
      } else if name == bytes("big_key") {
        self = .large
      } else if name == bytes("keyring") {
        self = .keyring
      } else {
        return nil
      }
    }

    var name: [UInt8] {
      switch self {
      case .user: bytes("user")
      case .logon: bytes("logon")
      case .large: bytes("big_key")
      case .keyring: bytes("keyring")
      }
    }

    /// EINVAL for a payload that the kind does not take.
    func check(_ size: Int) throws(Errno) {
      switch self {
      case .user, .logon: guard size > 0, size <= 32767 else { throw .invalid }
      case .large: guard size > 0, size < 1 << 20 else { throw .invalid }
      case .keyring: guard size == 0 else { throw .invalid }
      }
    }
  }

  public let serial: Int32
  public let kind: Kind
  public let description: [UInt8]
  public internal(set) var payload: [UInt8]
  public internal(set) var user: UInt32
  public internal(set) var group: UInt32
  /// A byte each for possessor, user, group and others: view 1, read 2, write 4, search 8, link 16, set 32.
  public internal(set) var permissions: UInt32
  /// Monotonic nanoseconds.
  var expiry: UInt64?
  var isRevoked = false
  /// Asked for and not found (request_key(2)).
  var isNegative = false
  /// A keyring's keys, in order of linking.
  public internal(set) var links: [Key] = []

  init(serial: Int32, _ kind: Kind, _ description: [UInt8], payload: [UInt8], user: UInt32, group: UInt32) {
    self.serial = serial
    self.kind = kind
    self.description = description
    self.payload = payload
    self.user = user
    self.group = group
    permissions = kind == .logon ? 0x3d01_0000 : 0x3f01_0000
  }

  /// EKEYREVOKED, EKEYEXPIRED, ENOKEY for a key that cannot be used any more.
  func checkUsable() throws(Errno) {
    if isRevoked { throw .keyRevoked }
    if let expiry, host.monotonicNanoseconds >= expiry { throw isNegative ? .noKey : .keyExpired }
    if isNegative { throw .noKey }
  }

  /// EACCES. Who owns a key, or is root, is taken for its possessor.
  func check(_ wanted: UInt32, _ credentials: ProcessCredentials) throws(Errno) {
    let me = credentials.effectiveUser
    var bits = permissions
    if me == user {
      bits = permissions >> 24 | permissions >> 16
    } else if credentials.effectiveGroup == group || credentials.groups.contains(group) {
      bits = permissions >> 8
    }
    if credentials.isPrivileged { bits |= permissions >> 24 }
    if bits & wanted != wanted { throw .accessDenied }
  }

  /// Puts `key` into the keyring, in place of one of the same kind and description.
  func link(_ key: Key) {
    links.removeAll { $0 === key || $0.kind == key.kind && $0.description == key.description }
    links.append(key)
  }

  /// A key of that kind and description in the keyring or those in it. Depth is bounded, so that cycles end.
  func find(_ kind: Kind, _ description: [UInt8], depth: Int = 0) -> Key? {
    for key in links where key.kind == kind && key.description == description { return key }
    guard depth < 6 else { return nil }
    for ring in links where ring.kind == .keyring {
      if let found = ring.find(kind, description, depth: depth + 1) { return found }
    }
    return nil
  }

  /// `ring` is in this keyring, or in one that is.
  func contains(_ ring: Key, depth: Int = 0) -> Bool {
    if self === ring { return true }
    guard depth < 6 else { return true }
    for inner in links where inner.kind == .keyring {
      if inner.contains(ring, depth: depth + 1) { return true }
    }
    return false
  }
}

extension Errno {
  /// ENOKEY
  static var noKey: Errno { Errno(rawValue: 126) }
  /// EKEYEXPIRED
  static var keyExpired: Errno { Errno(rawValue: 127) }
  /// EKEYREVOKED
  static var keyRevoked: Errno { Errno(rawValue: 128) }
}
