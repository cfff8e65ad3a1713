/// The hashes of directory entries' names (Documentation/filesystems/ext4/directory.rst, "Hash Tree Directories").
struct DirectoryHash {
  /// Even; the low bit marks continued leaves in the index.
  var major: UInt32
  var minor: UInt32

  /// `version`: 0 legacy, 1 half MD4, 2 TEA; nil for others.
  init?(_ name: [UInt8], version: UInt8, unsigned: Bool, seed: (UInt32, UInt32, UInt32, UInt32)) {
    var state: (UInt32, UInt32, UInt32, UInt32) = (0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476)
    if seed.0 | seed.1 | seed.2 | seed.3 != 0 { state = seed }
    switch version {
    case 0:
      major = DirectoryHash.legacy(name, unsigned)
      minor = 0
    case 1:
      var at = 0
      while at < name.count {
        DirectoryHash.mixHalfMD4(&state, DirectoryHash.words(name, at, 8, unsigned))
        at += 32
      }
      (major, minor) = (state.1, state.2)
    case 2:
      var at = 0
      while at < name.count {
        DirectoryHash.mixTEA(&state, DirectoryHash.words(name, at, 4, unsigned))
        at += 16
      }
      (major, minor) = (state.0, state.1)
    default: return nil
    }
    major &= ~1
    // The highest value means the end of a directory.
    if major == 0xFFFF_FFFE { major = 0xFFFF_FFFC }
  }

  @inline(__always)
  private static func widen(_ byte: UInt8, _ unsigned: Bool) -> UInt32 {
    unsigned ? UInt32(byte) : UInt32(bitPattern: Int32(Int8(bitPattern: byte)))
  }

  private static func legacy(_ name: [UInt8], _ unsigned: Bool) -> UInt32 {
    var (last, before): (UInt32, UInt32) = (0x12A3_FE2D, 0x37AB_E8F9)
    for byte in name {
      var hash = before &+ (last ^ (widen(byte, unsigned) &* 7_152_373))
      if hash & 0x8000_0000 != 0 { hash = hash &- 0x7FFF_FFFF }
      (before, last) = (last, hash)
    }
    return last << 1
  }

  /// The name from `start` on as `count` numbers, filled up with its length.
  private static func words(_ name: [UInt8], _ start: Int, _ count: Int, _ unsigned: Bool) -> [UInt32] {
    let rest = name.count - start
    var pad = UInt32(truncatingIfNeeded: rest) | UInt32(truncatingIfNeeded: rest) << 8
    pad |= pad << 16
    var result: [UInt32] = []
    result.reserveCapacity(count)
    var value = pad
    let length = min(rest, count * 4)
    for i in 0..<length {
      value = widen(name[start + i], unsigned) &+ (value << 8)
      if i & 3 == 3 {
        result.append(value)
        value = pad
      }
    }
    if result.count < count { result.append(value) }
    while result.count < count { result.append(pad) }
    return result
  }

  private static func mixTEA(_ state: inout (UInt32, UInt32, UInt32, UInt32), _ key: [UInt32]) {
    var sum: UInt32 = 0
    var (x, y) = (state.0, state.1)
    for _ in 0..<16 {
      sum = sum &+ 0x9E37_79B9
      x = x &+ (((y << 4) &+ key[0]) ^ (y &+ sum) ^ ((y >> 5) &+ key[1]))
      y = y &+ (((x << 4) &+ key[2]) ^ (x &+ sum) ^ ((x >> 5) &+ key[3]))
    }
    state.0 = state.0 &+ x
    state.1 = state.1 &+ y
  }

  /// Three rounds of eight steps of MD4.
  private static func mixHalfMD4(_ state: inout (UInt32, UInt32, UInt32, UInt32), _ words: [UInt32]) {
    var (a, b, c, d) = state
    for step in 0..<8 {
      let shift: UInt32 = step & 3 == 0 ? 3 : step & 3 == 1 ? 7 : step & 3 == 2 ? 11 : 19
      turn(&a, &b, &c, &d, (d ^ (b & (c ^ d))) &+ words[step], shift)
    }
    for step in 0..<8 {
      let word = words[step < 4 ? step * 2 + 1 : (step - 4) * 2] &+ 0x5A82_7999
      let shift: UInt32 = step & 3 == 0 ? 3 : step & 3 == 1 ? 5 : step & 3 == 2 ? 9 : 13
      turn(&a, &b, &c, &d, ((b & c) &+ ((b ^ c) & d)) &+ word, shift)
    }
    for step in 0..<8 {
      // 3, 7, 2, 6, 1, 5, 0, 4
      let word = words[3 - step / 2 + (step & 1) * 4] &+ 0x6ED9_EBA1
      let shift: UInt32 = step & 3 == 0 ? 3 : step & 3 == 1 ? 9 : step & 3 == 2 ? 11 : 15
      turn(&a, &b, &c, &d, (b ^ c ^ d) &+ word, shift)
    }
    state = (state.0 &+ a, state.1 &+ b, state.2 &+ c, state.3 &+ d)
  }

  /// Adds to `a`, turns it left, and passes the roles on: each step works on the next letter.
  @inline(__always)
  private static func turn(
    _ a: inout UInt32, _ b: inout UInt32, _ c: inout UInt32, _ d: inout UInt32, _ value: UInt32,
    _ shift: UInt32
  ) {
    let sum = a &+ value
    let turned = sum << shift | sum >> (32 - shift)
    (a, b, c, d) = (d, turned, b, c)
  }
}
