import CBareHost
public import CMachine
public import Tasks

/// What programs hold of the machine's memory, for the limit of `-m`: the arena and they share the machine's frames.
public final class BareMemoryMeter: MemoryMeter {
  private let information: UnsafePointer<exokernel_information>
  public private(set) var sequence: UInt32 = 0

  init(_ information: UnsafePointer<exokernel_information>) { self.information = information }

  /// The arena's table counts what it has given out; what is gone beyond that, programs have.
  public var privateFrames: Int {
    max(0, frames.freeFrames - Int(bare_free_frames(information)))
  }

  public func measure() { sequence &+= 1 }

  /// Frames of the private memory of the process that the thread of `block` belongs to.
  public func privateFrames(of block: UnsafeMutablePointer<thread_block>) -> Int {
    max(0, ExokernelCall.raw(EXOKERNEL_MEMORY, Int(block.pointee.host_thread)))
  }
}
