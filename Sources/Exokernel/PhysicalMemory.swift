// Frames come from the memory map, their addresses are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CExokernel

/// The machine's frames: who is free, and how often each is referred to. Exokernel lock held.
///
/// All memory is mapped at `direct`. A frame is 4096 bytes; its address is physical. Frames that nobody has used yet
/// lie in `ranges`; those given back lie on a stack.
enum PhysicalMemory {
  static let direct: UInt64 = 0xffff_8000_0000_0000

  struct Range {
    var start: UInt64 = 0
    var end: UInt64 = 0
  }
  nonisolated(unsafe) static var ranges: [32 of Range] = .init(repeating: Range())
  nonisolated(unsafe) static var rangeCount = 0
  nonisolated(unsafe) private static var references: UnsafeMutablePointer<UInt32>! = nil
  nonisolated(unsafe) static var freed: UnsafeMutablePointer<UInt32>! = nil
  nonisolated(unsafe) static var freedCount = 0
  /// Of those given back, frames that processors with nothing to do have zeroed since.
  nonisolated(unsafe) private static var cleared: [64 of UInt32] = .init(repeating: 0)
  nonisolated(unsafe) private static var clearedCount = 0
  nonisolated(unsafe) static var top: UInt64 = 0
  nonisolated(unsafe) static var freeFrames = 0
  /// Programs get no more when so few are left: the libOS's own memory must not fail.
  nonisolated(unsafe) static var reserve = 256

  @inline(__always)
  static func pointer(_ address: UInt64) -> UnsafeMutableRawPointer {
    UnsafeMutableRawPointer(bitPattern: UInt(direct &+ address))!
  }

  @inline(__always)
  static func words(_ address: UInt64) -> UnsafeMutablePointer<UInt64> {
    UnsafeMutablePointer(bitPattern: UInt(direct &+ address))!
  }

  /// Adds usable memory, start-up only.
  static func add(_ start: UInt64, _ end: UInt64) {
    let first = (start + 4095) & ~4095
    let last = end & ~4095
    guard first < last, rangeCount < 32 else { return }
    ranges[rangeCount] = Range(start: first, end: last)
    rangeCount += 1
    if last > top { top = last }
    freeFrames += Int((last - first) >> 12)
  }

  /// Takes what lies in `start..<end` out of the usable memory, start-up only.
  static func reserve(_ start: UInt64, _ end: UInt64) {
    let first = start & ~4095
    let last = (end + 4095) & ~4095
    var i = 0
    let count = rangeCount
    while i < count {
      let range = ranges[i]
      if range.start < last, first < range.end {
        freeFrames -= Int((min(range.end, last) - max(range.start, first)) >> 12)
        ranges[i].end = max(range.start, first)
        if last < range.end, rangeCount < 32 {
          ranges[rangeCount] = Range(start: last, end: range.end)
          rangeCount += 1
        }
      }
      i += 1
    }
  }

  /// Makes the tables. The memory map is complete.
  static func begin() {
    let frames = top >> 12
    references = UnsafeMutablePointer(
      bitPattern: UInt(direct + takeRun((frames * 4 + 4095) >> 12)))
    freed = UnsafeMutablePointer(bitPattern: UInt(direct + takeRun((frames * 4 + 4095) >> 12)))
    reserve = freeFrames / 64 + 64
  }

  /// Adjacent zeroed frames, start-up only.
  static func takeRun(_ count: UInt64) -> UInt64 {
    for i in 0..<rangeCount where ranges[i].end - ranges[i].start >= count << 12 {
      let start = ranges[i].start
      ranges[i].start += count << 12
      freeFrames -= Int(count)
      for page in 0..<count { cpu_clear_page(pointer(start + page << 12)) }
      return start
    }
    panic("there is too little memory to start")
  }

  /// A frame with one reference, its contents undefined; 0 when there is none.
  static func allocateDirty() -> UInt64 {
    var address: UInt64 = 0
    if freedCount > 0 {
      freedCount -= 1
      address = UInt64(freed[freedCount]) << 12
    } else if clearedCount > 0 {
      clearedCount -= 1
      address = UInt64(cleared[clearedCount]) << 12
    } else {
      while rangeCount > 0, ranges[rangeCount - 1].start >= ranges[rangeCount - 1].end { rangeCount -= 1 }
      guard rangeCount > 0 else { return 0 }
      address = ranges[rangeCount - 1].start
      ranges[rangeCount - 1].start += 4096
    }
    freeFrames -= 1
    references[Int(address >> 12)] = 1
    return address
  }

  /// A zeroed frame with one reference; 0 when there is none.
  static func allocate() -> UInt64 {
    if clearedCount > 0 {
      clearedCount -= 1
      let address = UInt64(cleared[clearedCount]) << 12
      freeFrames -= 1
      references[Int(address >> 12)] = 1
      return address
    }
    let address = allocateDirty()
    if address != 0 { cpu_clear_page(pointer(address)) }
    return address
  }

  /// Zeroes a frame for later. False: there are enough, or none that was given back.
  static func clearOne() -> Bool {
    guard freedCount > 0, clearedCount < cleared.count else { return false }
    freedCount -= 1
    let frame = freed[freedCount]
    cpu_clear_page(pointer(UInt64(frame) << 12))
    cleared[clearedCount] = frame
    clearedCount += 1
    return true
  }

  /// The libOS itself touches memory of a program: it may use half of what is kept for it.
  nonisolated(unsafe) static var isForLibOS = false

  /// A frame for a program: refused while the libOS may need it.
  static func allocateForProgram(cleared: Bool) -> UInt64 {
    guard freeFrames > (isForLibOS ? reserve / 2 : reserve) else { return 0 }
    return cleared ? allocate() : allocateDirty()
  }

  @inline(__always)
  static func retain(_ address: UInt64) { references[Int(address >> 12)] &+= 1 }

  static func release(_ address: UInt64) {
    let frame = Int(address >> 12)
    if references[frame] == 0 { panic("a frame released twice") }
    references[frame] &-= 1
    if references[frame] == 0 {
      freed[freedCount] = UInt32(truncatingIfNeeded: frame)
      freedCount += 1
      freeFrames += 1
    }
  }

  static func references(_ address: UInt64) -> UInt64 { UInt64(references[Int(address >> 12)]) }

  /// Frames that programs may still have.
  static var left: UInt64 { UInt64(max(0, freeFrames - reserve)) }

  // MARK: Revocation

  /// In place of a count of references: the frame has been handed over to whoever the machine runs on.
  private static let surrendered = UInt32.max
  nonisolated(unsafe) private static var surrenderedCount = 0
  /// No frame below this number has been handed over.
  nonisolated(unsafe) private static var firstSurrendered = 0

  /// A free frame that leaves the machine, one that was used before if there is any; 0 when programs could not have
  /// one either.
  static func surrender() -> UInt64 {
    guard freeFrames > reserve else { return 0 }
    let frame = allocateDirty()
    guard frame != 0 else { return 0 }
    references[Int(frame >> 12)] = surrendered
    surrenderedCount += 1
    firstSurrendered = min(firstSurrendered, Int(frame >> 12))
    return frame
  }

  /// A frame that comes back; 0 when none is away.
  static func takeBack() -> UInt64 {
    guard surrenderedCount > 0 else { return 0 }
    var frame = firstSurrendered
    while references[frame] != surrendered { frame += 1 }
    firstSurrendered = frame + 1
    surrenderedCount -= 1
    references[frame] = 1
    release(UInt64(frame) << 12)
    return UInt64(frame) << 12
  }

  @inline(__always)
  static func isSingle(_ address: UInt64) -> Bool { references[Int(address >> 12)] == 1 }
}
