import ABI
import Ext4

/// A device in memory that can record what is written and fail on demand.
final class MemoryDevice: BlockDevice {
  enum Event {
    case write(offset: Int, bytes: [UInt8])
    case flush
  }

  private(set) var bytes: UnsafeMutableRawBufferPointer
  var isReadOnly = false
  var isRecording = false
  var events: [Event] = []
  var reads = 0
  var writes = 0
  /// Calls left before one fails; nil: none does.
  var callsBeforeReadFails: Int?
  var callsBeforeWriteFails: Int?
  /// Whether failures go on after the first.
  var keepsFailing = false

  init(size: Int) {
    bytes = .allocate(byteCount: size, alignment: 4096)
    bytes.initializeMemory(as: UInt8.self, repeating: 0)
  }

  convenience init(_ contents: UnsafeRawBufferPointer) {
    self.init(size: contents.count)
    bytes.copyMemory(from: contents)
  }

  deinit { bytes.deallocate() }

  var size: UInt64 { UInt64(bytes.count) }

  private func fails(_ calls: inout Int?) -> Bool {
    guard let left = calls else { return false }
    if left > 0 {
      calls = left - 1
      return false
    }
    if !keepsFailing { calls = nil }
    return true
  }

  func read(_ target: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(Errno) {
    reads += 1
    if fails(&callsBeforeReadFails) { throw .inputOutput }
    precondition(offset % 512 == 0 && target.count % 512 == 0)
    guard offset <= size, UInt64(target.count) <= size - offset else { throw .inputOutput }
    target.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[Int(offset)..<Int(offset) + target.count]))
  }

  func write(_ source: UnsafeRawBufferPointer, at offset: UInt64) throws(Errno) {
    writes += 1
    if fails(&callsBeforeWriteFails) { throw .inputOutput }
    precondition(offset % 512 == 0 && source.count % 512 == 0)
    guard offset <= size, UInt64(source.count) <= size - offset else { throw .inputOutput }
    if isRecording { events.append(.write(offset: Int(offset), bytes: Array(source))) }
    apply(source, Int(offset))
  }

  func apply(_ source: UnsafeRawBufferPointer, _ offset: Int) {
    UnsafeMutableRawBufferPointer(rebasing: bytes[offset..<offset + source.count]).copyMemory(from: source)
  }

  func flush() throws(Errno) {
    if fails(&callsBeforeWriteFails) { throw .inputOutput }
    if isRecording { events.append(.flush) }
  }
}

/// Time that moves a little with every look.
final class TestClock: Clock {
  var now: UInt64 = 1_800_000_000_123_456_789
  var realtimeNanoseconds: UInt64 {
    now += 1_000_001
    return now
  }
}

/// xorshift64*: the same numbers for the same seed.
struct SeededRandom {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }
  mutating func next() -> UInt64 {
    state ^= state >> 12
    state ^= state << 25
    state ^= state >> 27
    return state &* 0x2545_F491_4F6C_DD1D
  }
  mutating func below(_ limit: Int) -> Int { Int(next() >> 33) % limit }
  mutating func bytes(_ count: Int) -> [UInt8] {
    var result = [UInt8](repeating: 0, count: count)
    var value: UInt64 = 0
    for i in 0..<count {
      if i & 7 == 0 { value = next() }
      result[i] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (i & 7)))
    }
    return result
  }
}
