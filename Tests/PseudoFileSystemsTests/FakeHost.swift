import ABI
import CMachine
import Tasks

/// A host in memory with three processors, for one test thread. Nothing sleeps.
final class FakeHost: HostInterface {
  var now: UInt64 = 5_000_000_000

  func map(address: UInt, length: UInt, protection: Protection, backing: Backing) throws(Errno) {}
  func unmap(address: UInt, length: UInt) throws(Errno) {}
  func protect(address: UInt, length: UInt, protection: Protection) throws(Errno) {}
  func move(from: UInt, length: UInt, to: UInt, newLength: UInt) throws(Errno) {}
  func discard(address: UInt, length: UInt) throws(Errno) {}
  func release(arenaOffset: UInt, length: UInt) {}
  func startThread(_ block: UnsafeMutablePointer<thread_block>) throws(Errno) {}
  func startProcess(_ block: UnsafeMutablePointer<thread_block>) throws(Errno) {}
  func endThread(clearing word: UnsafeMutablePointer<UInt32>) -> Never { fatalError("not in tests") }
  func park(word: UnsafeMutablePointer<UInt32>, expected: UInt32, deadline: UInt64) {}
  func unpark(word: UnsafeMutablePointer<UInt32>) {}
  func kick(_ block: UnsafeMutablePointer<thread_block>) {}
  func setThreadPointer(_ address: UInt) {}
  func adopt(_ block: UnsafeMutablePointer<thread_block>) {}
  func fail(_ text: StaticString, status: Int32) -> Never { fatalError("\(text)") }
  func seal() {}
  func yield() {}
  var monotonicNanoseconds: UInt64 { now }
  var realtimeNanoseconds: UInt64 { now + 1_000_000_000_000 }
  func fillRandom(_ bytes: UnsafeMutableRawBufferPointer) {}
  var processorCount: Int { 3 }
  func processorNanoseconds(_ block: UnsafeMutablePointer<thread_block>, wholeProcess: Bool) -> UInt64 {
    2_500_000_000
  }
  func pollDevices(console: Bool, network: Bool, deadline: UInt64) -> DeviceEvents { [] }
  func wakePoller() {}
  func readConsole(_ bytes: UnsafeMutableRawBufferPointer) throws(Errno) -> Int { 0 }
  func writeConsole(_ stream: Int, _ bytes: UnsafeRawBufferPointer) throws(Errno) -> Int { bytes.count }
  func readFrame(_ bytes: UnsafeMutableRawBufferPointer) -> Int { 0 }
  func writeFrame(header: UnsafeRawBufferPointer, _ bytes: UnsafeRawBufferPointer) -> Int {
    header.count + bytes.count
  }
  func exit(status: Int32) -> Never { fatalError("not in tests") }
}

/// Frames that are only counted: no test here has files with contents.
final class FakeFrames: FrameAllocator {
  func allocate(_ count: Int) throws(Errno) -> UInt { throw .noMemory }
  func free(_ offset: UInt, _ count: Int) {}
  var base: UInt { 0 }
  var totalFrames: Int { 131_072 }
  var freeFrames: Int { 100_000 }
}
