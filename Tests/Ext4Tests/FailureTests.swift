import ABI
import Ext4
import Testing

@Suite(.serialized) struct FailureTests {
  /// Runs a workload until something fails; whether it did.
  private func run(_ workload: Workload, _ steps: Int) throws -> Bool {
    do {
      for _ in 0..<steps { try workload.step() }
      return false
    } catch let error as Errno where error == .inputOutput || error == .readOnlyFileSystem {
      return true
    }
  }

  @Test("A read that fails is reported, and the file system stays whole")
  func failingReads() throws {
    let tools = try HostTools()
    defer { tools.remove() }
    let base = try tools.make("5M", ["-b", "1024", "-J", "size=1"])
    var failures = 0
    for call in stride(from: 0, to: isLong ? 2000 : 200, by: isLong ? 1 : 9) {
      let device = MemoryDevice(UnsafeRawBufferPointer(base.bytes))
      device.callsBeforeReadFails = call
      guard let fileSystem = try? FileSystem.mount(device, clock: TestClock()) else { continue }
      let workload = Workload(fileSystem, device, seed: 11)
      if try run(workload, 200) { failures += 1 }
      device.callsBeforeReadFails = nil
      try fileSystem.unmount()
      try #require(try tools.check(device) == "", "call \(call)")
    }
    #expect(failures > 3)
  }

  @Test(
    "A write or flush that fails is reported, and nothing synchronised is lost", arguments: [false, true])
  func failingWrites(keepsFailing: Bool) throws {
    let tools = try HostTools()
    defer { tools.remove() }
    let base = try tools.make("5M", ["-b", "1024", "-J", "size=1"])
    var failures = 0
    for call in stride(from: 0, to: isLong ? 1200 : 400, by: isLong ? 1 : 13) {
      let device = MemoryDevice(UnsafeRawBufferPointer(base.bytes))
      device.callsBeforeWriteFails = call
      device.keepsFailing = keepsFailing
      guard let fileSystem = try? FileSystem.mount(device, clock: TestClock()) else { continue }
      let workload = Workload(fileSystem, device, seed: 12)
      if try run(workload, 200) { failures += 1 }
      device.callsBeforeWriteFails = nil
      // As after a crash: what is on the device counts.
      let again = try FileSystem.mount(device, clock: TestClock())
      for promise in workload.promises where promise.to == Int.max {
        let inode = try again.find(promise.path)
        #expect(promise.allowed.contains(try again.contents(inode)), "call \(call): \(promise.path)")
        again.release(inode)
      }
      try again.unmount()
      try #require(try tools.check(device) == "", "call \(call)")
    }
    #expect(failures > 3)
  }
}
