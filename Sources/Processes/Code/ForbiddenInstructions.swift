/// Instructions that must not lie in memory that a program may execute, where protection keys keep it out of the
/// libOS: at whatever byte they begin, for a program can jump there.
public struct ForbiddenInstructions: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// WRPKRU: 0F 01 EF.
  public static var writeKeys: ForbiddenInstructions { ForbiddenInstructions(rawValue: 1) }
  /// WRGSBASE: F3 0F AE /3 with a register. The gate finds its thread by the GS base.
  public static var writeGSBase: ForbiddenInstructions { ForbiddenInstructions(rawValue: 2) }
  /// XRSTOR: 0F AE /5 with memory, which may hold PKRU; unless a check of its mask follows (`checkedRestoreTail`).
  public static var restoreState: ForbiddenInstructions { ForbiddenInstructions(rawValue: 4) }

  /// Bytes before an instruction that can change what it is, and bytes of it that decide.
  static var before: Int { 16 }
  static var after: Int { 2 }

  /// The first of them that begins, with its 0F, at `from` or behind; `bytes` says what is around, too.
  func first(in bytes: [UInt8], from: Int) -> Int? {
    var index = from
    while let next = ForbiddenInstructions.escape(in: bytes, from: index), next + 2 < bytes.count {
      if matches(bytes, next) { return next }
      index = next + 1
    }
    return nil
  }

  /// The first byte 0F at `from` or behind. Eight bytes at a time: most of code has none.
  private static func escape(in bytes: [UInt8], from: Int) -> Int? {
    bytes.withUnsafeBytes { code in
      var index = from
      while index + 8 <= code.count {
        let word = code.loadUnaligned(fromByteOffset: index, as: UInt64.self) ^ 0x0f0f_0f0f_0f0f_0f0f
        // A byte of it is zero (Hacker's Delight, 6-1); the lowest such byte is the first.
        let zeros = (word &- 0x0101_0101_0101_0101) & ~word & 0x8080_8080_8080_8080
        if zeros != 0 { return index + zeros.trailingZeroBitCount >> 3 }
        index += 8
      }
      while index < code.count {
        if code[index] == 0x0f { return index }
        index += 1
      }
      return nil
    }
  }

  private func matches(_ bytes: [UInt8], _ index: Int) -> Bool {
    let next = bytes[index + 1]
    let last = bytes[index + 2]
    if next == 0x01 { return last == 0xef && contains(.writeKeys) }
    guard next == 0xae else { return false }
    if last >= 0xd8, last <= 0xdf {
      return contains(.writeGSBase) && ForbiddenInstructions.hasRepeatPrefix(bytes, index)
    }
    return last < 0xc0 && last & 0x38 == 0x28 && contains(.restoreState)
      && !ForbiddenInstructions.isChecked(bytes, index)
  }

  /// F3 among the prefixes that end at `index`.
  private static func hasRepeatPrefix(_ bytes: [UInt8], _ index: Int) -> Bool {
    var at = index - 1
    while at >= 0, at > index - 15 {
      let byte = bytes[at]
      if byte == 0xf3 { return true }
      guard Instruction.isLegacyPrefix(byte) || byte & 0xf0 == 0x40 else { return false }
      at -= 1
    }
    return false
  }

  /// test $0x200, %eax; jnz to the ud2 behind a jmp: no way leads past it with PKRU in the mask.
  static func checkedRestoreTail(jump: [UInt8]) -> [UInt8] {
    [0xa9, 0x00, 0x02, 0x00, 0x00, 0x75, 0x05] + jump + [0x0f, 0x0b]
  }

  private static func isChecked(_ bytes: [UInt8], _ index: Int) -> Bool {
    guard let instruction = Instruction(bytes, at: index) else { return false }
    let tail = index + instruction.length
    guard tail + 14 <= bytes.count, bytes[tail + 7] == 0xe9 else { return false }
    return Array(bytes[tail..<tail + 14]) == checkedRestoreTail(jump: Array(bytes[tail + 7..<tail + 12]))
  }
}

/// What guards executable memory; set by the host at start.
public enum CodeGuard {
  /// Empty where nothing is guarded.
  nonisolated(unsafe) public static var forbidden: ForbiddenInstructions = []
  static var isOn: Bool { !forbidden.isEmpty }

  /// Pages of the image, which never change, that hold nothing forbidden: a bit each.
  nonisolated(unsafe) private static var clean: [UInt64] = []

  static func isClean(imageOffset: UInt) -> Bool {
    let page = Int(imageOffset >> 12)
    return page >> 6 < clean.count && clean[page >> 6] & (1 << UInt64(page & 63)) != 0
  }

  static func noteClean(imageOffset: UInt) {
    let page = Int(imageOffset >> 12)
    while clean.count <= page >> 6 { clean.append(0) }
    clean[page >> 6] |= 1 << UInt64(page & 63)
  }
}
