public import ABI
public import CMachine

/// Eight words of program memory a thread, through which the gate hands back the last registers where protection keys
/// keep the program out of the libOS (CHostCore's gate_keys.h). Programs cannot unmap or remap them; what they write
/// there changes registers of their own.
public enum ProgramSlots {
  /// Set by a host whose gate needs them, before the first thread is made.
  nonisolated(unsafe) public static var isUsed = false
  /// Above all mappings whose place the libOS chooses, below the stack.
  public static var range: Range<UInt> { 0x6fff_f000_0000..<0x6fff_fb00_0000 }
  private static var bytes: UInt { 64 }
  /// Frames of a thread's memory (ThreadStack), which no two threads share.
  private static var framesPerThread: UInt { 16 }

  public static func address(of block: UnsafeMutablePointer<thread_block>) -> UInt {
    guard isUsed else { return 0 }
    return range.lowerBound + (UInt(bitPattern: block) - frames.base) >> 12 / framesPerThread * bytes
  }

  /// Makes sure that there is memory behind a new thread's slot; ENOMEM.
  public static func touch(_ block: UnsafeMutablePointer<thread_block>) throws(Errno) {
    guard isUsed else { return }
    do throws(Errno) { try UserSlice.store(UInt64(0), at: UInt(block.pointee.slot)) } catch {
      throw .noMemory
    }
  }

  /// Maps the slots of an address space that shows nothing yet.
  public static func show() throws(Errno) {
    guard isUsed else { return }
    try host.map(
      address: range.lowerBound, length: UInt(range.count), protection: [.read, .write], backing: .anonymous)
  }
}
