// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import ABI
import CHostCore
import CLinuxHost
import CMachine
import HostCore
import Tasks

/// What start-up found: read by the image's entry, before and after the arena has its size.
public struct BootEnvironment {
  /// The executable file, mapped read-only.
  public var image = UnsafeRawBufferPointer(start: nil, count: 0)
  /// Descriptor of the launch record, -1 without.
  public var launchDescriptor = -1
  public var printsPolicy = false
  /// A system call's number that makes the libOS panic, for tests; -1 for none.
  public var panicNumber = -1
  public var arguments: UnsafePointer<UInt>
  public var argumentCount: Int
  var arenaDescriptor = -1
  var imageDescriptor = -1
  var dataLength: UInt = 0
  var clockFunction: UInt64 = 0
  var hasFSGSBase = false
  var virtualSharedObject: Range<UInt> = 0..<0
  var initialStackEnd = 0
}

extension LinuxHost {
  static let startBytes: UInt = 8 << 20
  nonisolated(unsafe) static var imageLength = 0

  /// First steps of the process: the libOS's data moves into the arena, a heap exists. Plain memory only, no objects.
  public static func begin(stack: UnsafePointer<UInt>) -> BootEnvironment {
    var boot = BootEnvironment(arguments: stack + 1, argumentCount: Int(stack[0]))
    randomAtStart = { LinuxCall.getrandom($0) }
    shareData(&boot)
    readVectors(&boot)
    if !clocksNeedNoCalls() { boot.clockFunction = 0 }
    mapImage(&boot)
    return boot
  }

  private static func shareData(_ boot: inout BootEnvironment) {
    let name: StaticString = "swiftlet"
    boot.arenaDescriptor = LinuxCall.raw(LinuxCall.memfdCreate, Int(bitPattern: name.utf8Start), 1)
    guard boot.arenaDescriptor >= 0 else { fail("cannot make the arena: Linux refused memfd_create") }
    let start = Int(address_of_data_start())
    let length = Int(address_of_data_end()) - start
    boot.dataLength = UInt(length)
    _ = LinuxCall.raw(LinuxCall.ftruncate, boot.arenaDescriptor, length + Int(startBytes))
    // Written before it is replaced, with nothing changed in between: the compiler keeps no data in registers here.
    guard LinuxCall.raw(LinuxCall.pwrite, boot.arenaDescriptor, start, length, 0) == length,
      LinuxCall.raw(LinuxCall.mmap, start, length, 3, 0x11, boot.arenaDescriptor, 0) == start,
      LinuxCall.raw(
        LinuxCall.mmap, Int(Arena.address), length + Int(startBytes), 3, 0x11, boot.arenaDescriptor, 0) > 0
    else { fail("cannot map the arena") }
    Heap.startTop = Arena.address + UInt(length)
  }

  private static func readVectors(_ boot: inout BootEnvironment) {
    var place = boot.arguments + boot.argumentCount + 1
    while place[0] != 0 {
      let text = UnsafePointer<UInt8>(bitPattern: place[0])!
      if let value = match(text, "SWIFTLET_LAUNCH_FD=") { boot.launchDescriptor = decimal(value) }
      if match(text, "SWIFTLET_PRINT_POLICY=") != nil { boot.printsPolicy = true }
      if let value = match(text, "SWIFTLET_TEST_PANIC=") { boot.panicNumber = decimal(value) }
      place += 1
    }
    place += 1
    while place[0] != 0 {
      if place[0] == 33 {
        boot.clockFunction = SharedObject.symbol("__vdso_clock_gettime", at: place[1])
        boot.virtualSharedObject = place[1]..<SharedObject.end(at: place[1])
      }
      if place[0] == 31 { boot.initialStackEnd = stackEnd(UnsafePointer<UInt8>(bitPattern: place[1])!) }
      if place[0] == 26 { boot.hasFSGSBase = place[1] & 2 != 0 }
      place += 2
    }
  }

  /// AT_EXECFN's text is the last thing on the stack, but for a null pointer.
  private static func stackEnd(_ text: UnsafePointer<UInt8>) -> Int {
    var length = 0
    while length < 4096, text[length] != 0 { length += 1 }  // PATH_MAX
    return (Int(bitPattern: text) + length + 9 + 4095) & ~4095
  }

  private static func match(_ text: UnsafePointer<UInt8>, _ prefix: StaticString) -> UnsafePointer<UInt8>? {
    for i in 0..<prefix.utf8CodeUnitCount where text[i] != prefix.utf8Start[i] { return nil }
    return text + prefix.utf8CodeUnitCount
  }

  private static func decimal(_ text: UnsafePointer<UInt8>) -> Int {
    var value = 0
    var i = 0
    while i < 9, text[i] >= 0x30, text[i] <= 0x39 {
      value = value * 10 + Int(text[i] - 0x30)
      i += 1
    }
    return value
  }

  /// Whether the vDSO reads the time by itself, as it does from the time-stamp counter: with another clock it makes a
  /// system call, from where the seal lets none through.
  private static func clocksNeedNoCalls() -> Bool {
    let path: StaticString = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    let descriptor = LinuxCall.raw(LinuxCall.open, Int(bitPattern: path.utf8Start), 0o2000000)
    guard descriptor >= 0 else { return true }
    var name: [16 of UInt8] = .init(repeating: 0)
    _ = withUnsafeMutablePointer(to: &name) {
      LinuxCall.raw(LinuxCall.read, descriptor, Int(bitPattern: $0), 16)
    }
    _ = LinuxCall.raw(LinuxCall.close, descriptor)
    // tsc, kvm-clock, hyperv_clocksource_tsc_page
    return name[0] == 0x74 || name[0] == 0x6b || name[0] == 0x68 && name[1] == 0x79
  }

  private static func mapImage(_ boot: inout BootEnvironment) {
    let path: StaticString = "/proc/self/exe"
    let descriptor = LinuxCall.raw(LinuxCall.open, Int(bitPattern: path.utf8Start), 0o2000000)
    guard descriptor >= 0 else {
      fail("cannot read the image: /proc/self/exe does not open; is /proc mounted?")
    }
    boot.image = mapFile(descriptor, at: 0x2f00_0000_0000)
    boot.imageDescriptor = descriptor
    imageLength = boot.image.count
    Panic.image = boot.image
  }

  /// Maps a whole file read-only.
  public static func mapFile(_ descriptor: Int, at address: Int) -> UnsafeRawBufferPointer {
    var status: [18 of UInt64] = .init(repeating: 0)  // struct stat, 144 bytes; st_size at 48
    _ = withUnsafeMutablePointer(to: &status) {
      LinuxCall.raw(LinuxCall.fstat, descriptor, Int(bitPattern: $0))
    }
    let size = Int(status[6])
    guard size > 0, LinuxCall.raw(LinuxCall.mmap, address, size, 1, 0x12, descriptor, 0) == address else {
      return UnsafeRawBufferPointer(start: nil, count: 0)
    }
    return UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: address), count: size)
  }

  /// One large page for what the libOS uses most: a new host process finds it with one page fault instead of a dozen.
  /// Linux before 6.1 refuses, and nothing changes.
  private static func useLargePage(_ size: Int) {
    // A small arena has stacks in these 2 MiB, whose guard pages would take it to pieces.
    guard size >= 16 << 20 else { return }
    _ = LinuxCall.raw(LinuxCall.madvise, Int(Arena.address), 2 << 20, 25)  // MADV_COLLAPSE (madvise(2))
  }

  /// Gives the arena its size and makes the host. `memory` is in bytes.
  public static func establish(_ boot: BootEnvironment, memory: UInt64) -> LinuxHost {
    let size = Int(memory >> 12) << 12
    let inUse = boot.dataLength + startBytes
    guard size > Int(inUse), LinuxCall.raw(LinuxCall.ftruncate, boot.arenaDescriptor, size) == 0,
      LinuxCall.raw(LinuxCall.mmap, Int(Arena.address), size, 3, 0x4011, boot.arenaDescriptor, 0) > 0
    else { fail("cannot map the arena: -m is too small, or there is not enough address space") }
    useLargePage(size)
    guard let arena = Arena.make(memory: memory, inUse: inUse) else {
      fail("-m is too small: the libOS needs at least 16M")
    }
    let linux = LinuxHost(
      arenaDescriptor: boot.arenaDescriptor, clockFunction: boot.clockFunction, hasFSGSBase: boot.hasFSGSBase,
      virtualSharedObject: boot.virtualSharedObject)
    linux.imageDescriptor = boot.imageDescriptor
    linux.initialStackEnd = boot.initialStackEnd
    linux.wakeDescriptor = LinuxCall.raw(LinuxCall.eventfd2, 0, 0o4000)
    LinuxHost.shared = linux
    UserSlice.limit = 0x7000_0000_0000  // Linux keeps its stack and vDSO above
    neverCount(linux)
    neverCount(arena)
    host = linux
    frames = arena
    Devices.processors = linux.processorCount
    // What start-up did not use of its own memory.
    arena.adopt(
      Int((Heap.startTop - Arena.address + 4095) >> 12), Int(boot.dataLength + startBytes) >> 12)
    return linux
  }

  /// Uses `descriptor` as the network interface.
  public func setNetwork(descriptor: Int) {
    networkDescriptor = descriptor
    let flags = LinuxCall.raw(LinuxCall.fcntl, descriptor, 3)
    _ = LinuxCall.raw(LinuxCall.fcntl, descriptor, 4, flags | 0o4000)
  }

  /// Maps the page in which the command keeps the size of its terminal; nil if that fails.
  public static func mapSize(_ descriptor: Int) -> UnsafePointer<UInt64>? {
    let address = 0x2e80_0000_0000
    guard LinuxCall.raw(LinuxCall.mmap, address, 4096, 1, 0x11, descriptor, 0) == address else { return nil }
    return UnsafePointer(bitPattern: address)
  }

  /// Opens standard input, output and error anew without waiting (O_NONBLOCK) where they are pipes or devices: they
  /// are read and written under the kernel lock. The flag must not be set on the description that the user's shell
  /// shares, and the libOS's own messages may wait. What cannot be opened again, a socket for one, is asked with ppoll(2) before every call.
  public func takeConsole() {
    let prefix: StaticString = "/proc/self/fd/"
    var name: [16 of UInt8] = .init(repeating: 0)
    for i in 0..<prefix.utf8CodeUnitCount { name[i] = prefix.utf8Start[i] }
    for stream in 0..<3 {
      var status: [18 of UInt64] = .init(repeating: 0)
      let result = withUnsafeMutablePointer(to: &status) {
        LinuxCall.raw(LinuxCall.fstat, stream, Int(bitPattern: $0))
      }
      let type = UInt32(truncatingIfNeeded: status[3]) & 0o170000
      guard result == 0, type != 0o100000 else { continue }
      waitingStreams |= 1 << stream
      guard type == 0o010000 || type == 0o020000 else { continue }
      name[14] = 0x30 + UInt8(stream)
      let access = LinuxCall.raw(LinuxCall.fcntl, stream, 3) & 3
      guard access >= 0 else { continue }
      let descriptor = withUnsafePointer(to: &name) {
        LinuxCall.raw(LinuxCall.open, Int(bitPattern: $0), access | 0o2004400)
      }
      guard descriptor >= 0 else { continue }
      streams[stream] = descriptor
      waitingStreams &= ~(1 << stream)
    }
  }

  /// Makes the calling host thread the libOS thread of `block`.
  public func begin(as block: UnsafeMutablePointer<thread_block>) { started(block) }

  /// Runs the program of the current thread's frame.
  public static func enterProgram() -> Never { host_enter_program() }

  public static func installTraps() { Signals.install() }

  /// Ends before anything runs: one line, status 125 as podman has it for its own errors.
  public static func fail(_ text: StaticString, status: Int32 = 125) -> Never {
    say("swiftlet: ")
    say(text)
    say("\n")
    endEverything(status: status)
  }

  /// Ends with `status`, nothing having run.
  public static func end(status: Int32) -> Never { endEverything(status: status) }

  /// Where patched system-call sites jump to.
  public static var gateAddress: UInt { UInt(address_of_gate_entry()) }
  public static var keyedGateAddress: UInt { UInt(address_of_gate_entry_keys()) }
}
