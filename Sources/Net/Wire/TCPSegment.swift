/// The control bits of a TCP header (RFC 9293 section 3.1).
enum TCPFlags {
  static let fin: UInt8 = 1
  static let syn: UInt8 = 2
  static let rst: UInt8 = 4
  static let psh: UInt8 = 8
  static let ack: UInt8 = 16
}

/// Half-open stretch of sequence space.
struct SequenceRange: Equatable {
  var start: UInt32
  var end: UInt32
  var count: Int { Int(end &- start) }
}

/// True when `a` comes before `b` in sequence space (RFC 9293 section 3.4).
@inline(__always)
func isBefore(_ a: UInt32, _ b: UInt32) -> Bool { Int32(bitPattern: a &- b) < 0 }

@inline(__always)
func isAtMost(_ a: UInt32, _ b: UInt32) -> Bool { Int32(bitPattern: a &- b) <= 0 }

@inline(__always)
func later(_ a: UInt32, _ b: UInt32) -> UInt32 { isBefore(a, b) ? b : a }

@inline(__always)
func earlier(_ a: UInt32, _ b: UInt32) -> UInt32 { isBefore(a, b) ? a : b }

/// A received TCP segment with its options read.
struct TCPSegment {
  let sourcePort: UInt16
  let destinationPort: UInt16
  var sequence: UInt32
  let acknowledgement: UInt32
  var flags: UInt8
  let window: UInt16
  let payload: UnsafeRawBufferPointer
  /// Zero when the option is missing.
  private(set) var maximumSegmentSize: UInt16 = 0
  private(set) var hasWindowScale = false
  private(set) var windowScale: UInt8 = 0
  private(set) var sackPermitted = false
  private(set) var hasTimestamps = false
  private(set) var timestampValue: UInt32 = 0
  private(set) var timestampEcho: UInt32 = 0
  /// Where the SACK blocks lie in `options`, and how many there are.
  private(set) var sackOffset = 0
  private(set) var sackCount = 0
  private let options: UnsafeRawBufferPointer

  init?(_ bytes: UnsafeRawBufferPointer) {
    let headerLength = Int(bytes.byte(12) >> 4) * 4
    guard headerLength >= HeaderLength.tcp, headerLength <= bytes.count else { return nil }
    sourcePort = bytes.word16(0)
    destinationPort = bytes.word16(2)
    sequence = bytes.word32(4)
    acknowledgement = bytes.word32(8)
    flags = bytes.byte(13) & 0x3F
    window = bytes.word16(14)
    payload = bytes.part(headerLength, bytes.count)
    options = bytes.part(HeaderLength.tcp, headerLength)
    readOptions()
  }

  @inline(__always)
  func has(_ flag: UInt8) -> Bool { flags & flag != 0 }

  /// How much sequence space the segment takes.
  var length: UInt32 {
    UInt32(truncatingIfNeeded: payload.count) &+ (has(TCPFlags.syn) ? 1 : 0) &+ (has(TCPFlags.fin) ? 1 : 0)
  }

  func sackBlock(_ index: Int) -> SequenceRange {
    let offset = sackOffset + index * 8
    return SequenceRange(start: options.word32(offset), end: options.word32(offset + 4))
  }

  private mutating func readOptions() {
    var offset = 0
    while offset < options.count {
      let kind = options.byte(offset)
      if kind == 0 { return }
      if kind == 1 {
        offset += 1
        continue
      }
      let length = Int(options.byte(offset + 1))
      guard length >= 2, offset + length <= options.count else { return }
      readOption(kind, at: offset, length)
      offset += length
    }
  }

  private mutating func readOption(_ kind: UInt8, at offset: Int, _ length: Int) {
    switch (kind, length) {
    case (2, 4): maximumSegmentSize = options.word16(offset + 2)
    case (3, 3):
      hasWindowScale = true
      windowScale = min(options.byte(offset + 2), 14)  // RFC 7323 section 2.3
    case (4, 2): sackPermitted = true
    case (5, 10...34) where (length - 2) % 8 == 0:
      sackOffset = offset + 2
      sackCount = (length - 2) / 8
    case (8, 10):
      hasTimestamps = true
      timestampValue = options.word32(offset + 2)
      timestampEcho = options.word32(offset + 6)
    default: break
    }
  }
}
