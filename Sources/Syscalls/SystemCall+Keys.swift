import ABI
import Processes
import Tasks
import VFS

/// Keys (keyrings(7)).
extension SystemCall {
  func dispatchKeys() throws(Errno) -> Int? {
    switch number {
    case 248: return try add_key()
    case 249: return try request_key()
    case 250: return try keyctl()
    default: return nil
    }
  }

  /// The name of a type. EPERM for the kernel's own, which begin with a dot.
  private func typeName(_ address: UInt) throws(Errno) -> [UInt8] {
    var name: [UInt8] = []
    do throws(Errno) { name = try UserSlice.string(address, limit: 32) } catch {
      throw error == .nameTooLong ? .invalid : error
    }
    if name.first == 0x2e { throw .notPermitted }
    guard !name.isEmpty else { throw .invalid }
    return name
  }

  private func payload(_ address: UInt, _ size: UInt) throws(Errno) -> [UInt8] {
    guard size <= (1 << 20) - 1 else { throw .invalid }
    return size == 0 ? [] : try UserSlice(address, Int(size)).bytes()
  }

  private func add_key() throws(Errno) -> Int {
    guard d <= (1 << 20) - 1 else { throw .invalid }
    let type = try typeName(a)
    let description = b == 0 ? [] : try UserSlice.string(b)
    let content = try payload(c, d)
    if type == bytes("keyring"), description.first == 0x2e { throw .notPermitted }
    guard !description.isEmpty else { throw .invalid }
    return Int(try Keys.add(type, description, content, to: int(e), thread: thread))
  }

  private func request_key() throws(Errno) -> Int {
    let type = try typeName(a)
    let description = try UserSlice.string(b)
    if c != 0 { _ = try UserSlice.string(c) }
    return Int(try Keys.request(type, description, makes: c != 0, to: int(d), thread: thread))
  }

  /// Stores as much as fits, and says how much there is.
  private func give(_ content: [UInt8], at address: UInt, size: UInt) throws(Errno) -> Int {
    if address != 0, size > 0 {
      let count = min(content.count, Int(clamping: size))
      try UserSlice(address, count).store(Array(content.prefix(count)))
    }
    return content.count
  }

  private func keyctl() throws(Errno) -> Int {
    let key = int(b)
    switch int(a) {
    case 0: return Int(try Keys.key(key, thread: thread, create: int(c) != 0).serial)
    case 1:
      return Int(try Keys.joinSession(b == 0 ? nil : try UserSlice.string(b), thread: thread))
    case 2: try Keys.update(key, try payload(c, d), thread: thread)
    case 3: try Keys.revoke(key, forgets: false, thread: thread)
    case 4:
      try Keys.change(
        key, user: unsigned(c) == .max ? nil : unsigned(c), group: unsigned(d) == .max ? nil : unsigned(d),
        thread: thread)
    case 5: try Keys.change(key, permissions: unsigned(c), thread: thread)
    case 6: return try give(try Keys.describe(key, thread: thread), at: c, size: d)
    case 7: try Keys.clear(key, thread: thread)
    case 8: try Keys.link(key, to: int(c), thread: thread)
    case 9: try Keys.unlink(key, from: int(c), thread: thread)
    case 10:
      return Int(
        try Keys.search(
          key, try typeName(c), try UserSlice.string(d), to: int(e), thread: thread))
    case 11: return try give(try Keys.read(key, thread: thread), at: c, size: d)
    case 14:
      // Kept only: nothing is made on demand. The old setting: the default.
      guard key >= -1, key <= 7 else { throw .invalid }
      return 0
    case 15: try Keys.setTimeout(key, seconds: unsigned(c), thread: thread)
    case 21: try Keys.revoke(key, forgets: true, thread: thread)
    default: throw .notSupported
    }
    return 0
  }
}
