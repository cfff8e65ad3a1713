// Processors are records in frames, never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CExokernel

/// How programs are kept out of the libOS. Exokernel lock held.
enum Isolation {
  enum Mode { case none, paging, keys }

  /// With paging each space has a second top table, without the libOS, and whether a thread is in the libOS is the
  /// exokernel's own knowledge. With keys it is in the register PKRU (Intel SDM 3A, 4.6.2), which only the libOS's
  /// gate writes; it belongs to a thread, and no XSAVE area holds it, for XCR0 leaves it out.
  nonisolated(unsafe) private(set) static var mode = Mode.none

  /// PKRU of the libOS.
  static let open: UInt32 = 0

  static var hasKeys: Bool {
    var leaf: [4 of UInt32] = .init(repeating: 0)
    identify(7, &leaf)
    return leaf[2] & 1 << 3 != 0
  }

  /// False when the processors cannot.
  static func begin(_ wanted: UInt64) -> Bool {
    switch Int(wanted) {
    case EXOKERNEL_PAGING: mode = .paging
    case EXOKERNEL_KEYS where hasKeys:
      mode = .keys
      openProcessor(cpu_current()!)
    default: return false
    }
    return true
  }

  /// The calling processor looks at the keys of pages from now on (CR4.PKE).
  @inline(__always)
  static func openProcessor(_ processor: UnsafeMutablePointer<exokernel_processor>) {
    guard mode == .keys, processor.pointee.has_keys == 0 else { return }
    processor.pointee.has_keys = 1
    cpu_write_cr4(cpu_read_cr4() | 1 << 22)
  }

  /// Notes what the thread that came in may touch.
  @inline(__always)
  static func enter(_ thread: ThreadPointer, _ processor: UnsafeMutablePointer<exokernel_processor>) {
    if processor.pointee.has_keys != 0 { thread.pointee.keys = cpu_read_keys() }
  }

  @inline(__always)
  static func leave(_ thread: ThreadPointer) {
    if mode == .keys, cpu_read_keys() != thread.pointee.keys { cpu_write_keys(thread.pointee.keys) }
  }

  /// The thread runs the libOS. Without isolation it does so by being there.
  static func isInside(_ thread: ThreadPointer) -> Bool {
    let address = thread.pointee.registers.rip
    switch mode {
    case .paging: return thread.pointee.is_program == 0
    case .keys:
      return thread.pointee.keys == open && LibOS.isCode(address)
    case .none:
      return LibOS.isCode(address)
        && !(address >= LibOS.entries.answers && address < LibOS.entries.answers_end)
    }
  }

  /// The gate has opened the key, but nothing has been looked at yet: what happens here is the program's doing.
  static func isAtDoor(_ thread: ThreadPointer) -> Bool {
    let address = thread.pointee.registers.rip
    return mode == .keys
      && (address >= LibOS.entries.keys_opened && address < LibOS.entries.keys_switched
        || address == LibOS.entries.refuse)
  }
}
