public import ABI

/// Allocates frames (4096 bytes) of the arena. Set once at start; hosted tests use ordinary memory.
public protocol FrameAllocator: AnyObject {
  /// `count` adjacent zeroed frames; the arena offset of the first. ENOMEM past the limit.
  func allocate(_ count: Int) throws(Errno) -> UInt
  func free(_ offset: UInt, _ count: Int)
  /// Where the arena is mapped.
  var base: UInt { get }
  var totalFrames: Int { get }
  var freeFrames: Int { get }
}

nonisolated(unsafe) public var frames: (any FrameAllocator)! = nil
