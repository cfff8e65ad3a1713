public import ABI
public import Tasks

/// struct termios of the kernel's TCGETS (asm-generic/termbits.h): 36 bytes.
public struct TerminalSettings {
  public var input: UInt32 = 0x500  // ICRNL | IXON
  public var output: UInt32 = 0x5  // OPOST | ONLCR
  public var control: UInt32 = 0xbf  // B38400 | CS8 | CREAD
  public var local: UInt32 = 0x8a3b  // ISIG ICANON ECHO ECHOE ECHOK ECHOCTL ECHOKE IEXTEN
  public var line: UInt8 = 0
  /// Bits a second, as TCSETS2 gives them: nothing depends on them.
  var inputSpeed: UInt32 = 38400
  var outputSpeed: UInt32 = 38400
  /// The control characters, by the indexes of termios(3).
  public var characters: [UInt8] = [3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0]

  public init() {}

  static let size = 36
  /// struct termios2
  static let extendedSize = 44
  /// _POSIX_VDISABLE
  static let disabled: UInt8 = 0

  enum Index {
    static let interrupt = 0, quit = 1, erase = 2, kill = 3, endOfFile = 4, time = 5, minimum = 6
    static let start = 8, stop = 9, suspend = 10, endOfLine = 11, reprint = 12, wordErase = 14,
      literalNext = 15
    static let endOfLine2 = 16
  }

  var stripsEighthBit: Bool { input & 0x20 != 0 }
  var mapsNewlineToReturn: Bool { input & 0x40 != 0 }
  var ignoresReturn: Bool { input & 0x80 != 0 }
  var mapsReturnToNewline: Bool { input & 0x100 != 0 }
  var lowersCase: Bool { input & 0x200 != 0 }
  var hasFlowControl: Bool { input & 0x400 != 0 }
  /// Control-S and control-Q stop and start: the other side of a pseudo-terminal may do it itself (TIOCPKT).
  var hasStandardFlowControl: Bool {
    hasFlowControl && characters[Index.stop] == 19 && characters[Index.start] == 17
  }
  var anyRestarts: Bool { input & 0x800 != 0 }
  var ringsWhenFull: Bool { input & 0x2000 != 0 }
  var isUTF8: Bool { input & 0x4000 != 0 }
  var processesOutput: Bool { output & 1 != 0 }
  var raisesCase: Bool { output & 2 != 0 }
  var addsReturn: Bool { output & 4 != 0 }
  var mapsReturnOnOutput: Bool { output & 8 != 0 }
  var dropsReturnAtStart: Bool { output & 0x10 != 0 }
  var newlineReturns: Bool { output & 0x20 != 0 }
  var expandsTabs: Bool { output & 0x1800 == 0x1800 }
  var signals: Bool { local & 1 != 0 }
  var isCanonical: Bool { local & 2 != 0 }
  var echoes: Bool { local & 8 != 0 }
  var echoesErase: Bool { local & 0x10 != 0 }
  var echoesKill: Bool { local & 0x20 != 0 }
  var echoesNewline: Bool { local & 0x40 != 0 }
  var keepsQueues: Bool { local & 0x80 != 0 }
  var stopsBackgroundOutput: Bool { local & 0x100 != 0 }
  var echoesControls: Bool { local & 0x200 != 0 }
  var erasesLineOnKill: Bool { local & 0x800 != 0 }
  var isExtended: Bool { local & 0x8000 != 0 }

  func matches(_ byte: UInt8, _ index: Int) -> Bool {
    characters[index] != TerminalSettings.disabled && characters[index] == byte
  }

  /// The structure as a program sees it, with the speeds behind it for TCGETS2.
  var bytes: [UInt8] { words([input, output, control, local]) + [line] + characters }
  var extendedBytes: [UInt8] { bytes + words([inputSpeed, outputSpeed]) }

  /// struct termio: the low halves of the flags, the line discipline and the first eight control characters.
  static let oldSize = 18
  private static let oldCharacters = 8

  var oldBytes: [UInt8] {
    var result: [UInt8] = []
    for flags in [input, output, control, local] {
      result.append(UInt8(truncatingIfNeeded: flags))
      result.append(UInt8(truncatingIfNeeded: flags >> 8))
    }
    return result + [line] + characters[..<TerminalSettings.oldCharacters] + [0]
  }

  /// The settings after TCSETA with `bytes`, a struct termio.
  func changed(by bytes: [UInt8]) -> TerminalSettings {
    func changed(_ flags: UInt32, _ at: Int) -> UInt32 {
      flags & 0xffff_0000 | UInt32(bytes[at]) | UInt32(bytes[at + 1]) << 8
    }
    var new = self
    new.input = changed(input, 0)
    new.output = changed(output, 2)
    new.control = changed(control, 4)
    new.local = changed(local, 6)
    new.line = bytes[8]
    for index in 0..<TerminalSettings.oldCharacters { new.characters[index] = bytes[9 + index] }
    return new
  }

  /// These settings, but for what `locked` holds fast as it is in `old`.
  func keeping(_ locked: TerminalSettings, of old: TerminalSettings) -> TerminalSettings {
    func kept(_ new: UInt32, _ old: UInt32, _ mask: UInt32) -> UInt32 { new & ~mask | old & mask }
    var result = self
    result.input = kept(input, old.input, locked.input)
    result.output = kept(output, old.output, locked.output)
    result.control = kept(control, old.control, locked.control)
    result.local = kept(local, old.local, locked.local)
    if locked.line != 0 { result.line = old.line }
    for index in characters.indices where locked.characters[index] != 0 {
      result.characters[index] = old.characters[index]
    }
    return result
  }

  private func words(_ list: [UInt32]) -> [UInt8] {
    var result: [UInt8] = []
    for word in list {
      for shift in [0, 8, 16, 24] as [UInt32] { result.append(UInt8(truncatingIfNeeded: word >> shift)) }
    }
    return result
  }

  /// `bytes` are 36, or 44 with speeds.
  init(bytes: [UInt8]) {
    func word(_ at: Int) -> UInt32 {
      UInt32(bytes[at]) | UInt32(bytes[at + 1]) << 8 | UInt32(bytes[at + 2]) << 16 | UInt32(bytes[at + 3])
        << 24
    }
    input = word(0)
    output = word(4)
    control = word(8)
    local = word(12)
    line = bytes[16]
    characters = Array(bytes[17..<TerminalSettings.size])
    if bytes.count >= TerminalSettings.extendedSize {
      inputSpeed = word(36)
      outputSpeed = word(40)
    }
  }
}
