import ABI
import Ext4
import Foundation
import Testing

/// Long runs: `EXT4_LONG=1` takes every cut point of many seeds and asks e2fsck each time.
let isLong = ProcessInfo.processInfo.environment["EXT4_LONG"] != nil
let firstSeed = Int(ProcessInfo.processInfo.environment["EXT4_SEED"] ?? "1") ?? 1
let longSeeds = Int(ProcessInfo.processInfo.environment["EXT4_SEEDS"] ?? "20") ?? 20

/// What a disk may hold after a power cut: everything up to the last flush, and of what was written since then all, or
/// any part.
struct PowerCut {
  let device: MemoryDevice
  let durable: MemoryDevice
  private(set) var unflushed: [(offset: Int, bytes: [UInt8])] = []
  private let blockSize: Int

  init(_ device: MemoryDevice, base: MemoryDevice, blockSize: Int) {
    self.device = device
    durable = base
    self.blockSize = blockSize
  }

  /// Takes in an event.
  mutating func advance(_ event: MemoryDevice.Event) {
    switch event {
    case .flush:
      for write in unflushed { write.bytes.withUnsafeBytes { durable.apply($0, write.offset) } }
      unflushed = []
    case .write(let offset, let bytes):
      for start in stride(from: 0, to: bytes.count, by: blockSize) {
        unflushed.append((offset + start, Array(bytes[start..<min(start + blockSize, bytes.count)])))
      }
    }
  }

  /// The disk with all unflushed writes, or with a random part of them.
  func state(losing random: inout SeededRandom, _ loses: Bool) -> MemoryDevice {
    let state = MemoryDevice(UnsafeRawBufferPointer(durable.bytes))
    for write in unflushed where !loses || random.below(2) == 0 {
      write.bytes.withUnsafeBytes { state.apply($0, write.offset) }
    }
    return state
  }
}

@Suite(.serialized) struct PowerCutTests {
  static let shapes: [[String]] = [
    ["-b", "1024", "-J", "size=1"], ["-b", "1024", "-J", "size=1", "-O", "^metadata_csum,^64bit"],
    ["-b", "4096", "-J", "size=4"],
  ]

  @Test("Nothing that was synchronised is lost, whenever the power is cut", arguments: shapes)
  func cuts(options: [String]) throws {
    let tools = try HostTools()
    defer { tools.remove() }
    var points = 0
    var checks = 0
    for seed in firstSeed..<(firstSeed + (isLong ? longSeeds : 2)) {
      let device = try tools.make(options[1] == "4096" ? "10M" : "5M", options + ["-N", "256"])
      let base = MemoryDevice(UnsafeRawBufferPointer(device.bytes))
      device.isRecording = true
      let fileSystem = try FileSystem.mount(device, clock: TestClock())
      let workload = Workload(fileSystem, device, seed: UInt64(seed))
      workload.isSpaceScarce = true
      workload.largest = 20_000
      for _ in 0..<150 { try workload.step() }
      var cut = PowerCut(device, base: base, blockSize: Int(options[1]) ?? 1024)
      var random = SeededRandom(UInt64(seed) + 1000)
      for (index, event) in device.events.enumerated() {
        cut.advance(event)
        if !isLong, random.below(16) != 0 { continue }
        for loses in [false, true] {
          let state = cut.state(losing: &random, loses)
          let place = "seed \(seed), event \(index + 1), loses \(loses)"
          try verify(state, workload.promises.filter { $0.from <= index + 1 && index + 1 <= $0.to }, place)
          points += 1
          if isLong || random.below(8) == 0 {
            try #require(try tools.check(state) == "", "\(place)")
            checks += 1
          }
        }
      }
    }
    print("power cuts: \(points) points, \(checks) checked by e2fsck, \(options)")
  }

  private func verify(_ state: MemoryDevice, _ promises: [Workload.Promise], _ place: String) throws {
    let fileSystem: FileSystem
    do {
      fileSystem = try FileSystem.mount(state, clock: TestClock())
    } catch {
      Issue.record("\(place): \(error)")
      throw error
    }
    for promise in promises {
      guard let inode = try? fileSystem.find(promise.path) else {
        Issue.record("\(place): \(promise.path) is gone")
        continue
      }
      let contents = try fileSystem.contents(inode)
      #expect(promise.allowed.contains(contents), "\(place): \(promise.path)")
      fileSystem.release(inode)
    }
    try fileSystem.unmount()
  }

  @Test("e2fsck replays our journal, and finds nothing else to do")
  func replayedByOthers() throws {
    let tools = try HostTools()
    defer { tools.remove() }
    for seed in 1...3 {
      let device = try tools.make("8M", ["-b", "1024"])
      let fileSystem = try FileSystem.mount(device, clock: TestClock())
      let workload = Workload(fileSystem, device, seed: UInt64(seed))
      for _ in 0..<300 { try workload.step() }
      try fileSystem.synchronize()
      try tools.save(device)
      let replay = try tools.run("e2fsck", ["-fy", "-E", "journal_only", tools.image.path])
      #expect(replay.status < 4, "\(replay.output)")
      let check = try tools.run("e2fsck", ["-fn", tools.image.path])
      #expect(check.status == 0, "\(check.output)")
      let again = try FileSystem.mount(try tools.load(), clock: TestClock())
      try workload.compare(again)
    }
  }

  @Test("A journal written by debugfs is replayed, with its revoke records")
  func replaysOthers() throws {
    let tools = try HostTools()
    defer { tools.remove() }
    let device = try tools.make("8M", ["-b", "1024"])
    let block = [UInt8](repeating: 0x5A, count: 1024)
    try Data(block).write(to: tools.directory.appendingPathComponent("block"))
    let file = tools.directory.appendingPathComponent("block").path
    _ = device
    let output = try tools.debugfs(
      ["jo -c", "jw -b 7000 \(file)", "jw -b 7001 \(file)", "jw -r 7001", "jc"], writing: true)
    let loaded = try tools.load()
    let fileSystem = try FileSystem.mount(loaded, clock: TestClock())
    try fileSystem.unmount()
    #expect(Array(loaded.bytes[7000 * 1024..<7001 * 1024]) == block, "\(output)")
    #expect(Array(loaded.bytes[7001 * 1024..<7002 * 1024]) != block, "\(output)")
    #expect(try tools.check(loaded) == "")
  }
}
