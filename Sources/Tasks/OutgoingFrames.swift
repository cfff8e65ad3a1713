public import ABI
import CMachine

/// Frames on their way out: put in with the kernel lock held, written to the host when it has been given up.
///
/// Linux takes a frame all the way to its reader, tens of microseconds in which nobody else could have the lock. One
/// thread writes at a time, so frames stay in order; who finds another writing leaves its frames to that one.
public enum OutgoingFrames {
  /// Set by hosts that take frames from a thread without the kernel lock.
  nonisolated(unsafe) public static var isUsed = false

  private static let slots: UInt32 = 64
  private static let slotSize = 2048
  /// Length of the frame with its header, in front of both.
  private static let prefix = 8
  /// Addresses of slots alone: without the lock no object may be touched.
  nonisolated(unsafe) private static var storage: UnsafeMutableRawPointer? = nil
  /// How many were put in, and how many were written: slots by number modulo their count.
  nonisolated(unsafe) private static var accepted: UInt32 = 0
  nonisolated(unsafe) private static var written: UInt32 = 0
  /// 1 while somebody writes.
  nonisolated(unsafe) private static var writing: UInt32 = 0

  /// Whether frames wait to be written.
  @inline(__always)
  static var isEmpty: Bool { machine_load(&accepted) == machine_load(&written) }

  /// Keeps a frame until the kernel lock is given up. False when the caller is to write it itself: what came before
  /// it has been written then. Kernel lock held.
  public static func append(header: UnsafeRawBufferPointer, _ frame: UnsafeRawBufferPointer) -> Bool {
    guard isUsed else { return false }
    let length = header.count + frame.count
    guard length <= slotSize - prefix else {
      flush()
      return false
    }
    if machine_load(&accepted) &- machine_load(&written) == slots { flush() }
    let slot = storage(of: accepted)
    slot.storeBytes(of: UInt32(truncatingIfNeeded: header.count), as: UInt32.self)
    slot.storeBytes(of: UInt32(truncatingIfNeeded: length), toByteOffset: 4, as: UInt32.self)
    UnsafeMutableRawBufferPointer(start: slot + prefix, count: header.count).copyMemory(from: header)
    UnsafeMutableRawBufferPointer(start: slot + prefix + header.count, count: frame.count).copyMemory(
      from: frame)
    machine_store(&accepted, accepted &+ 1)
    return true
  }

  private static func storage(of number: UInt32) -> UnsafeMutableRawPointer {
    let start =
      storage ?? .allocate(byteCount: Int(slots) * slotSize, alignment: 16)
    storage = start
    return start + Int(number % slots) * slotSize
  }

  /// Returns when every frame has been written, by this thread or another. Kernel lock held: nobody adds any.
  public static func flush() {
    drain()
    while !isEmpty {
      // The other one may have been interrupted; it needs a processor to go on.
      host.park(word: &writing, expected: 1, deadline: host.monotonicNanoseconds &+ 50_000)
      drain()
    }
  }

  /// Writes what there is, unless somebody else does. Without the kernel lock.
  @inline(never)
  static func drain() {
    while !isEmpty {
      guard machine_compare_exchange(&writing, 0, 1) != 0 else { return }
      while !isEmpty {
        guard let storage else { break }
        write(storage + Int(written % slots) * slotSize)
        machine_store(&written, written &+ 1)
      }
      // Also a fence: who puts a frame in from here on finds nobody writing, or is found by the look above.
      _ = machine_exchange(&writing, 0)
    }
  }

  /// A frame that the host does not take is lost, as on a full link.
  private static func write(_ slot: UnsafeMutableRawPointer) {
    let header = Int(slot.load(as: UInt32.self))
    let length = Int(slot.load(fromByteOffset: 4, as: UInt32.self))
    _ = host.writeFrame(
      header: UnsafeRawBufferPointer(start: slot + prefix, count: header),
      UnsafeRawBufferPointer(start: slot + prefix + header, count: length - header))
  }
}
