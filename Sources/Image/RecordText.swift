/// The syntax that the manifest and the launch record share: lines of `key value`, where bytes up to 0x20,
/// `%` and bytes from 0x7f are written as `%XX`.
struct RecordReader {
  private let text: UnsafeRawBufferPointer
  private var position = 0

  init(_ text: UnsafeRawBufferPointer) { self.text = text }

  /// The next line's key and decoded value, or nil at the end.
  mutating func next() throws(ImageError) -> RecordLine? {
    guard position < text.count else { return nil }
    let start = position
    var space = -1
    while position < text.count, text[position] != 0x0a {
      if space < 0, text[position] == 0x20 { space = position }
      position &+= 1
    }
    let end = position
    // A record cut off in the middle of a line must not pass for a shorter value.
    guard end < text.count, space > start else { throw .missingValue }
    position &+= 1
    return RecordLine(
      key: UnsafeRawBufferPointer(rebasing: text[start..<space]),
      value: try decode(UnsafeRawBufferPointer(rebasing: text[(space &+ 1)..<end])))
  }

  private func decode(_ encoded: UnsafeRawBufferPointer) throws(ImageError) -> [UInt8] {
    var value: [UInt8] = []
    value.reserveCapacity(encoded.count)
    var index = 0
    while index < encoded.count {
      let byte = encoded[index]
      if byte == 0x25 {
        guard index &+ 2 < encoded.count, let high = hexDigit(encoded[index &+ 1]),
          let low = hexDigit(encoded[index &+ 2])
        else { throw .invalidEncoding }
        let decoded = high << 4 | low
        // No value can hold a zero byte: all end up as C strings.
        guard decoded != 0 else { throw .invalidEncoding }
        value.append(decoded)
        index &+= 3
      } else {
        guard byte > 0x20, byte < 0x7f else { throw .invalidEncoding }
        value.append(byte)
        index &+= 1
      }
    }
    return value
  }
}

struct RecordLine {
  let key: UnsafeRawBufferPointer
  let value: [UInt8]

  func hasKey(_ name: StaticString) -> Bool {
    guard name.utf8CodeUnitCount == key.count else { return false }
    for index in 0..<key.count where key[index] != name.utf8Start[index] { return false }
    return true
  }
}

/// Writes lines that `RecordReader` reads.
struct RecordWriter {
  private(set) var bytes: [UInt8] = []

  mutating func add(_ key: StaticString, _ value: [UInt8]) {
    append(key)
    bytes.append(0x20)
    for byte in value {
      if byte <= 0x20 || byte == 0x25 || byte >= 0x7f {
        bytes.append(0x25)
        bytes.append(upperHexDigit(byte >> 4))
        bytes.append(upperHexDigit(byte & 15))
      } else {
        bytes.append(byte)
      }
    }
    bytes.append(0x0a)
  }

  mutating func add(_ key: StaticString, number: UInt64) { add(key, decimal(number)) }

  mutating func add(_ key: StaticString, word: StaticString) {
    append(key)
    bytes.append(0x20)
    append(word)
    bytes.append(0x0a)
  }

  private mutating func append(_ text: StaticString) {
    for index in 0..<text.utf8CodeUnitCount { bytes.append(text.utf8Start[index]) }
  }
}

func hexDigit(_ byte: UInt8) -> UInt8? {
  switch byte {
  case 0x30...0x39: byte &- 0x30
  case 0x41...0x46: byte &- 0x41 &+ 10
  case 0x61...0x66: byte &- 0x61 &+ 10
  default: nil
  }
}

func lowerHexDigit(_ value: UInt8) -> UInt8 { value < 10 ? 0x30 &+ value : 0x61 &+ value &- 10 }

private func upperHexDigit(_ value: UInt8) -> UInt8 { value < 10 ? 0x30 &+ value : 0x41 &+ value &- 10 }

func decimal(_ number: UInt64) -> [UInt8] {
  var digits: [UInt8] = []
  var rest = number
  repeat {
    digits.append(0x30 &+ UInt8(truncatingIfNeeded: rest % 10))
    rest /= 10
  } while rest != 0
  digits.reverse()
  return digits
}

/// Parses decimal digits only: no sign, no blanks.
func parseNumber(_ text: ArraySlice<UInt8>, atMost limit: UInt64) throws(ImageError) -> UInt64 {
  guard !text.isEmpty, text.count <= 20 else { throw .invalidNumber }
  var number: UInt64 = 0
  for byte in text {
    guard byte >= 0x30, byte <= 0x39 else { throw .invalidNumber }
    let (scaled, overflow) = number.multipliedReportingOverflow(by: 10)
    let (sum, carry) = scaled.addingReportingOverflow(UInt64(byte &- 0x30))
    guard !overflow, !carry else { throw .invalidNumber }
    number = sum
  }
  guard number <= limit else { throw .invalidNumber }
  return number
}

func parseNumber(_ text: [UInt8], atMost limit: UInt64) throws(ImageError) -> UInt64 {
  try parseNumber(text[...], atMost: limit)
}

func parseFlag(_ text: [UInt8]) throws(ImageError) -> Bool { try parseNumber(text, atMost: 1) == 1 }

func hasText(_ bytes: [UInt8], _ text: StaticString) -> Bool {
  guard bytes.count == text.utf8CodeUnitCount else { return false }
  for index in 0..<bytes.count where bytes[index] != text.utf8Start[index] { return false }
  return true
}

func firstIndex(of byte: UInt8, in text: [UInt8]) -> Int? {
  for index in 0..<text.count where text[index] == byte { return index }
  return nil
}
