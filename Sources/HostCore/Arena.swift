// The arena is made at start-up and never nil.
// swift-format-ignore-file: NeverForceUnwrap
public import ABI
import CMachine
public import Tasks

/// The arena: frames that every address space of the unikernel has at one address.
///
/// Layout: what start-up has put there, the frame bitmaps, then frames. A set bit in `used` is an allocated frame; a
/// set bit in `dirty` is a free frame that may hold old bytes. Kernel lock held (or start-up).
public final class Arena: FrameAllocator {
  public static let address: UInt = 0x2000_0000_0000
  nonisolated(unsafe) private(set) static var shared: Arena! = nil
  public let totalFrames: Int
  public private(set) var freeFrames: Int
  private let used: UnsafeMutablePointer<UInt64>
  private let dirty: UnsafeMutablePointer<UInt64>
  private var next = 0
  /// Free frames that Linux still holds for the arena.
  private var dirtyFrames = 0
  /// Above this many they are given back to Linux: 4 MiB.
  private static let mostDirtyFrames = 1024

  public var base: UInt { Arena.address }

  /// An arena of `memory` bytes whose first `inUse` are taken; its tables come next. Nil: that does not fit.
  public static func make(memory: UInt64, inUse: UInt) -> Arena? {
    let total = Int(memory >> 12)
    let words = (total + 63) / 64
    guard total << 12 > Int(inUse) + words * 16 + total * 4 + (4 << 20) else {
      return nil
    }
    var place = Arena.address + inUse
    func take(_ bytes: Int) -> UInt {
      defer { place += UInt((bytes + 63) & ~63) }
      return place
    }
    guard let used = UnsafeMutablePointer<UInt64>(bitPattern: take(words * 8)),
      let dirty = UnsafeMutablePointer<UInt64>(bitPattern: take(words * 8))
    else { return nil }
    Heap.lengths = UnsafeMutablePointer(bitPattern: take(total * 4))
    let firstFree = Int((place - Arena.address + 4095) >> 12)
    let arena = Arena(totalFrames: total, used: used, dirty: dirty, firstFree: firstFree)
    shared = arena
    MemoryLimit.reserve = min(max(total / 32, 256), 4096)
    return arena
  }

  /// `firstFree` is the first frame that start-up has not used.
  private init(
    totalFrames: Int, used: UnsafeMutablePointer<UInt64>, dirty: UnsafeMutablePointer<UInt64>, firstFree: Int
  ) {
    self.totalFrames = totalFrames
    self.used = used
    self.dirty = dirty
    freeFrames = totalFrames - firstFree
    for frame in 0..<firstFree { used[frame >> 6] |= 1 << UInt64(frame & 63) }
    next = firstFree
  }

  /// Leaves the reserve to the heap.
  public func allocate(_ count: Int) throws(Errno) -> UInt {
    guard count <= freeFrames - MemoryLimit.reserve else { throw .noMemory }
    return try take(count)
  }

  /// As many frames as a multiple of them begins at, the last that are free: guard pages of stacks, each of which splits
  /// Linux's mapping, stay away from what large pages can show. `count` is a power of two below 64.
  func allocateAtEnd(_ count: Int) throws(Errno) -> UInt {
    guard count <= freeFrames - MemoryLimit.reserve else { throw .noMemory }
    let mask = (1 << UInt64(count)) - 1 as UInt64
    var frame = totalFrames & ~(count - 1)
    while frame >= count {
      frame -= count
      if used[frame >> 6] >> UInt64(frame & 63) & mask == 0 { return claim(frame, count) }
    }
    throw .noMemory
  }

  /// The heap's frames: from the reserve too.
  func take(_ count: Int) throws(Errno) -> UInt {
    guard count > 0, count <= freeFrames else { throw .noMemory }
    guard let start = find(count, from: next) ?? find(count, from: 0) else { throw .noMemory }
    next = start + count
    return claim(start, count)
  }

  private func claim(_ start: Int, _ count: Int) -> UInt {
    for frame in start..<start + count { used[frame >> 6] |= 1 << UInt64(frame & 63) }
    freeFrames -= count
    clean(start, count)
    return UInt(start) << 12
  }

  public func free(_ offset: UInt, _ count: Int) {
    let start = Int(offset >> 12)
    for frame in start..<start + count {
      precondition(used[frame >> 6] & (1 << UInt64(frame & 63)) != 0, "a frame freed twice")
      used[frame >> 6] &= ~(1 << UInt64(frame & 63))
    }
    freeFrames += count
    // Memory given back is given back to Linux, but not page by page: a call costs more than clearing a page.
    if count >= 16 {
      host.release(arenaOffset: offset, length: UInt(count) << 12)
    } else {
      for frame in start..<start + count { dirty[frame >> 6] |= 1 << UInt64(frame & 63) }
      dirtyFrames += count
      if dirtyFrames > Arena.mostDirtyFrames { releaseDirty() }
    }
    next = min(next, start)
  }

  /// Frames that start-up set aside and did not use; they are clean.
  public func adopt(_ start: Int, _ end: Int) {
    for frame in start..<max(start, end) { used[frame >> 6] &= ~(1 << UInt64(frame & 63)) }
    freeFrames += max(0, end - start)
    next = min(next, start)
  }

  /// Gives runs of dirty frames back to Linux, a call each.
  private func releaseDirty() {
    var frame = 0
    while frame < totalFrames {
      if dirty[frame >> 6] == 0 {
        frame = (frame | 63) + 1
        continue
      }
      var end = frame
      while end < totalFrames, dirty[end >> 6] & (1 << UInt64(end & 63)) != 0 {
        dirty[end >> 6] &= ~(1 << UInt64(end & 63))
        end += 1
      }
      if end > frame { host.release(arenaOffset: UInt(frame) << 12, length: UInt(end - frame) << 12) }
      frame = max(end, frame + 1)
    }
    dirtyFrames = 0
  }

  private func find(_ count: Int, from: Int) -> Int? {
    var frame = from
    var run = 0
    while frame < totalFrames {
      let word = used[frame >> 6]
      if word == .max, frame & 63 == 0 {
        frame += 64
        run = 0
        continue
      }
      if word & (1 << UInt64(frame & 63)) != 0 { run = 0 } else { run += 1 }
      frame += 1
      if run == count { return frame - count }
    }
    return nil
  }

  private func clean(_ start: Int, _ count: Int) {
    for frame in start..<start + count where dirty[frame >> 6] & (1 << UInt64(frame & 63)) != 0 {
      dirty[frame >> 6] &= ~(1 << UInt64(frame & 63))
      dirtyFrames -= 1
      _ = machine_clear_user(UnsafeMutableRawPointer(bitPattern: Arena.address + UInt(frame) << 12), 4096)
    }
  }
}
