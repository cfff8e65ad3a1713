// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
public import ABI
public import CMachine
public import Tasks

/// A thread's memory in the arena: its block, its libOS stack with the frame on top, and a stack for the host's signals.
/// It begins at a multiple of its size, so that any stack pointer into it tells whose it is.
///
/// ```
///   0       4 KiB   8 KiB                            52 KiB         64 KiB
///   | block | guard | libOS stack (grows down)  frame | signal stack |
/// ```
///
/// On the Linux host the guard page has no access in the host process that runs the thread. The block lies below it, out
/// of reach of what Linux writes for a signal while the stack pointer is the program's (LinuxHost's KeyedSignals).
public enum ThreadStack {
  public static let frameCount = 16
  public static let bytes = 64 << 10
  public static let guardOffset = 4 << 10
  public static let stackOffset = 8 << 10
  public static let signalOffset = 52 << 10
  /// Known to assembly: FRAME_ABOVE_BLOCK (gate.S), BLOCK_OFFSET (host_calls.S).
  static let blockOffset = guardOffset - 128
  static let frameOffset = signalOffset - 192

  /// ENOMEM when the arena is full.
  public static func make() throws(Errno) -> UnsafeMutablePointer<thread_block> {
    let base = frames.base + (try Arena.shared.allocateAtEnd(frameCount))
    let block = UnsafeMutablePointer<thread_block>(bitPattern: base + UInt(blockOffset))!
    initialise(block)
    return block
  }

  /// Where the memory of a block's thread begins.
  public static func base(_ block: UnsafeMutablePointer<thread_block>) -> UInt {
    UInt(bitPattern: block) & ~UInt(bytes - 1)
  }

  static func initialise(_ block: UnsafeMutablePointer<thread_block>) {
    block.pointee = thread_block(
      self: block, user_rsp: 0, frame: UnsafeMutablePointer(bitPattern: base(block) + UInt(frameOffset)),
      attention: 0, park_word: 0, thread: nil, trap_detail: 0, fs_base: 0, host_process: 0, host_thread: 0,
      signal_stack: UnsafeMutableRawPointer(bitPattern: base(block) + UInt(signalOffset)), occupied: 0,
      inside: 1, slot: UInt64(ProgramSlots.address(of: block)), process_number: 0, thread_number: 0)
    noteThread?(block)
  }

  /// Told of each thread's memory; set by a host that must know what is one.
  nonisolated(unsafe) public static var noteThread: ((UnsafeMutablePointer<thread_block>) -> Void)? = nil

  public static func free(_ block: UnsafeMutablePointer<thread_block>) {
    frames.free(base(block) - frames.base, frameCount)
  }
}
