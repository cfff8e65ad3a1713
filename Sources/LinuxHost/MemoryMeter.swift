// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CHostCore
import CLinuxHost
import CMachine
import HostCore
public import Tasks

/// What the meter and the libOS tell each other: the one page of the arena that the meter keeps.
struct MeterPage {
  /// Raised by who wants a measurement now; the meter sleeps on it.
  var request: UInt32
  /// The request that the last measurement answered.
  var answered: UInt32
  /// Raised with every measurement; who asked sleeps on it.
  var sequence: UInt32
  /// /proc cannot be read.
  var hasFailed: UInt32
  var privateFrames: Int
  /// Host's id of the process that holds most, and how much.
  var largestProcess: Int
  var largestFrames: Int
  /// Frames that are left of `-m` for private memory: how often to measure depends on it.
  var room: Int
}

/// A host process that measures what the others hold of their own memory, for the limit of `-m`.
///
/// Private memory is Linux's business: pages come into being by being touched, and are shared after a fork until
/// they are written. Only Linux knows, and says it in /proc, which no sealed process may open. The meter may, and so
/// it must not be reachable: it has neither programs nor the arena in its memory, reads nothing but /proc and writes
/// nothing but one page of numbers.
public final class LinuxMemoryMeter: MemoryMeter {
  let page: UnsafeMutablePointer<MeterPage>

  init(page: UInt) { self.page = UnsafeMutablePointer(bitPattern: page)! }

  public var privateFrames: Int { page.pointee.privateFrames }
  public var sequence: UInt32 { page.pointee.sequence }

  public func measure() {
    guard page.pointee.hasFailed == 0 else { return }
    let wanted = machine_add(&page.pointee.request, 1)
    _ = LinuxCall.raw(LinuxCall.futex, Int(bitPattern: page), 1, 1)
    for _ in 0..<10 {
      let sequence = machine_load(&page.pointee.sequence)
      if Int32(bitPattern: machine_load(&page.pointee.answered) &- wanted) >= 0 { return }
      var time = host_timespec(seconds: 0, nanoseconds: 5_000_000)
      _ = withUnsafePointer(to: &time) {
        LinuxCall.raw(
          LinuxCall.futex, Int(bitPattern: page) + 8, 0, Int(sequence), Int(bitPattern: $0))
      }
    }
  }

  /// Starts the meter as a child of the calling process, the supervisor.
  func start() {
    let supervisor = LinuxCall.raw(LinuxCall.getpid)
    let child = LinuxCall.raw(LinuxCall.clone, 17)
    if child < 0 { LinuxHost.fail("Linux refused a process (RLIMIT_NPROC?)") }
    if child != 0 { return }
    _ = LinuxCall.raw(LinuxCall.prctl, 1, 9)  // PR_SET_PDEATHSIG, SIGKILL
    // The supervisor of a short run may have ended before: nobody would end the meter then.
    if LinuxCall.raw(LinuxCall.getppid) != supervisor { _ = LinuxCall.raw(LinuxCall.exitGroup, 0) }
    let own = Int(bitPattern: page)
    let end = Int(Arena.address) + frames.totalFrames << 12
    let dataStart = Int(address_of_data_start())
    let dataLength = Int(address_of_data_end()) - dataStart
    let target = page
    Seal.installForMeter()
    _ = LinuxCall.raw(LinuxCall.munmap, Int(Arena.address), own - Int(Arena.address))
    _ = LinuxCall.raw(LinuxCall.munmap, own + 4096, end - own - 4096)
    _ = LinuxCall.raw(LinuxCall.mprotect, dataStart, dataLength, 1)
    Measurement(page: target, supervisor: supervisor).repeat()
  }
}

/// The meter's own process: plain system calls and its stack, nothing of the libOS.
private struct Measurement {
  let page: UnsafeMutablePointer<MeterPage>
  let supervisor: Int

  func `repeat`() -> Never {
    while true {
      let request = machine_load(&page.pointee.request)
      if !measure() {
        page.pointee.hasFailed = 1
        while true { _ = LinuxCall.raw(LinuxCall.futex, Int(bitPattern: page), 0, Int(request), 0) }
      }
      machine_store(&page.pointee.answered, request)
      _ = machine_add(&page.pointee.sequence, 1)
      _ = LinuxCall.raw(LinuxCall.futex, Int(bitPattern: page) + 8, 1, 64)
      var time = host_timespec(seconds: 0, nanoseconds: pause())
      _ = withUnsafePointer(to: &time) {
        LinuxCall.raw(LinuxCall.futex, Int(bitPattern: page), 0, Int(request), Int(bitPattern: $0))
      }
    }
  }

  /// As long as a program would take to fill what is left at 4 GiB a second: 1 ms to 250 ms.
  private func pause() -> Int64 {
    let left = max(0, page.pointee.room - page.pointee.privateFrames)
    return min(max(Int64(left) * 1000, 1_000_000), 250_000_000)
  }

  private struct Sum {
    var frames = 0
    var largest = 0
    var process = 0
  }

  /// The resident sets count pages that a fork left shared several times: only near the limit are shares counted,
  /// which takes Linux longer.
  private func measure() -> Bool {
    var list: [32768 of UInt8] = .init(repeating: 0)
    let length = withUnsafeMutableBytes(of: &list) { buffer -> Int in
      var path = PathText()
      path.add("/proc/")
      path.add(supervisor)
      path.add("/task/")
      path.add(supervisor)
      path.add("/children")
      return path.read(buffer.baseAddress!, 32768)
    }
    guard length >= 0 else { return false }
    return withUnsafeBytes(of: &list) { buffer in
      let text = buffer.baseAddress!.assumingMemoryBound(to: UInt8.self)
      var sum = total(text, length, shares: false)
      let room = page.pointee.room
      if sum.frames > room - room / 8 { sum = total(text, length, shares: true) }
      page.pointee.privateFrames = sum.frames
      page.pointee.largestProcess = sum.process
      page.pointee.largestFrames = sum.largest
      return true
    }
  }

  private func total(_ text: UnsafePointer<UInt8>, _ length: Int, shares: Bool) -> Sum {
    var sum = Sum()
    var position = 0
    while position < length {
      let process = PathText.number(text, length, &position)
      position += 1
      guard process > 0 else { continue }
      let frames = shares ? shareOf(process) : residentSet(process)
      sum.frames += frames
      // Of processes about as big the youngest: Linux lists them in order of their start.
      if frames > 0, frames + frames / 8 >= sum.largest {
        sum.largest = max(frames, sum.largest)
        sum.process = process
      }
    }
    return sum
  }

  /// /proc/PID/statm (proc(5)): size, resident, of it shared: files and the arena.
  private func residentSet(_ process: Int) -> Int {
    var text: [128 of UInt8] = .init(repeating: 0)
    return withUnsafeMutableBytes(of: &text) { buffer in
      let bytes = buffer.baseAddress!.assumingMemoryBound(to: UInt8.self)
      var path = PathText()
      path.add("/proc/")
      path.add(process)
      path.add("/statm")
      let length = path.read(bytes, 128)
      var position = 0
      _ = PathText.number(bytes, length, &position)
      position += 1
      let resident = PathText.number(bytes, length, &position)
      position += 1
      return max(0, resident - PathText.number(bytes, length, &position))
    }
  }

  /// The process's share of private pages: Pss_Anon of /proc/PID/smaps_rollup.
  private func shareOf(_ process: Int) -> Int {
    var text: [2048 of UInt8] = .init(repeating: 0)
    return withUnsafeMutableBytes(of: &text) { buffer in
      let bytes = buffer.baseAddress!.assumingMemoryBound(to: UInt8.self)
      var path = PathText()
      path.add("/proc/")
      path.add(process)
      path.add("/smaps_rollup")
      let length = path.read(bytes, 2048)
      let name: StaticString = "Pss_Anon:"
      var position = 0
      while position + 9 < length {
        var i = 0
        while i < 9, bytes[position + i] == name.utf8Start[i] { i += 1 }
        if i == 9 {
          position += 9
          while position < length, bytes[position] == 0x20 { position += 1 }
          return PathText.number(bytes, length, &position) >> 2
        }
        position += 1
      }
      return residentSet(process)
    }
  }
}

/// A path in /proc, built without the heap.
private struct PathText {
  var bytes: [96 of UInt8] = .init(repeating: 0)
  var count = 0

  mutating func add(_ text: StaticString) {
    for i in 0..<text.utf8CodeUnitCount where count < 95 {
      bytes[count] = text.utf8Start[i]
      count += 1
    }
  }

  mutating func add(_ number: Int) {
    if number >= 10 { add(number / 10) }
    guard count < 95 else { return }
    bytes[count] = UInt8(0x30 + number % 10)
    count += 1
  }

  /// The start of the file; a negative error number.
  mutating func read(_ target: UnsafeMutableRawPointer, _ size: Int) -> Int {
    let descriptor = withUnsafeBytes(of: &bytes) {
      LinuxCall.raw(LinuxCall.open, Int(bitPattern: $0.baseAddress), 0o2000000)
    }
    guard descriptor >= 0 else { return descriptor }
    var length = 0
    while length < size {
      let count = LinuxCall.raw(LinuxCall.read, descriptor, Int(bitPattern: target) + length, size - length)
      if count <= 0 { break }
      length += count
    }
    _ = LinuxCall.raw(LinuxCall.close, descriptor)
    return length
  }

  static func number(_ text: UnsafePointer<UInt8>, _ length: Int, _ position: inout Int) -> Int {
    var value = 0
    while position < length, text[position] >= 0x30, text[position] <= 0x39, value < 1 << 50 {
      value = value * 10 + Int(text[position] - 0x30)
      position += 1
    }
    return value
  }
}
