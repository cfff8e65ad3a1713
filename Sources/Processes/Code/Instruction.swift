/// The shape of an x86-64 instruction (Intel SDM 2, chapter 2 and appendix A): as much as it takes to find where the
/// next one begins, and to move it elsewhere.
struct Instruction {
  private(set) var length = 0
  /// 0: one-byte opcodes, 1: behind 0F, 2: 0F 38, 3: 0F 3A.
  private(set) var map = 0
  private(set) var opcode: UInt8 = 0
  /// Of the opcode's first byte, 0F included.
  private(set) var opcodeOffset = 0
  private(set) var modRM: UInt8 = 0
  /// Of the ModRM byte; 0 without.
  private(set) var modRMOffset = 0
  /// Of a displacement of 4 bytes that counts from the next instruction; 0 without.
  private(set) var relativeMemoryOffset = 0
  /// Of the distance of a jump or call, and its bytes; 0 without.
  private(set) var branchOffset = 0
  private(set) var branchBytes = 0

  static func isLegacyPrefix(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3: true
    default: false
    }
  }

  private var isWide = false
  private var isShort = false
  private var hasVectorPrefix = false

  /// Nil for what is no instruction, or cut off.
  init?(_ bytes: [UInt8], at start: Int) {
    var at = start
    while at < bytes.count, Instruction.isLegacyPrefix(bytes[at]) {
      if bytes[at] == 0x66 { isShort = true }
      at += 1
    }
    if at < bytes.count, bytes[at] & 0xf0 == 0x40 {
      isWide = bytes[at] & 8 != 0
      at += 1
    }
    opcodeOffset = at - start
    guard let afterOpcode = readOpcode(bytes, at) else { return nil }
    at = afterOpcode
    if hasModRM {
      guard let behind = readModRM(bytes, at, start) else { return nil }
      at = behind
    }
    guard let immediate = immediateBytes else { return nil }
    if isBranch {
      branchOffset = at - start
      branchBytes = immediate
    }
    length = at - start + immediate
    guard length <= 15, start + length <= bytes.count else { return nil }
  }

  private mutating func readOpcode(_ bytes: [UInt8], _ start: Int) -> Int? {
    guard start + 5 < bytes.count else { return nil }
    opcode = bytes[start]
    switch opcode {
    case 0x0f:
      opcode = bytes[start + 1]
      map = opcode == 0x38 ? 2 : opcode == 0x3a ? 3 : 1
      if map == 1 { return start + 2 }
      opcode = bytes[start + 2]
      return start + 3
    case 0xc5:
      (map, opcode, hasVectorPrefix) = (1, bytes[start + 2], true)
      return start + 3
    case 0xc4:
      (map, opcode, hasVectorPrefix) = (Int(bytes[start + 1] & 0x1f), bytes[start + 3], true)
      return map >= 1 && map <= 3 ? start + 4 : nil
    case 0x62:
      (map, opcode, hasVectorPrefix) = (Int(bytes[start + 1] & 7), bytes[start + 4], true)
      return map >= 1 && map <= 6 && map != 4 ? start + 5 : nil
    default: return start + 1
    }
  }

  private var hasModRM: Bool {
    if hasVectorPrefix { return !(map == 1 && opcode == 0x77) }
    if map >= 2 { return true }
    if map == 1 {
      switch opcode {
      case 0x05...0x09, 0x0b, 0x0e, 0x30...0x37, 0x77, 0x80...0x8f, 0xa0...0xa2, 0xa8...0xaa, 0xc8...0xcf:
        return false
      default: return true
      }
    }
    switch opcode {
    case 0x00...0x3f: return opcode & 7 < 4
    case 0x63, 0x69, 0x6b, 0x80...0x8f, 0xc0, 0xc1, 0xc6, 0xc7, 0xd0...0xd3, 0xd8...0xdf, 0xf6, 0xf7, 0xfe,
      0xff:
      return true
    default: return false
    }
  }

  private mutating func readModRM(_ bytes: [UInt8], _ at: Int, _ start: Int) -> Int? {
    guard at + 1 < bytes.count else { return nil }
    modRM = bytes[at]
    modRMOffset = at - start
    let (mode, place) = (modRM >> 6, modRM & 7)
    if mode == 3 { return at + 1 }
    var behind = at + 1
    var hasLongDisplacement = mode == 2
    if place == 4 {
      hasLongDisplacement = hasLongDisplacement || mode == 0 && bytes[at + 1] & 7 == 5
      behind += 1
    } else if place == 5, mode == 0 {
      hasLongDisplacement = true
      relativeMemoryOffset = behind - start
    }
    return behind + (mode == 1 ? 1 : hasLongDisplacement ? 4 : 0)
  }

  private var isBranch: Bool {
    guard !hasVectorPrefix else { return false }
    if map == 1 { return opcode & 0xf0 == 0x80 }
    guard map == 0 else { return false }
    switch opcode {
    case 0x70...0x7f, 0xe0...0xe3, 0xe8, 0xe9, 0xeb: return true
    default: return false
    }
  }

  /// Bytes behind ModRM and displacement; nil for no instruction.
  private var immediateBytes: Int? {
    if map == 3 { return 1 }
    if map == 2 || map > 3 { return 0 }
    if map == 1 {
      switch opcode {
      case 0x04, 0x0a, 0x0c, 0x24...0x27, 0x36, 0x39, 0x3b...0x3f: return nil
      case 0x70...0x73, 0xa4, 0xac, 0xba, 0xc2, 0xc4...0xc6: return 1
      case 0x80...0x8f: return hasVectorPrefix ? 0 : 4
      default: return 0
      }
    }
    return oneByteImmediate
  }

  private var oneByteImmediate: Int? {
    let long = isShort ? 2 : 4
    switch opcode {
    case 0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60...0x62, 0x82, 0x9a, 0xc4,
      0xc5, 0xce,
      0xd4...0xd6, 0xea:
      return nil
    case 0x00...0x3f: return opcode & 7 == 4 ? 1 : opcode & 7 == 5 ? long : 0
    case 0x68, 0x69, 0x81, 0xa9, 0xc7: return long
    case 0x6a, 0x6b, 0x70...0x80, 0x83, 0xa8, 0xb0...0xb7, 0xc0, 0xc1, 0xc6, 0xcd, 0xe0...0xe7, 0xeb: return 1
    case 0xa0...0xa3: return 8
    case 0xb8...0xbf: return isWide ? 8 : long
    case 0xc2, 0xca: return 2
    case 0xc8: return 3
    case 0xe8, 0xe9: return 4
    case 0xf6: return modRM & 0x38 < 0x10 ? 1 : 0
    case 0xf7: return modRM & 0x38 < 0x10 ? long : 0
    default: return 0
    }
  }
}

extension Instruction {
  /// The instruction around `target` in code, `bytes`: where it begins. Every place to begin within the sixteen bytes
  /// from `from` on leads there or nowhere; one of them is a true beginning, if all of that is code.
  static func around(_ target: Int, in bytes: [UInt8], from: Int) -> (start: Int, instruction: Instruction)? {
    var found: (start: Int, instruction: Instruction)?
    for start in max(from, 0)..<max(from, 0) + 16 where start <= target {
      var at = start
      while let instruction = Instruction(bytes, at: at) {
        if at + instruction.length > target {
          if let found, found.start != at { return nil }
          found = (at, instruction)
          break
        }
        at += instruction.length
      }
    }
    return found
  }

  /// The code that does at `place` what this instruction, `code`, does at `origin`; nil if that is not known.
  func moved(_ code: [UInt8], from origin: UInt, to place: UInt) -> [UInt8]? {
    if branchOffset != 0 { return movedBranch(code, from: origin, to: place) }
    guard relativeMemoryOffset != 0 else { return code }
    var result = code
    var start: UInt = 0
    if map == 0, opcode == 0xff, modRM & 0x38 == 0x10 {
      // An indirect call: the return address is pushed apart, and what is left is a jump.
      let push = Instruction.push(origin &+ UInt(length))
      start = UInt(push.count)
      result[modRMOffset] = modRM & 0xc7 | 0x20
      result = push + result
    }
    let target = origin &+ UInt(length) &+ Instruction.distance(code, relativeMemoryOffset, 4)
    guard let distance = Instruction.encode(target, from: place &+ start &+ UInt(length)) else { return nil }
    let offset = Int(start) + relativeMemoryOffset
    result.replaceSubrange(offset..<offset + 4, with: distance)
    return result
  }

  private func movedBranch(_ code: [UInt8], from origin: UInt, to place: UInt) -> [UInt8]? {
    let target = origin &+ UInt(length) &+ Instruction.distance(code, branchOffset, branchBytes)
    var result: [UInt8]
    switch opcode {
    case 0xe8 where map == 0: result = Instruction.push(origin &+ UInt(length)) + [0xe9]
    case 0xe9 where map == 0, 0xeb where map == 0: result = [0xe9]
    case 0x70...0x7f where map == 0: result = [0x0f, opcode + 0x10]
    case 0x80...0x8f where map == 1: result = [0x0f, opcode]
    default: return nil
    }
    guard let distance = Instruction.encode(target, from: place &+ UInt(result.count + 4)) else { return nil }
    return result + distance
  }

  /// push $low; movl $high, 4(%rsp): flags and registers stay.
  private static func push(_ value: UInt) -> [UInt8] {
    [0x68] + littleEndian(UInt32(truncatingIfNeeded: value)) + [0xc7, 0x44, 0x24, 0x04]
      + littleEndian(UInt32(truncatingIfNeeded: value >> 32))
  }

  private static func distance(_ code: [UInt8], _ offset: Int, _ bytes: Int) -> UInt {
    if bytes == 1 { return UInt(bitPattern: Int(Int8(bitPattern: code[offset]))) }
    return UInt(bitPattern: Int(Int32(bitPattern: code.field32(offset))))
  }

  /// Four bytes that lead from `next` to `target`; nil when that is too far.
  static func encode(_ target: UInt, from next: UInt) -> [UInt8]? {
    let distance = Int(bitPattern: target &- next)
    guard distance == Int(Int32(truncatingIfNeeded: distance)) else { return nil }
    return littleEndian(UInt32(bitPattern: Int32(distance)))
  }

  static func littleEndian(_ value: UInt32) -> [UInt8] {
    [
      UInt8(truncatingIfNeeded: value), UInt8(truncatingIfNeeded: value >> 8),
      UInt8(truncatingIfNeeded: value >> 16), UInt8(truncatingIfNeeded: value >> 24),
    ]
  }
}
