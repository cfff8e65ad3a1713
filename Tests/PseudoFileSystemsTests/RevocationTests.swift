import ABI
import CMachine
import Testing
import VFS

@testable import PseudoFileSystems
@testable import Tasks

/// Memory that programs hold, as the test says.
private final class FakeMeter: MemoryMeter {
  var privateFrames = 0
  var sequence: UInt32 = 0
  func measure() { sequence &+= 1 }
}

@Suite("Revocation and memory pressure", .serialized) struct RevocationTests {
  private let machine = FakeHost()
  private let meter = FakeMeter()
  private let total = 131_072

  init() {
    host = machine
    _ = KernelLock.tryAcquire()
    frames = FakeFrames()
    memoryMeter = meter
    MemoryLimit.reclaim = nil
  }

  private func end() {
    Revocation.limit(frames: total)
    MemoryLimit.relieve = nil
    memoryMeter = nil
    MemoryLimit.reclaim = nil
  }

  private func pass(milliseconds: UInt64) {
    for _ in 0..<milliseconds / 10 {
      machine.now += 10_000_000
      Timers.run(now: machine.now)
    }
  }

  @Test("caches go first, and nobody hears of it when they are enough")
  func caches() {
    defer { end() }
    meter.privateFrames = 20_000
    var asked = 0
    MemoryLimit.reclaim = { count in
      asked += count
      self.meter.privateFrames -= count
    }
    var ended = 0
    MemoryLimit.relieve = { ended += 1 }
    // 31,072 frames are the libOS's, 20,000 caches: 50,000 leave room for neither.
    Revocation.limit(frames: 50_000, grace: 1_000_000_000)
    #expect(asked > 0 && MemoryLimit.available >= 0 && !MemoryPressure.isOn)
    pass(milliseconds: 2000)
    #expect(ended == 0)
  }

  @Test("past the deadline the biggest ends, again and again, until there is room")
  func deadline() {
    defer { end() }
    meter.privateFrames = 60_000
    var ended = 0
    MemoryLimit.relieve = {
      ended += 1
      if ended == 3 { meter.privateFrames = 1000 }
    }
    Revocation.limit(frames: 65_536, grace: 1_000_000_000)
    #expect(MemoryPressure.isOn && Revocation.enforced == 0)
    #expect(throws: Errno.noMemory) { try MemoryLimit.grant(bytes: 4096) }
    pass(milliseconds: 900)
    #expect(ended == 0)
    pass(milliseconds: 1000)
    #expect(ended == 3 && !MemoryPressure.isOn)
    #expect(Revocation.enforced == 65_536)
    #expect(MemoryLimit.total == 65_536)
  }

  @Test("what is given again can be used at once")
  func again() throws {
    defer { end() }
    meter.privateFrames = 60_000
    Revocation.limit(frames: 65_536, grace: 1_000_000_000)
    Revocation.limit(frames: total)
    #expect(!MemoryPressure.isOn && MemoryLimit.total == total)
    try MemoryLimit.grant(bytes: 4096)
  }

  @Test("a request for more than can be is one for what can be")
  func limits() {
    defer { end() }
    Revocation.request(total * 10, grace: 1)
    #expect(MemoryLimit.total == 16 << 8)
    Revocation.request(-5, grace: 1)
    #expect(MemoryLimit.total == total)
    Revocation.limit(frames: total * 2)
    #expect(MemoryLimit.total == total)
  }

  private func trigger(_ text: String) -> PressureTrigger? { PressureTrigger(parsing: Array(text.utf8)) }

  @Test(
    "triggers that Linux refuses are refused",
    arguments: [
      "", "some", "some 1", "some 0 1000000", "some 1000001 1000000", "some 1 100", "some 1 10000001",
      "other 1 1000000", "some -1 1000000", "some 1 1000000 1", "some 9999999999999 1000000",
    ])
  func refused(_ text: String) { #expect(trigger(text) == nil) }

  @Test("a trigger tells once a window, as long as memory is short")
  func events() throws {
    defer { end() }
    let trigger = try #require(self.trigger("some 150000 1000000\n"))
    MemoryPressure.began = { trigger.watch() }
    meter.privateFrames = 60_000
    #expect(!trigger.takeEvent())
    Revocation.limit(frames: 65_536, grace: 60_000_000_000)
    pass(milliseconds: 140)
    #expect(!trigger.takeEvent())
    pass(milliseconds: 200)
    #expect(trigger.takeEvent())
    #expect(!trigger.takeEvent())
    pass(milliseconds: 700)
    #expect(!trigger.takeEvent())
    pass(milliseconds: 1500)
    #expect(trigger.takeEvent())
    meter.privateFrames = 0
    pass(milliseconds: 3000)
    _ = trigger.takeEvent()
    pass(milliseconds: 3000)
    #expect(!trigger.takeEvent())
    trigger.disarm()
  }

  @Test("the file says for how long memory was short")
  func averages() throws {
    defer { end() }
    let file = PressureFile(device: 1)
    let before = MemoryPressure.stalled(now: machine.now).some
    meter.privateFrames = 60_000
    Revocation.limit(frames: 65_536, grace: 60_000_000_000)
    pass(milliseconds: 10_000)
    let lines = String(decoding: file.content(), as: UTF8.self).split(separator: "\n")
    #expect(lines.count == 2 && lines[0].hasPrefix("some avg10=6"))
    #expect(lines[0].hasSuffix("total=\((before + 10_000_000_000) / 1000)"))
    #expect(lines[1].hasPrefix("full avg10=0.00 avg60=0.00 avg300=0.00 total="))
  }
}
