// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
public import ABI
public import CMachine
public import Tasks

/// A thread's memory in the arena: signal stack, libOS stack, and at its top the thread's block.
///
/// ```
///   0        12 KiB  16 KiB                                 64 KiB
///   | signal | guard | libOS stack (grows down)  frame | block |
/// ```
///
/// On the Linux host the guard page has no access in the host process that runs the thread.
public enum ThreadStack {
  public static let frameCount = 16
  public static let signalBytes = 12 << 10

  /// ENOMEM when the arena is full.
  public static func make() throws(Errno) -> UnsafeMutablePointer<thread_block> {
    let base = frames.base + (try frames.allocate(frameCount))
    let top = base + UInt(frameCount << 12)
    let block = UnsafeMutablePointer<thread_block>(bitPattern: (top - 128) & ~63)!
    block.pointee.signal_stack = UnsafeMutableRawPointer(bitPattern: base)
    initialise(block)
    return block
  }

  static func initialise(_ block: UnsafeMutablePointer<thread_block>) {
    let frame = UInt(bitPattern: block) - 192
    block.pointee = thread_block(
      self: block, user_rsp: 0, frame: UnsafeMutablePointer(bitPattern: frame), attention: 0, park_word: 0,
      thread: nil, trap_detail: 0, fs_base: 0, host_process: 0, host_thread: 0,
      signal_stack: block.pointee.signal_stack, occupied: 0, padding: 0,
      slot: UInt64(ProgramSlots.address(of: block)), process_number: 0, thread_number: 0)
  }

  public static func free(_ block: UnsafeMutablePointer<thread_block>) {
    frames.free(UInt(bitPattern: block.pointee.signal_stack) - frames.base, frameCount)
  }
}
