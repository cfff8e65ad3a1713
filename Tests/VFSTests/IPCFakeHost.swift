import ABI
import CMachine
import Foundation
import Tasks
import VFS

/// Just enough of a host for pipes, terminals and sockets: a console of arrays, threads that poll their word.
final class IPCFakeHost: HostInterface {
  var typed: [UInt8] = []
  var hasConsoleEnded = false
  var printed: [UInt8] = []
  /// How many bytes a console write takes; 0 answers EAGAIN.
  var shortWrite = Int.max
  var unparks = 0
  /// Added to the clock.
  var skipped: UInt64 = 0
  var disks: [FakeDisk] = []

  func map(address: UInt, length: UInt, protection: Protection, backing: Backing) throws(Errno) {}
  func unmap(address: UInt, length: UInt) throws(Errno) {}
  func protect(address: UInt, length: UInt, protection: Protection) throws(Errno) {}
  func move(from: UInt, length: UInt, to: UInt, newLength: UInt) throws(Errno) {}
  func discard(address: UInt, length: UInt) throws(Errno) {}
  func release(arenaOffset: UInt, length: UInt) {}
  func startThread(_ block: UnsafeMutablePointer<thread_block>) throws(Errno) {}
  func startProcess(_ block: UnsafeMutablePointer<thread_block>) throws(Errno) {}
  func endThread(clearing word: UnsafeMutablePointer<UInt32>) -> Never { fatalError() }
  func park(word: UnsafeMutablePointer<UInt32>, expected: UInt32, deadline: UInt64) {
    while machine_load(word) == expected, deadline == .max || monotonicNanoseconds < deadline { usleep(50) }
  }
  func unpark(word: UnsafeMutablePointer<UInt32>) { unparks += 1 }
  func kick(_ block: UnsafeMutablePointer<thread_block>) {}
  func setThreadPointer(_ address: UInt) {}
  func adopt(_ block: UnsafeMutablePointer<thread_block>) {}
  func fail(_ text: StaticString, status: Int32) -> Never { fatalError("\(text)") }
  func seal() {}
  func yield() { sched_yield() }
  var monotonicNanoseconds: UInt64 { DispatchTime.now().uptimeNanoseconds + skipped }
  var realtimeNanoseconds: UInt64 { 1_000_000_000_000 + monotonicNanoseconds }
  func fillRandom(_ bytes: UnsafeMutableRawBufferPointer) {}
  func pollDevices(console: Bool, network: Bool, deadline: UInt64) -> DeviceEvents {
    usleep(50)
    return []
  }
  func wakePoller() { unparks += 1 }
  func readConsole(_ bytes: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
    if typed.isEmpty {
      guard hasConsoleEnded else { throw .again }
      return 0
    }
    let count = min(bytes.count, typed.count)
    bytes.copyBytes(from: typed[..<count])
    typed.removeFirst(count)
    return count
  }
  func writeConsole(_ stream: Int, _ bytes: UnsafeRawBufferPointer) throws(Errno) -> Int {
    if shortWrite == 0 { throw .again }
    let count = min(shortWrite, bytes.count)
    printed.append(contentsOf: bytes[..<count])
    return count
  }
  func readFrame(_ bytes: UnsafeMutableRawBufferPointer) -> Int { 0 }
  func writeFrame(header: UnsafeRawBufferPointer, _ bytes: UnsafeRawBufferPointer) -> Int {
    header.count + bytes.count
  }
  func exit(status: Int32) -> Never { fatalError() }
  var diskCount: Int { disks.count }
  func diskSize(_ disk: Int) -> UInt64 { disks[disk].size }
  func readDisk(_ disk: Int, at offset: UInt64, _ bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
    try disks[disk].read(bytes, at: offset)
  }
  func writeDisk(_ disk: Int, at offset: UInt64, _ bytes: UnsafeRawBufferPointer) throws(Errno) {
    try disks[disk].write(bytes, at: offset)
  }
  func flushDisk(_ disk: Int, unlocked: Bool) throws(Errno) { try disks[disk].flush() }
  func discardDisk(_ disk: Int, at offset: UInt64, count: UInt64) {
    disks[disk].discard(at: offset, count: count)
  }

  /// Runs `body` as a thread of the libOS that holds the kernel lock, one test at a time.
  static func run<T>(_ body: (IPCFakeHost) throws -> T) rethrows -> T {
    gate.lock()
    defer { gate.unlock() }
    let fake = IPCFakeHost()
    host = fake
    Devices.consoleReaders = 0
    return try asThread { try body(fake) }
  }

  static let gate = NSLock()

  static func asThread<T>(_ body: () throws -> T) rethrows -> T {
    let block = UnsafeMutablePointer<thread_block>.allocate(capacity: 1)
    block.initialize(to: thread_block())
    let thread = Tasks.Thread(block: block)
    machine_set_current_thread(Unmanaged.passUnretained(thread).toOpaque())
    KernelLock.acquire()
    defer {
      KernelLock.release()
      withExtendedLifetime(thread) { machine_set_current_thread(nil) }
      block.deallocate()
    }
    return try body()
  }
}

/// The error that `body` throws.
func errno(_ body: () throws -> Void) -> Errno? {
  do { try body() } catch { return error as? Errno }
  return nil
}

extension OpenFile {
  func put(_ text: String) throws -> Int { try put(Array(text.utf8)) }

  func put(_ bytes: [UInt8]) throws -> Int {
    try bytes.withUnsafeBytes { try self.write(UserSlice(kernel: $0)) }
  }

  func get(_ count: Int = 4096) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    let found = try bytes.withUnsafeMutableBytes { try self.read(UserSlice(kernel: $0)) }
    return Array(bytes[..<found])
  }

  func text(_ count: Int = 4096) throws -> String { String(decoding: try get(count), as: UTF8.self) }
}

extension Epoll {
  /// What a wait without sleeping finds.
  func poll(_ maximum: Int = 16, deadline: UInt64 = 0) throws -> [(events: UInt32, data: UInt64)] {
    var bytes = [UInt8](repeating: 0, count: 12 * maximum)
    let found = try bytes.withUnsafeMutableBytes {
      try self.wait(UserSlice(kernel: $0), maximum: maximum, deadline: deadline)
    }
    return bytes.withUnsafeBytes { raw in
      (0..<found).map {
        (
          raw.loadUnaligned(fromByteOffset: $0 * 12, as: UInt32.self),
          raw.loadUnaligned(fromByteOffset: $0 * 12 + 4, as: UInt64.self)
        )
      }
    }
  }
}
