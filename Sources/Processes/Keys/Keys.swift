public import ABI
import Tasks
import VFS

/// All keys, and the calls on them: add_key(2), request_key(2), keyctl(2). Kernel lock held for every call.
public enum Keys {
  nonisolated(unsafe) private static var lastSerial: Int32 = 0x100_0000
  nonisolated(unsafe) private static var keys: [Int32: Key] = [:]
  nonisolated(unsafe) private static var userRings: [UInt32: Key] = [:]
  nonisolated(unsafe) private static var userSessionRings: [UInt32: Key] = [:]
  /// Bytes of payload and description that a user's keys may have together (/proc/sys/kernel/keys/maxbytes).
  private static let maximumBytes = 25_000_000
  nonisolated(unsafe) private static var usedBytes = 0

  private static func make(
    _ kind: Key.Kind, _ description: [UInt8], _ payload: [UInt8], _ owner: ProcessCredentials
  ) throws(Errno) -> Key {
    collect()
    guard usedBytes + payload.count + description.count + 64 <= maximumBytes else { throw .quota }
    lastSerial &+= 1
    let key = Key(
      serial: lastSerial, kind, description, payload: payload, user: owner.effectiveUser,
      group: owner.effectiveGroup)
    keys[key.serial] = key
    usedBytes += payload.count + description.count + 64
    return key
  }

  /// Keys in no keyring go, once there are many.
  private static func collect() {
    guard keys.count > collectAt else { return }
    var reached: [Int32: Key] = [:]
    var waiting = Array(userRings.values) + Array(userSessionRings.values)
    for process in ProcessTable.processes.values {
      if let ring = process.processKeyring { waiting.append(ring) }
      if let ring = process.sessionKeyring { waiting.append(ring) }
      for thread in process.threads { if let ring = thread.keyring { waiting.append(ring) } }
    }
    while let key = waiting.popLast() {
      if reached[key.serial] != nil { continue }
      reached[key.serial] = key
      waiting += key.links
    }
    keys = reached
    usedBytes = 0
    for key in keys.values { usedBytes += key.payload.count + key.description.count + 64 }
    collectAt = max(256, 2 * keys.count)
  }
  nonisolated(unsafe) private static var collectAt = 256

  // MARK: Finding

  /// The keyrings of a user, made when first asked for: KEY_SPEC_USER_KEYRING and USER_SESSION_KEYRING.
  private static func userRing(_ owner: ProcessCredentials, session: Bool) throws(Errno) -> Key {
    let user = owner.realUser
    if let known = session ? userSessionRings[user] : userRings[user] { return known }
    let ring = try make(
      .keyring, (session ? bytes("_uid_ses.") : bytes("_uid.")) + decimal(UInt64(user)), [], owner)
    if session {
      ring.link(try userRing(owner, session: false))
      userSessionRings[user] = ring
    } else {
      userRings[user] = ring
    }
    return ring
  }

  /// A key by serial or KEY_SPEC_ number: thread -1, process -2, session -3, user -4, user session -5. ENOKEY,
  /// EINVAL; with `create` special keyrings are made.
  public static func key(_ number: Int32, thread: LinuxThread, create: Bool) throws(Errno) -> Key {
    let process = thread.process
    let owner = process.credentials
    switch number {
    case -1:
      if thread.keyring == nil {
        guard create else { throw .noKey }
        thread.keyring = try make(.keyring, bytes("_tid"), [], owner)
      }
      guard let ring = thread.keyring else { throw .noKey }
      return ring
    case -2:
      if process.processKeyring == nil {
        guard create else { throw .noKey }
        process.processKeyring = try make(.keyring, bytes("_pid"), [], owner)
      }
      guard let ring = process.processKeyring else { throw .noKey }
      return ring
    case -3:
      if let ring = process.sessionKeyring { return ring }
      return try userRing(owner, session: true)
    case -4: return try userRing(owner, session: false)
    case -5: return try userRing(owner, session: true)
    case -8 ... -6: throw number == -6 ? .invalid : .noKey
    default:
      guard number > 0 else { throw .invalid }
      guard let key = keys[number] else { throw .noKey }
      return key
    }
  }

  private static func ring(_ number: Int32, thread: LinuxThread, create: Bool = true) throws(Errno) -> Key {
    let key = try key(number, thread: thread, create: create)
    try key.checkUsable()
    guard key.kind == .keyring else { throw .notDirectory }
    return key
  }

  // MARK: Calls

  /// add_key(2): a key of the same kind and description in the keyring is updated.
  public static func add(
    _ type: [UInt8], _ description: [UInt8], _ payload: [UInt8], to number: Int32, thread: LinuxThread
  ) throws(Errno) -> Int32 {
    guard let kind = Key.Kind(type) else { throw .operationNotOnDevice }
    let ring = try ring(number, thread: thread)
    try ring.check(4, thread.process.credentials)
    try kind.check(payload.count)
    if kind == .logon, !description.contains(0x3a) { throw .invalid }
    if kind != .keyring,
      let known = ring.links.first(where: { $0.kind == kind && $0.description == description })
    {
      known.payload = payload
      known.isNegative = false
      known.expiry = nil
      return known.serial
    }
    let key = try make(kind, description, payload, thread.process.credentials)
    ring.link(key)
    return key.serial
  }

  /// request_key(2): looks in the thread's, the process's and the session's keyring. Nobody makes keys on demand, so
  /// with `makes` a key that says no is left behind for a minute.
  public static func request(
    _ type: [UInt8], _ description: [UInt8], makes: Bool, to number: Int32, thread: LinuxThread
  ) throws(Errno) -> Int32 {
    guard let kind = Key.Kind(type) else { throw .noKey }
    var failure = Errno.noKey
    for place in [Int32(-1), -2, -3] {
      guard let ring = try? key(place, thread: thread, create: false) else { continue }
      guard let found = ring.find(kind, description) else { continue }
      do throws(Errno) {
        try found.checkUsable()
        try found.check(8, thread.process.credentials)
        if number != 0 {
          let target = try self.ring(number, thread: thread)
          try target.check(4, thread.process.credentials)
          target.link(found)
        }
        return found.serial
      } catch { failure = error }
    }
    if makes, failure == .noKey {
      let ring = try self.ring(number == 0 ? -3 : number, thread: thread)
      try ring.check(4, thread.process.credentials)
      let key = try make(kind, description, [], thread.process.credentials)
      key.isNegative = true
      key.expiry = host.monotonicNanoseconds &+ 60_000_000_000
      ring.link(key)
    }
    throw failure
  }

  /// KEYCTL_JOIN_SESSION_KEYRING: nil for a keyring without a name. Names that begin with a dot are the kernel's.
  public static func joinSession(_ name: [UInt8]?, thread: LinuxThread) throws(Errno) -> Int32 {
    let process = thread.process
    if let name {
      if name.first == 0x2e { throw .notPermitted }
      for key in keys.values
      where key.kind == .keyring && key.description == name && !key.isRevoked
        && key.user == process.credentials.effectiveUser
      {
        process.sessionKeyring = key
        return key.serial
      }
    }
    let ring = try make(.keyring, name ?? bytes("_ses"), [], process.credentials)
    process.sessionKeyring = ring
    return ring.serial
  }

  /// KEYCTL_UPDATE 2.
  public static func update(_ number: Int32, _ payload: [UInt8], thread: LinuxThread) throws(Errno) {
    let key = try key(number, thread: thread, create: false)
    try key.check(4, thread.process.credentials)
    guard key.kind != .keyring else { throw .notSupported }
    try key.kind.check(payload.count)
    if key.isRevoked { throw .keyRevoked }
    key.payload = payload
    key.isNegative = false
  }

  /// KEYCTL_REVOKE 3, KEYCTL_INVALIDATE 21.
  public static func revoke(_ number: Int32, forgets: Bool, thread: LinuxThread) throws(Errno) {
    let key = try key(number, thread: thread, create: false)
    try key.checkUsable()
    try key.check(forgets ? 8 : 4, thread.process.credentials)
    key.isRevoked = true
    key.payload = []
    key.links = []
    guard forgets else { return }
    keys[key.serial] = nil
    for ring in keys.values where ring.kind == .keyring { ring.links.removeAll { $0 === key } }
  }

  /// KEYCTL_CHOWN 4, KEYCTL_SETPERM 5; nil leaves a value.
  public static func change(
    _ number: Int32, user: UInt32? = nil, group: UInt32? = nil, permissions: UInt32? = nil,
    thread: LinuxThread
  ) throws(Errno) {
    let key = try key(number, thread: thread, create: false)
    let owner = thread.process.credentials
    try key.check(32, owner)
    guard owner.isPrivileged || key.user == owner.effectiveUser && user == nil else { throw .accessDenied }
    if let permissions {
      guard permissions & ~0x3f3f_3f3f == 0 else { throw .invalid }
      key.permissions = permissions
    }
    if let user { key.user = user }
    if let group { key.group = group }
  }

  /// KEYCTL_DESCRIBE 6: `type;uid;gid;perm;description` and a NUL.
  public static func describe(_ number: Int32, thread: LinuxThread) throws(Errno) -> [UInt8] {
    let key = try key(number, thread: thread, create: false)
    try key.check(1, thread.process.credentials)
    var text =
      key.kind.name + [0x3b] + decimal(UInt64(key.user)) + [0x3b] + decimal(UInt64(key.group)) + [0x3b]
    for shift in stride(from: UInt32(28), through: 0, by: -4) {
      let digit = UInt8(key.permissions >> shift & 15)
      text.append(digit < 10 ? 0x30 + digit : 0x57 + digit)
    }
    return text + [0x3b] + key.description + [0]
  }

  /// KEYCTL_CLEAR 7, LINK 8, UNLINK 9. EDEADLK for a cycle of keyrings.
  public static func clear(_ number: Int32, thread: LinuxThread) throws(Errno) {
    let ring = try ring(number, thread: thread)
    try ring.check(4, thread.process.credentials)
    ring.links = []
  }

  public static func link(_ number: Int32, to target: Int32, thread: LinuxThread) throws(Errno) {
    let ring = try ring(target, thread: thread)
    try ring.check(4, thread.process.credentials)
    let key = try key(number, thread: thread, create: true)
    try key.checkUsable()
    try key.check(16, thread.process.credentials)
    if key.kind == .keyring, key.contains(ring) { throw .deadlock }
    ring.link(key)
  }

  public static func unlink(_ number: Int32, from target: Int32, thread: LinuxThread) throws(Errno) {
    let ring = try ring(target, thread: thread, create: false)
    try ring.check(4, thread.process.credentials)
    let key = try key(number, thread: thread, create: false)
    guard ring.links.contains(where: { $0 === key }) else { throw .noSuchFile }
    ring.links.removeAll { $0 === key }
  }

  /// KEYCTL_SEARCH 10.
  public static func search(
    _ number: Int32, _ type: [UInt8], _ description: [UInt8], to target: Int32, thread: LinuxThread
  ) throws(Errno) -> Int32 {
    let ring = try ring(number, thread: thread, create: false)
    try ring.check(8, thread.process.credentials)
    guard let kind = Key.Kind(type), let found = ring.find(kind, description) else { throw .noKey }
    try found.checkUsable()
    if target != 0 { try self.ring(target, thread: thread).link(found) }
    return found.serial
  }

  /// KEYCTL_READ 11: the payload, or a keyring's serial numbers. EOPNOTSUPP for what cannot be read.
  public static func read(_ number: Int32, thread: LinuxThread) throws(Errno) -> [UInt8] {
    let key = try key(number, thread: thread, create: false)
    try key.checkUsable()
    guard key.kind != .logon else { throw .notSupported }
    try key.check(2, thread.process.credentials)
    guard key.kind == .keyring else { return key.payload }
    var bytes: [UInt8] = []
    for link in key.links {
      for shift in stride(from: Int32(0), to: 32, by: 8) {
        bytes.append(UInt8(truncatingIfNeeded: link.serial >> shift))
      }
    }
    return bytes
  }

  /// KEYCTL_SET_TIMEOUT 15; 0 seconds for none.
  public static func setTimeout(_ number: Int32, seconds: UInt32, thread: LinuxThread) throws(Errno) {
    let key = try key(number, thread: thread, create: false)
    try key.check(32, thread.process.credentials)
    key.expiry = seconds == 0 ? nil : host.monotonicNanoseconds &+ UInt64(seconds) &* 1_000_000_000
  }
}
