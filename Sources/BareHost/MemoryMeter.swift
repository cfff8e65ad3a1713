import CBareHost
import Tasks

/// What programs hold of the machine's memory, for the limit of `-m`: the arena and they share the machine's frames.
final class BareMemoryMeter: MemoryMeter {
  private(set) var privateFrames = 0
  private(set) var sequence: UInt32 = 0

  func measure() {
    // The arena's table counts what it has given out; what is gone beyond that, programs have.
    let free = ExokernelCall.raw(EXOKERNEL_MEMORY)
    privateFrames = max(0, frames.freeFrames - free)
    sequence &+= 1
  }
}
