import ABI

/// An extended attribute: the prefix of its name as a number, the rest of the name, and its value.
struct Attribute {
  var prefix: UInt8
  var name: [UInt8]
  var value: [UInt8]

  /// Bytes of the entry and of the value, both in units of four.
  var entrySize: Int { (16 + name.count + 3) & ~3 }
  var valueSize: Int { (value.count + 3) & ~3 }

  /// The entry's hash: of the name's bytes, then of the value's words.
  var hash: UInt32 {
    var hash: UInt32 = 0
    for byte in name { hash = hash << 5 ^ hash >> 27 ^ UInt32(byte) }
    var index = 0
    while index < value.count {
      var word: UInt32 = 0
      for i in 0..<4 where index + i < value.count { word |= UInt32(value[index + i]) << UInt32(8 * i) }
      hash = hash << 16 ^ hash >> 16 ^ word
      index += 4
    }
    return hash
  }

  /// The order of entries in a block: prefix, length of the name, name.
  func precedes(_ other: Attribute) -> Bool {
    if prefix != other.prefix { return prefix < other.prefix }
    if name.count != other.name.count { return name.count < other.name.count }
    for i in 0..<name.count where name[i] != other.name[i] { return name[i] < other.name[i] }
    return false
  }

  func isNamed(_ prefix: UInt8, _ name: [UInt8]) -> Bool { self.prefix == prefix && self.name == name }
}

/// The prefixes that names on the disk have as numbers. POSIX ACLs have no rest of the name.
enum AttributeName {
  private static let prefixes: [(UInt8, StaticString)] = [
    (2, "system.posix_acl_access"), (3, "system.posix_acl_default"), (1, "user."), (4, "trusted."),
    (6, "security."), (8, "system.richacl"), (7, "system."),
  ]

  /// EOPNOTSUPP for other name spaces.
  static func split(_ name: [UInt8]) throws(Errno) -> (UInt8, [UInt8]) {
    for (number, prefix) in prefixes {
      let length = prefix.utf8CodeUnitCount
      let isWhole = number == 2 || number == 3 || number == 8
      guard isWhole ? name.count == length : name.count > length, starts(name, prefix) else { continue }
      return (number, Array(name[length...]))
    }
    throw .notSupported
  }

  private static func starts(_ name: [UInt8], _ prefix: StaticString) -> Bool {
    for i in 0..<prefix.utf8CodeUnitCount where name[i] != prefix.utf8Start[i] { return false }
    return true
  }

  static func isAccessList(_ prefix: UInt8) -> Bool { prefix == 2 || prefix == 3 }

  static func join(_ number: UInt8, _ rest: [UInt8]) -> [UInt8]? {
    for (other, prefix) in prefixes where other == number {
      var name: [UInt8] = []
      for i in 0..<prefix.utf8CodeUnitCount { name.append(prefix.utf8Start[i]) }
      return name + rest
    }
    return nil
  }
}

/// A place for attributes: entries grow from its start, values from its end.
struct AttributeArea {
  let view: ByteView
  /// Where the entries start.
  let start: Int
  /// What values' offsets are counted from.
  let base: Int

  /// Bytes for entries and values; four end the list.
  var room: Int { view.count - start - 4 }

  /// EUCLEAN if an entry reaches out of the area.
  func read() throws(Errno) -> [Attribute] {
    var result: [Attribute] = []
    var offset = start
    while offset + 4 <= view.count, view.u32(offset) != 0 {
      guard offset + 16 <= view.count else { throw .damaged }
      let length = Int(view.u8(offset))
      let (place, size) = (Int(view.u16(offset + 2)) + base, Int(view.u32(offset + 8)))
      guard view.u32(offset + 4) == 0, view.holds(offset + 16, length),
        size == 0 || view.holds(place, size) && place >= start
      else { throw .damaged }
      result.append(
        Attribute(
          prefix: view.u8(offset + 1), name: view.bytes(offset + 16, length),
          value: size == 0 ? [] : view.bytes(place, size)))
      offset += (16 + length + 3) & ~3
    }
    return result
  }

  /// Writes attributes that fit.
  func write(_ attributes: [Attribute]) {
    view.clear(start, view.count - start)
    var (offset, end) = (start, view.count)
    for attribute in attributes {
      end -= attribute.valueSize
      view.set8(offset, UInt8(truncatingIfNeeded: attribute.name.count))
      view.set8(offset + 1, attribute.prefix)
      if !attribute.value.isEmpty { view.set16(offset + 2, UInt16(truncatingIfNeeded: end - base)) }
      view.set32(offset + 8, UInt32(truncatingIfNeeded: attribute.value.count))
      view.set32(offset + 12, attribute.hash)
      view.store(attribute.name, at: offset + 16)
      view.store(attribute.value, at: end)
      offset += attribute.entrySize
    }
  }
}
