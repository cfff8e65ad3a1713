// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import ABI
import CMachine
import Tasks

/// The libOS's heap: what Swift's objects are made of. Size classes over frames of the arena; bigger blocks are runs
/// of frames. Kernel lock held (or start-up).
///
/// `classOf` has a byte a frame: 0 not of the heap, 255 inside a big run, else class + 1. A big run's first frame has
/// 254, its length in `lengths`. A frame of a size class links its free blocks; frames with free blocks are linked
/// per class, and one without used blocks goes back to the arena unless it is its class's only one.
public enum Heap {
  static let sizes: [24 of Int] = [
    16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024, 1360, 2048, 0,
    0, 0,
  ]
  static let classCount = 21
  /// First frame with a free block, by class; 0 for none (frame 0 is never the heap's).
  nonisolated(unsafe) static var partial: [24 of UInt32] = .init(repeating: 0)
  nonisolated(unsafe) static var classOf: UnsafeMutablePointer<UInt8>! = nil
  nonisolated(unsafe) static var lengths: UnsafeMutablePointer<UInt32>! = nil
  nonisolated(unsafe) static var slabs: UnsafeMutablePointer<Slab>! = nil
  /// Until there is an arena: start-up takes from here on, never frees.
  nonisolated(unsafe) public static var startTop: UInt = 0

  @inline(__always)
  static func sizeClass(_ size: Int) -> Int {
    if size <= 128 { return max(0, (size + 15) / 16 - 1) }
    var index = 8
    while index < classCount, sizes[index] < size { index += 1 }
    return index
  }

  static func allocate(_ size: Int, alignment: Int) -> UInt {
    guard frames != nil else { return allocateAtStart(size, alignment) }
    if alignment > 16 || size > 2048 { return allocateRun((size + 4095) >> 12) }
    let index = sizeClass(size)
    if partial[index] == 0 { refill(index) }
    let frame = Int(partial[index])
    let start = Arena.address + UInt(frame) << 12
    let block = start + UInt(slabs[frame].firstFree)
    slabs[frame].firstFree = UInt16(
      truncatingIfNeeded: UnsafePointer<UInt>(bitPattern: block)!.pointee)
    slabs[frame].freeCount &-= 1
    if slabs[frame].freeCount == 0 { unlink(frame, index) }
    return block
  }

  static func free(_ address: UInt) {
    guard address >= Arena.address, frames != nil else { return }
    let frame = Int((address - Arena.address) >> 12)
    let kind = classOf[frame]
    if kind == 0 { return }  // from start-up
    if kind == 254 {
      let count = Int(lengths[frame])
      for i in frame..<frame + count { classOf[i] = 0 }
      frames.free(UInt(frame) << 12, count)
      return
    }
    let index = Int(kind) - 1
    UnsafeMutablePointer<UInt>(bitPattern: address)!.pointee = UInt(slabs[frame].firstFree)
    slabs[frame].firstFree = UInt16(address & 4095)
    slabs[frame].freeCount &+= 1
    if slabs[frame].freeCount == 1 {
      link(frame, index)
    } else if Int(slabs[frame].freeCount) == 4096 / sizes[index],
      slabs[frame].next != 0 || slabs[frame].previous != 0
    {
      unlink(frame, index)
      classOf[frame] = 0
      frames.free(UInt(frame) << 12, 1)
    }
  }

  private static func link(_ frame: Int, _ index: Int) {
    let first = partial[index]
    slabs[frame].previous = 0
    slabs[frame].next = first
    if first != 0 { slabs[Int(first)].previous = UInt32(frame) }
    partial[index] = UInt32(frame)
  }

  private static func unlink(_ frame: Int, _ index: Int) {
    let slab = slabs[frame]
    if slab.previous != 0 { slabs[Int(slab.previous)].next = slab.next } else { partial[index] = slab.next }
    if slab.next != 0 { slabs[Int(slab.next)].previous = slab.previous }
  }

  private static func allocateAtStart(_ size: Int, _ alignment: Int) -> UInt {
    let start = (startTop + UInt(max(alignment, 16)) - 1) & ~UInt(max(alignment, 16) - 1)
    startTop = start + UInt(size)
    return start
  }

  private static func allocateRun(_ count: Int) -> UInt {
    let offset = frameRun(count)
    let frame = Int(offset >> 12)
    classOf[frame] = 254
    lengths[frame] = UInt32(count)
    for i in frame + 1..<max(frame + 1, frame + count) { classOf[i] = 255 }
    return Arena.address + offset
  }

  private static func refill(_ index: Int) {
    let offset = frameRun(1)
    let frame = Int(offset >> 12)
    classOf[frame] = UInt8(index + 1)
    let size = sizes[index]
    let count = 4096 / size
    let start = Arena.address + offset
    for i in 0..<count {
      UnsafeMutablePointer<UInt>(bitPattern: start + UInt(i * size))!.pointee = UInt((i + 1) * size & 4095)
    }
    slabs[frame] = Slab(next: 0, previous: 0, firstFree: 0, freeCount: UInt16(count))
    link(frame, index)
  }

  // Swift's runtime does not look at an allocation's result, so there is nothing to return here but memory. What
  // programs can ask for is refused before, while `frames.freeFrames` is above the reserve.
  private static func frameRun(_ count: Int) -> UInt {
    do throws(Errno) { return try Arena.shared.take(count) } catch {
      host.fail("the libOS is out of memory", status: 70)
    }
  }
}

/// What the heap knows of a frame of a size class. Its free blocks hold the offset of the next one.
struct Slab {
  var next: UInt32
  var previous: UInt32
  var firstFree: UInt16
  var freeCount: UInt16
}

/// Random bytes while there is no host yet; set by the host's first steps.
nonisolated(unsafe) public var randomAtStart: ((UnsafeMutableRawBufferPointer) -> Void)? = nil

@c(posix_memalign)
public func posix_memalign(_ out: UnsafeMutablePointer<UInt>, _ alignment: Int, _ size: Int) -> Int32 {
  out.pointee = Heap.allocate(max(size, 1), alignment: alignment)
  return 0
}

@c(free)
public func free(_ pointer: UnsafeMutableRawPointer?) { Heap.free(UInt(bitPattern: pointer)) }

@c(arc4random_buf)
public func arc4random_buf(_ pointer: UnsafeMutableRawPointer, _ count: Int) {
  let bytes = UnsafeMutableRawBufferPointer(start: pointer, count: count)
  if host != nil { host.fillRandom(bytes) } else { randomAtStart?(bytes) }
}
