// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import ABI
import CMachine
import Tasks

/// The libOS's heap: what Swift's objects are made of. Size classes over frames of the arena; bigger blocks are runs
/// of frames. Kernel lock held (or start-up).
///
/// A frame of a size class begins with its header and links its free blocks; frames with free blocks are linked per
/// class, and one without used blocks goes back to the arena unless it is its class's only one. A run begins where a
/// frame does, which no block of a class can: so `free` knows which it has.
public enum Heap {
  /// As many blocks as fit behind the header, in steps of 16.
  static let sizes: [22 of UInt16] = [
    16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 400, 448, 496, 576, 672, 816, 1008, 1360, 2032,
  ]
  /// First frame with a free block, by class; 0 for none (frame 0 is never the heap's).
  nonisolated(unsafe) static var partial: [22 of UInt32] = .init(repeating: 0)
  /// Of runs, by first frame: how many frames.
  nonisolated(unsafe) static var lengths: UnsafeMutablePointer<UInt32>! = nil
  /// Until there is an arena: start-up takes from here on, never frees.
  nonisolated(unsafe) public static var startTop: UInt = 0

  @inline(__always)
  static func sizeClass(_ size: Int) -> Int {
    if size <= 128 { return max(0, (size + 15) / 16 - 1) }
    var index = 8
    while Int(sizes[index]) < size { index += 1 }
    return index
  }

  private static func slab(_ frame: UInt32) -> UnsafeMutablePointer<Slab> {
    UnsafeMutablePointer(bitPattern: Arena.address + UInt(frame) << 12)!
  }

  static func allocate(_ size: Int, alignment: Int) -> UInt {
    guard frames != nil else { return allocateAtStart(size, alignment) }
    if alignment > 16 || size > 2032 { return allocateRun((size + 4095) >> 12) }
    let index = sizeClass(size)
    if partial[index] == 0 { refill(index) }
    let frame = partial[index]
    let slab = slab(frame)
    let block = UInt(bitPattern: slab) + UInt(slab.pointee.firstFree)
    slab.pointee.firstFree = UInt16(truncatingIfNeeded: UnsafePointer<UInt>(bitPattern: block)!.pointee)
    slab.pointee.used &+= 1
    if slab.pointee.firstFree == 0 { unlink(slab) }
    return block
  }

  static func free(_ address: UInt) {
    guard address >= startTop, frames != nil else { return }
    if address & 4095 == 0 {
      return frames.free(address - Arena.address, Int(lengths[Int((address - Arena.address) >> 12)]))
    }
    let frame = UInt32((address - Arena.address) >> 12)
    let slab = slab(frame)
    UnsafeMutablePointer<UInt>(bitPattern: address)!.pointee = UInt(slab.pointee.firstFree)
    let wasFull = slab.pointee.firstFree == 0
    slab.pointee.firstFree = UInt16(address & 4095)
    slab.pointee.used &-= 1
    if wasFull {
      link(frame)
    } else if slab.pointee.used == 0, slab.pointee.next != 0 || slab.pointee.previous != 0 {
      unlink(slab)
      frames.free(UInt(frame) << 12, 1)
    }
  }

  private static func link(_ frame: UInt32) {
    let slab = slab(frame)
    let index = Int(slab.pointee.index)
    let first = partial[index]
    slab.pointee.previous = 0
    slab.pointee.next = first
    if first != 0 { self.slab(first).pointee.previous = frame }
    partial[index] = frame
  }

  private static func unlink(_ slab: UnsafeMutablePointer<Slab>) {
    let (next, previous) = (slab.pointee.next, slab.pointee.previous)
    if previous != 0 {
      self.slab(previous).pointee.next = next
    } else {
      partial[Int(slab.pointee.index)] = next
    }
    if next != 0 { self.slab(next).pointee.previous = previous }
  }

  private static func allocateAtStart(_ size: Int, _ alignment: Int) -> UInt {
    let start = (startTop + UInt(max(alignment, 16)) - 1) & ~UInt(max(alignment, 16) - 1)
    startTop = start + UInt(size)
    return start
  }

  private static func allocateRun(_ count: Int) -> UInt {
    let offset = frameRun(count)
    lengths[Int(offset >> 12)] = UInt32(count)
    return Arena.address + offset
  }

  private static func refill(_ index: Int) {
    let frame = UInt32(frameRun(1) >> 12)
    let size = Int(sizes[index])
    let first = MemoryLayout<Slab>.size
    let start = UInt(bitPattern: slab(frame))
    var block = first
    while block + size <= 4096 {
      let next = block + 2 * size <= 4096 ? block + size : 0
      UnsafeMutablePointer<UInt>(bitPattern: start + UInt(block))!.pointee = UInt(next)
      block += size
    }
    slab(frame).pointee = Slab(next: 0, previous: 0, firstFree: UInt16(first), used: 0, index: UInt32(index))
    link(frame)
  }

  // Swift's runtime does not look at an allocation's result, so there is nothing to return here but memory. What
  // programs can ask for is refused before, while `frames.freeFrames` is above the reserve.
  private static func frameRun(_ count: Int) -> UInt {
    do throws(Errno) { return try Arena.shared.take(count) } catch {
      host.fail("the libOS is out of memory", status: 70)
    }
  }
}

/// The header of a frame of a size class, 16 bytes. Its free blocks hold the offset of the next one, 0 in the last.
struct Slab {
  var next: UInt32
  var previous: UInt32
  var firstFree: UInt16
  var used: UInt16
  var index: UInt32
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
