// Addresses here come from the linker and the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CHostCore
import CLinuxHost
import CMachine
import HostCore
import Tasks

/// Isolation by protection keys (pkeys(7)): the libOS's memory has key 1, programs' has key 0.
extension LinuxHost {
  nonisolated(unsafe) public internal(set) static var hasKeys = false
  private static let key = 1

  /// What keys need of the processor and of Linux.
  public var offersKeys: Bool {
    var leaf: [4 of UInt32] = .init(repeating: 0)
    withUnsafeMutableBytes(of: &leaf) {
      machine_cpuid(7, 0, $0.baseAddress!.assumingMemoryBound(to: UInt32.self))
    }
    // OSPKE; and FSGSBASE, for the signal entry.
    return leaf[2] & 1 << 4 != 0 && hasFSGSBase
  }

  /// Closes the libOS's memory to programs for good; before the first thread is made.
  public func isolateByKeys() {
    guard offersKeys, LinuxCall.raw(LinuxCall.pkeyAllocate, 0, 0) == LinuxHost.key else {
      LinuxHost.fail("isolation mpk: this processor or its Linux has no protection keys")
    }
    host_open_keys()
    LinuxHost.hasKeys = true
    closeImage()
    close(Int(Arena.address), frames.totalFrames << 12, 3)
    close(0x2f00_0000_0000, (LinuxHost.imageLength + 4095) & ~4095, 1)
    var secret: UInt64 = 0
    withUnsafeMutableBytes(of: &secret) { LinuxCall.getrandom($0) }
    // Neither half is 0, which a register may be by itself.
    set_host_secret(secret | 0x1_0000_0001)
    set_gate_leave(address_of_gate_exit_keys())
    ProgramSlots.isUsed = true
    noteThreads()
  }

  private func close(_ start: Int, _ length: Int, _ protection: Int) {
    guard LinuxCall.raw(LinuxCall.pkeyMprotect, start, length, protection, LinuxHost.key) == 0 else {
      LinuxHost.fail("isolation mpk: Linux refused a key for the libOS's memory")
    }
  }

  /// The image's segments, by its program headers, which lie at its start.
  private func closeImage() {
    let header = UnsafeRawPointer(bitPattern: UInt(address_of_image_start()))!
    for i in 0..<Int(header.load(fromByteOffset: 56, as: UInt16.self)) {
      let entry = header + header.load(fromByteOffset: 32, as: Int.self) + i * 56
      let address = entry.load(fromByteOffset: 16, as: Int.self)
      guard entry.load(as: UInt32.self) == 1, address >> 40 == 0x10 else { continue }
      let flags = Int(entry.load(fromByteOffset: 4, as: UInt32.self))
      let length = entry.load(fromByteOffset: 40, as: Int.self) + (address & 4095)
      close(
        address & ~4095, (length + 4095) & ~4095,
        flags >> 2 & 1 | flags & 2 | (flags & 1) << 2)
    }
  }

  private func noteThreads() {
    let count = (frames.totalFrames << 12) / ThreadStack.bytes + 1
    let map = UnsafeMutablePointer<UInt8>.allocate(capacity: count)
    map.initialize(repeating: 0, count: count)
    set_host_threads(UInt64(UInt(bitPattern: map)), UInt64(frames.base), UInt64(count))
    ThreadStack.noteThread = { block in
      map[Int((ThreadStack.base(block) - frames.base) / UInt(ThreadStack.bytes))] = 1
    }
  }

  /// The part of the thread's memory on which Linux writes signals for the program is memory of this host process only.
  func showSignalStack(_ block: UnsafeMutablePointer<thread_block>) {
    guard LinuxHost.hasKeys else { return }
    _ = LinuxCall.raw(
      LinuxCall.mmap, Int(bitPattern: block.pointee.signal_stack),
      ThreadStack.bytes - ThreadStack.signalOffset,
      3, 0x32, -1, 0)
  }

  /// What sigaltstack(2) is told of the thread's memory.
  func signalStack(_ block: UnsafeMutablePointer<thread_block>) -> (UInt, Int, UInt) {
    let offset = LinuxHost.hasKeys ? ThreadStack.stackOffset : ThreadStack.signalOffset
    return (ThreadStack.base(block) + UInt(offset), 0, UInt(ThreadStack.bytes - offset))
  }

  /// The calling host thread runs on another block's stack: until it is on its own no signal may come, for the stack
  /// pointer tells whose thread it is.
  func adoptWithKeys(_ block: UnsafeMutablePointer<thread_block>) {
    blockSignals(~0)
    _ = LinuxCall.raw(LinuxCall.archPrctl, 0x1001, Int(bitPattern: block))
    showSignalStack(block)
    guardStack(block)
    var stack = signalStack(block)
    let place = UnsafeMutableRawPointer(bitPattern: ThreadStack.base(block) + 2048)
    _ = withUnsafeMutablePointer(to: &stack) { host_change_signal_stack($0, nil, place) }
  }

  public func adopted() {
    if LinuxHost.hasKeys { blockSignals(0) }
  }

  private func blockSignals(_ set: UInt64) {
    var set = set
    _ = withUnsafePointer(to: &set) { LinuxCall.raw(LinuxCall.sigprocmask, 2, Int(bitPattern: $0), 0, 8) }
  }
}
