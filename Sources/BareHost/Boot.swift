// Addresses here are those that the exokernel maps and never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CBareHost
import CHostCore
import HostCore
import Tasks

extension BareHost {
  private static var information: UnsafePointer<exokernel_information> {
    UnsafePointer(bitPattern: UInt(EXOKERNEL_INFORMATION_ADDRESS))!
  }
  private static let startBytes: UInt = 8 << 20

  /// First steps in ring 3: a heap exists.
  public static func begin() {
    randomAtStart = { Entropy.fill($0) }
    Heap.startTop = Arena.address
  }

  /// The image file, of which only the archive and what follows it is mapped.
  public static var image: UnsafeRawBufferPointer {
    let offset = Int(information.pointee.archive_file_offset)
    let length = Int(information.pointee.archive_bytes)
    guard length > 0 else { return UnsafeRawBufferPointer(start: nil, count: 0) }
    return UnsafeRawBufferPointer(
      start: UnsafeRawPointer(bitPattern: Int(EXOKERNEL_ARCHIVE_ADDRESS) - offset), count: offset + length)
  }

  /// The launch record, empty without.
  public static var record: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(
      start: UnsafeRawPointer(bitPattern: UInt(EXOKERNEL_RECORD_ADDRESS)),
      count: Int(information.pointee.record_bytes))
  }

  /// A system call's number that makes the libOS panic, for tests (`swiftlet.panic=N` on the kernel command line); -1 for
  /// none.
  public static var panicNumber: Int {
    let key: StaticString = "swiftlet.panic="
    return withUnsafeBytes(of: information.pointee.command_line) { text -> Int in
      let length = min(Int(information.pointee.command_line_bytes), text.count)
      var start = 0
      while start + key.utf8CodeUnitCount < length {
        var i = 0
        while i < key.utf8CodeUnitCount, text[start + i] == key.utf8Start[i] { i += 1 }
        if i == key.utf8CodeUnitCount {
          var value = 0
          var at = start + i
          while at < length, text[at] >= 0x30, text[at] <= 0x39, value < 1 << 20 {
            value = value * 10 + Int(text[at] - 0x30)
            at += 1
          }
          return value
        }
        start += 1
      }
      return -1
    }
  }

  /// Makes the host, with an arena of all the memory that the exokernel has left.
  public static func establish() -> BareHost {
    let bare = BareHost(information: information)
    shared = bare
    neverCount(bare)
    host = bare
    guard let arena = Arena.make(memory: information.pointee.arena_bytes, inUse: startBytes) else {
      bare.fail("-m is too small: the libOS needs at least 16M", status: 125)
    }
    UserSlice.limit = 0x7000_0000_0000
    neverCount(arena)
    frames = arena
    // What start-up did not use of its own memory.
    arena.adopt(Int((Heap.startTop - Arena.address + 4095) >> 12), Int(startBytes) >> 12)
    neverCount(bare.meter)
    memoryMeter = bare.meter
    bare.openDevices()
    Devices.processors = bare.processorCount
    return bare
  }

  /// Where patched system-call sites jump to.
  public static var gateAddress: UInt { UInt(address_of_gate_entry()) }
  public static var keyedGateAddress: UInt { UInt(address_of_gate_entry_keys()) }
}
