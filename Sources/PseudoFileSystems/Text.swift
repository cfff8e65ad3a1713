import VFS

/// Text being written: what files of /proc and /sys say. No floating point, no `String`.
struct Text {
  private(set) var bytes: [UInt8] = []

  mutating func add(_ text: StaticString) {
    for i in 0..<text.utf8CodeUnitCount { bytes.append(text.utf8Start[i]) }
  }
  mutating func add(_ text: [UInt8]) { bytes += text }
  mutating func add(_ value: UInt64) { bytes += decimal(value) }
  mutating func add(_ value: Int) {
    if value < 0 { bytes.append(0x2d) }
    bytes += decimal(UInt64(value.magnitude))
  }
  mutating func add(_ value: Int32) { add(Int(value)) }
  mutating func add(_ value: UInt32) { add(UInt64(value)) }

  /// Right-aligned in `width` columns.
  mutating func add(_ value: UInt64, width: Int) {
    let digits = decimal(value)
    pad(width - digits.count)
    bytes += digits
  }

  /// `count` digits, or as many as there are.
  mutating func addHexadecimal(_ value: UInt64, width count: Int = 1, isUpper: Bool = false) {
    var shift = 60
    while shift > 0, shift / 4 >= count, value >> UInt64(shift) == 0 { shift -= 4 }
    while shift >= 0 {
      let digit = UInt8(value >> UInt64(shift) & 15)
      bytes.append(digit < 10 ? 0x30 + digit : (isUpper ? 0x37 : 0x57) + digit)
      shift -= 4
    }
  }

  mutating func addOctal(_ value: UInt32) {
    var shift: UInt32 = 30
    while shift > 0, value >> shift == 0 { shift -= 3 }
    while true {
      bytes.append(0x30 + UInt8(value >> shift & 7))
      if shift == 0 { return }
      shift -= 3
    }
  }

  /// Hundredths as `1.23`.
  mutating func add(hundredths value: UInt64) {
    add(value / 100)
    add(value % 100 < 10 ? ".0" : ".")
    add(value % 100)
  }

  mutating func pad(_ count: Int) {
    var left = count
    while left > 0 {
      bytes.append(0x20)
      left -= 1
    }
  }

  /// Pads the current line, which starts at `start`, to `column`.
  mutating func pad(to column: Int, from start: Int) { pad(column - (bytes.count - start)) }

  mutating func endLine() { bytes.append(0x0a) }

  /// `Name:` and kibibytes as meminfo and smaps have them: `width` columns for both.
  mutating func addKibibytes(_ name: StaticString, _ bytes: UInt64, width: Int) {
    add(name)
    let digits = decimal(bytes >> 10)
    pad(width - name.utf8CodeUnitCount - digits.count)
    add(digits)
    add(" kB\n")
  }
}

/// `text` and a line's end.
func line(_ text: StaticString) -> [UInt8] { bytes(text) + [0x0a] }
func line(_ value: UInt64) -> [UInt8] { decimal(value) + [0x0a] }

/// The number that `text` starts with, with blanks around; nil if it is none.
func number(_ text: [UInt8]) -> Int? {
  var rest = text[...]
  while let byte = rest.last, byte == 0x0a || byte == 0x20 || byte == 0 { rest = rest.dropLast() }
  while rest.first == 0x20 { rest = rest.dropFirst() }
  let isNegative = rest.first == 0x2d
  if isNegative { rest = rest.dropFirst() }
  guard !rest.isEmpty, rest.count < 19 else { return nil }
  var value = 0
  for byte in rest {
    guard byte >= 0x30, byte <= 0x39 else { return nil }
    value = value * 10 + Int(byte - 0x30)
  }
  return isNegative ? -value : value
}
