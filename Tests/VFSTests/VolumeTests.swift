import ABI
import Ext4
import Foundation
import Tasks
import Testing
import VFS

/// Runs `body` with memory of `count` frames, which must all be free again afterwards.
private func withFrames(_ count: Int = 4096, _ body: (IPCFakeHost) throws -> Void) throws {
  try IPCFakeHost.run { fake in
    let memory = TestFrames(count)
    frames = memory
    MemoryLimit.reserve = 16
    defer {
      MemoryLimit.reclaim = nil
      frames = nil
    }
    try body(fake)
    #expect(memory.freeFrames == count - 1, "frames were lost")
  }
}

extension Inode {
  fileprivate func file(_ name: String, flags: UInt32 = 2) throws -> OpenFile {
    try lookup(bytes(name)).open(flags: flags)
  }
}

private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

extension OpenFile {
  fileprivate func get(at offset: Int64, _ count: Int) throws -> [UInt8] {
    var result = [UInt8](repeating: 0xaa, count: count)
    let found = try result.withUnsafeMutableBytes { try self.read(UserSlice(kernel: $0), at: offset) }
    return Array(result[..<found])
  }
  fileprivate func put(_ content: [UInt8], at offset: Int64) throws -> Int {
    try content.withUnsafeBytes { try self.write(UserSlice(kernel: $0), at: offset) }
  }
}

/// The root of an image in memory, under a layer.
private func withRoot(
  _ image: [UInt8], _ layer: BlockLayer = MemoryLayer(), blocks: Int = 16384,
  _ body: (Inode, Volume) throws -> Void
) throws {
  try image.withUnsafeBytes { base in
    let disk = LayeredDisk(base: base, imageOffset: 0x10000, layer: layer, size: UInt64(blocks) << 12)
    let volume = try Volume(root: disk)
    defer { Volume.unmountAll() }
    try body(try volume.root(), volume)
  }
}

@Suite("The root over an image", .serialized)
struct RootVolumeTests {
  private static let content = (0..<50_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }

  private func image() throws -> [UInt8] {
    try FileSystemTools.make(
      "1200k", FileSystemTools.rootOptions, ["file": RootVolumeTests.content, "empty": []])
  }

  @Test("Unchanged pages are the image's own; changed ones are not; the image stays as it is")
  func pages() throws {
    let image = try image()
    try withFrames { _ in
      try withRoot(image) { root, _ in
        let before = frames.freeFrames
        let file = try root.file("file")
        #expect(try file.get(at: 0, 60_000) == RootVolumeTests.content)
        #expect(frames.freeFrames == before, "reading took memory")
        for page in 0..<13 {
          let place = try #require(file.inode.imageOffset(page: page))
          let start = Int(place) - 0x10000
          let end = min(start + 4096, start + 50_000 - page * 4096)
          #expect(
            image[start..<end].elementsEqual(
              RootVolumeTests.content[page * 4096..<min(50_000, (page + 1) * 4096)]))
        }
        #expect(file.inode.imageOffset(page: 13) == nil && file.inode.imageOffset(page: -1) == nil)
        #expect(try file.put([1, 2, 3], at: 5000) == 3)
        #expect(before - frames.freeFrames == 1)
        #expect(file.inode.imageOffset(page: 1) == nil && file.inode.imageOffset(page: 2) != nil)
        var expected = RootVolumeTests.content
        expected.replaceSubrange(5000..<5003, with: [1, 2, 3])
        #expect(try file.get(at: 0, 60_000) == expected)
        // Nothing of what was cut may be seen behind the end.
        try file.inode.truncate(9000)
        #expect(file.inode.imageOffset(page: 2) == nil)
        try file.inode.truncate(20_000)
        #expect(try file.get(at: 8990, 20) == Array(expected[8990..<9000]) + [UInt8](repeating: 0, count: 10))
        #expect(file.inode.imageOffset(page: 3) == nil)
      }
      // A new run begins where the image is.
      try withRoot(image) { root, _ in
        let content = try root.file("file").get(at: 0, 60_000)
        #expect(content == RootVolumeTests.content)
      }
    }
  }

  @Test("Any mix of calls gives what a plain array gives", arguments: [1, 2, 3])
  func model(seed: Int) throws {
    let image = try image()
    var random = SeededRandom(UInt64(seed))
    try withFrames { _ in
      try withRoot(image) { root, _ in
        let file = try root.file("file")
        var model = RootVolumeTests.content
        for _ in 0..<150 {
          let offset = random.below(90_000)
          let length = 1 + random.below(20_000)
          let end = offset + length
          switch random.below(7) {
          case 0, 1:
            let data = random.bytes(length)
            if end > model.count { model += [UInt8](repeating: 0, count: end - model.count) }
            model.replaceSubrange(offset..<end, with: data)
            #expect(try file.put(data, at: Int64(offset)) == length)
          case 2:
            model =
              offset < model.count
              ? Array(model[..<offset]) : model + [UInt8](repeating: 0, count: offset - model.count)
            try file.inode.truncate(Int64(offset))
          case 3:
            for place in offset..<max(offset, min(end, model.count)) { model[place] = 0 }
            try file.inode.allocate(mode: 3, offset: Int64(offset), length: Int64(length))
          case 4:
            if end > model.count { model += [UInt8](repeating: 0, count: end - model.count) }
            try file.inode.allocate(mode: 0, offset: Int64(offset), length: Int64(length))
          case 5:
            // Data may be said to be where there are zeros, never the other way round.
            if let hole = try? file.seek(Int64(offset), whence: 4), hole < model.count {
              let data = (try? file.seek(hole, whence: 3)) ?? Int64(model.count)
              #expect(model[Int(hole)..<Int(data)].allSatisfy { $0 == 0 })
            }
          default:
            let found = try file.get(at: Int64(offset), length)
            #expect(found == Array(model[min(offset, model.count)..<min(end, model.count)]))
          }
          #expect(file.inode.currentStatus().size == Int64(model.count))
        }
        #expect(try file.get(at: 0, 200_000) == model)
        try root.unlink(bytes("file"), directory: false)
        #expect(try file.get(at: 0, 200_000) == model)
      }
    }
  }

  @Test("Memory is the limit: ENOSPC, and what was written stays")
  func full() throws {
    let image = try image()
    try withFrames(600) { _ in
      try withRoot(image) { root, _ in
        let file = try root.create(bytes("big"), mode: 0o100600, user: 0, group: 0, device: 0, target: [])
          .open(flags: 2)
        let part = [UInt8](repeating: 7, count: 65536)
        var written: Int64 = 0
        while true {
          do { written += Int64(try file.put(part, at: written)) } catch {
            #expect(error as? Errno == .noSpace)
            break
          }
        }
        #expect(written > 1 << 20 && written < 600 << 12)
        #expect(try file.get(at: written - 10, 20) == [UInt8](repeating: 7, count: 10))
        #expect(throws: Errno.noSpace) {
          try root.create(bytes("more"), mode: 0o100600, user: 0, group: 0, device: 0, target: [])
        }
        let left = file.inode.statistics?.freeBlocks ?? 1000
        #expect(left < 100)
        try root.unlink(bytes("big"), directory: false)
      }
    }
  }

  @Test("Names come and go; a looked-up name is not believed for longer than it is true")
  func names() throws {
    let image = try image()
    try withFrames { _ in
      try withRoot(image) { root, _ in
        #expect(throws: Errno.noSuchFile) { try root.lookup(bytes("new")) }
        let new = try root.create(bytes("new"), mode: 0o100600, user: 0, group: 0, device: 0, target: [])
        #expect(try root.lookup(bytes("new")) === new)
        try root.rename(bytes("new"), to: root, as: bytes("empty"), flags: 0)
        #expect(throws: Errno.noSuchFile) { try root.lookup(bytes("new")) }
        #expect(try root.lookup(bytes("empty")) === new)
        try root.rename(bytes("file"), to: root, as: bytes("empty"), flags: 2)
        #expect(try root.lookup(bytes("file")) === new)
        try root.unlink(bytes("file"), directory: false)
        #expect(throws: Errno.noSuchFile) { try root.lookup(bytes("file")) }
        let unnamed = try root.createUnnamed(mode: 0o100600, user: 5, group: 6)
        #expect(unnamed.status.links == 0 && unnamed.status.user == 5)
        try root.link(bytes("named"), to: unnamed)
        #expect(try root.lookup(bytes("named")) === unnamed && unnamed.status.links == 1)
        #expect(Set(try root.children()) == Set(["lost+found", "empty", "named"].map { bytes($0) }))
      }
    }
  }
}

@Suite("A layer in a file", .serialized)
struct FileLayerTests {
  private static let blocks = 64
  private static let lower = 40
  private static let dataOffset: UInt64 = 8192

  private func layer(_ isNew: Bool = false) throws -> FileLayer {
    try FileLayer(
      disk: 0, lower: FileLayerTests.lower, bitmapOffset: 4096, dataOffset: FileLayerTests.dataOffset,
      isNew: isNew)
  }

  private func contents(_ base: UnsafeRawBufferPointer) throws -> [[UInt8]] {
    let disk = LayeredDisk(
      base: base, imageOffset: 0, layer: try layer(), size: UInt64(FileLayerTests.blocks) << 12)
    var result: [[UInt8]] = []
    for block in 0..<FileLayerTests.blocks {
      var bytes = [UInt8](repeating: 0, count: 4096)
      try bytes.withUnsafeMutableBytes { try disk.read($0, at: UInt64(block) << 12) }
      result.append(bytes)
    }
    return result
  }

  /// Writes, in parts of blocks too, and flushes; then power is cut after every event, with any of the unflushed sectors
  /// lost. A sector must hold what it held at the last flush or something written since.
  @Test("After a power cut every sector is old or new", arguments: [1, 2])
  func powerCuts(seed: Int) throws {
    var random = SeededRandom(UInt64(seed))
    let image = random.bytes(FileLayerTests.lower << 12)
    let length = Int(FileLayerTests.dataOffset) + FileLayerTests.blocks << 12
    try IPCFakeHost.run { fake in
      fake.disks = [FakeDisk([UInt8](repeating: 0, count: length))]
      try image.withUnsafeBytes { base in
        // What each sector may hold: the last is the newest; a flush leaves that alone.
        var possible: [[[UInt8]]] = []
        for sector in 0..<FileLayerTests.blocks * 8 {
          let start = sector * 512
          possible.append([
            start < image.count ? Array(image[start..<start + 512]) : [UInt8](repeating: 0, count: 512)
          ])
        }
        let disk = LayeredDisk(
          base: base, imageOffset: 0, layer: try layer(true), size: UInt64(FileLayerTests.blocks) << 12)
        try disk.flush()
        var durable = fake.disks[0].bytes
        for _ in 0..<30 {
          fake.disks[0].events = []
          for _ in 0..<1 + random.below(4) {
            let first = random.below(FileLayerTests.blocks * 8 - 24)
            let count = 1 + random.below(24)
            let data = random.bytes(count * 512)
            for index in 0..<count {
              possible[first + index].append(Array(data[index * 512..<(index + 1) * 512]))
            }
            try data.withUnsafeBytes { try disk.write($0, at: UInt64(first) * 512) }
          }
          try disk.flush()
          let events = fake.disks[0].events
          for cut in 0...events.count {
            let after = self.after(events[..<cut], durable, &random)
            let real = fake.disks[0]
            fake.disks[0] = FakeDisk(after)
            for (block, bytes) in try contents(base).enumerated() {
              for part in 0..<8 {
                let sector = Array(bytes[part * 512..<(part + 1) * 512])
                let allowed = possible[block * 8 + part]
                if cut == events.count {
                  #expect(sector == allowed.last)
                } else {
                  #expect(allowed.contains(sector))
                }
              }
            }
            fake.disks[0] = real
          }
          durable = fake.disks[0].bytes
          for sector in possible.indices { possible[sector] = [possible[sector][possible[sector].count - 1]] }
        }
      }
    }
  }

  /// What is on the disk when power is cut: all that was flushed, and any of the sectors written after the last flush.
  private func after(_ events: ArraySlice<FakeDisk.Event>, _ start: [UInt8], _ random: inout SeededRandom)
    -> [UInt8]
  {
    var bytes = start
    var waiting: [(Int, ArraySlice<UInt8>)] = []
    for event in events {
      switch event {
      case .write(let offset, let data):
        for part in stride(from: 0, to: data.count, by: 512) {
          waiting.append((offset + part, data[part..<part + 512]))
        }
      case .flush:
        for (offset, data) in waiting { bytes.replaceSubrange(offset..<offset + 512, with: data) }
        waiting = []
      }
    }
    for (offset, data) in waiting where random.below(2) == 0 {
      bytes.replaceSubrange(offset..<offset + 512, with: data)
    }
    return bytes
  }

  @Test("What one run keeps the next one finds; e2fsck finds the whole clean")
  func kept() throws {
    let image = try FileSystemTools.make(
      "1200k", FileSystemTools.rootOptions, ["file": bytes("from the image")])
    let blocks = 32768
    try withFrames { fake in
      let lower = image.count >> 12
      fake.disks = [FakeDisk([UInt8](repeating: 0, count: 8192 + blocks << 12))]
      func layer(_ isNew: Bool) throws -> FileLayer {
        try FileLayer(disk: 0, lower: lower, bitmapOffset: 4096, dataOffset: 8192, isNew: isNew)
      }
      try image.withUnsafeBytes { base in
        let disk = LayeredDisk(base: base, imageOffset: 0, layer: try layer(true), size: UInt64(blocks) << 12)
        try Volume.prepare(root: disk)
      }
      try withRoot(image, try layer(false), blocks: blocks) { root, _ in
        #expect(try root.file("file").inode.imageOffset(page: 0) != nil)
        #expect(try root.file("file").put(bytes("FROM"), at: 0) == 4)
        let new = try root.create(bytes("new"), mode: 0o100600, user: 0, group: 0, device: 0, target: [])
        #expect(try new.open(flags: 2).put(bytes("kept"), at: 100_000) == 4)
      }
      try withRoot(image, try layer(false), blocks: blocks) { root, _ in
        #expect(try root.file("file").get(at: 0, 100) == bytes("FROM the image"))
        #expect(try root.file("file").inode.imageOffset(page: 0) == nil)
        #expect(try root.file("new").get(at: 99_999, 100) == [0] + bytes("kept"))
        // A crash: the next mount replays the journal.
        try root.unlink(bytes("file"), directory: false)
        try root.synchronizeFileSystem()
        #expect(try root.file("new").put(bytes("lost"), at: 0) == 4)
        let crashed = fake.disks[0].bytes
        Volume.unmountAll()
        fake.disks[0] = FakeDisk(crashed)
      }
      try withRoot(image, try layer(false), blocks: blocks) { root, _ in
        #expect(throws: Errno.noSuchFile) { try root.lookup(bytes("file")) }
        let content = try root.file("new").get(at: 0, 4)
        #expect(content == [0, 0, 0, 0])
      }
      try image.withUnsafeBytes { base in
        let disk = LayeredDisk(
          base: base, imageOffset: 0, layer: try layer(false), size: UInt64(blocks) << 12)
        var whole = [UInt8](repeating: 0, count: blocks << 12)
        try whole.withUnsafeMutableBytes { try disk.read($0, at: 0) }
        #expect(try FileSystemTools.check(whole) == "")
      }
    }
  }
}

@Suite("The page cache of a volume", .serialized)
struct PageCacheTests {
  private func withVolume(_ body: (IPCFakeHost, FakeDisk, Inode) throws -> Void) throws {
    let image = try FileSystemTools.make("16M", [], ["file": [UInt8](repeating: 1, count: 100_000)])
    try withFrames { fake in
      let device = FakeDisk(image)
      fake.disks = [device]
      let volume = try Volume(Disk(number: 0, isReadOnly: false), isReadOnly: false)
      try body(fake, device, try volume.root())
      Volume.unmountAll()
      guard !device.failsWrites else { return }
      #expect(try FileSystemTools.check(device.bytes) == "")
    }
  }

  @Test("An error of writing back is told once by each descriptor's fsync")
  func errors() throws {
    try withVolume { _, device, root in
      let first = try root.file("file")
      let second = try root.file("file")
      #expect(try first.put([2, 3], at: 50_000) == 2)
      device.failsWrites = true
      #expect(throws: Errno.inputOutput) { try first.synchronize() }
      device.failsWrites = false
      let third = try root.file("file")
      try first.synchronize()
      #expect(throws: Errno.inputOutput) { try second.synchronizeData() }
      try second.synchronizeData()
      try third.synchronize()
    }
  }

  @Test("Reading fails with EIO where the device does, and works again afterwards")
  func reading() throws {
    try withVolume { _, device, root in
      let file = try root.file("file")
      device.failsReads = true
      #expect(throws: Errno.inputOutput) { try file.get(at: 0, 10) }
      device.failsReads = false
      #expect(try file.get(at: 99_990, 100) == [UInt8](repeating: 1, count: 10))
    }
  }

  @Test("A full device says ENOSPC to the write, and everything said to be written is")
  func full() throws {
    try withVolume { _, device, root in
      let file = try root.create(bytes("big"), mode: 0o100600, user: 0, group: 0, device: 0, target: []).open(
        flags: 2)
      var written: Int64 = 0
      var part = [UInt8](repeating: 0, count: 60_000)
      while true {
        for index in part.indices { part[index] = UInt8(truncatingIfNeeded: Int(written) + index) }
        do { written += Int64(try file.put(part, at: written)) } catch {
          #expect(error as? Errno == .noSpace)
          break
        }
      }
      try file.synchronize()
      #expect(written > 4 << 20)
      let kept = FakeDisk(device.bytes)
      let other = try FileSystem.mount(kept, clock: FixedClock())
      let inode = try other.inode(try other.lookup(bytes("big"), in: try other.inode(FileSystem.rootNumber)))
      #expect(Int64(inode.size) == written)
      var found = [UInt8](repeating: 0, count: Int(written))
      _ = try found.withUnsafeMutableBytes { try other.read(inode, at: 0, into: $0) }
      #expect(found.indices.allSatisfy { found[$0] == UInt8(truncatingIfNeeded: $0) })
    }
  }

  @Test("O_DIRECT and the cache show the same file; what is not aligned is refused")
  func direct() throws {
    try withVolume { _, device, root in
      let cached = try root.file("file")
      let direct = try root.file("file", flags: 2 | 0o40000)
      let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 8192, alignment: 4096)
      defer { memory.deallocate() }
      let slice = UserSlice(kernel: memory)
      #expect(try cached.put([5, 6, 7], at: 10_000) == 3)
      #expect(try direct.read(slice, at: 8192) == 8192)
      #expect(Array(memory[1807..<1812]) == [1, 5, 6, 7, 1])
      memory.initializeMemory(as: UInt8.self, repeating: 8)
      let writes = device.events.count
      #expect(try direct.write(slice, at: 8192) == 8192)
      #expect(device.events.count > writes)
      #expect(try cached.get(at: 8191, 3) == [1, 8, 8])
      #expect(try cached.get(at: 16383, 2) == [8, 1])
      #expect(throws: Errno.invalid) { try direct.read(slice, at: 100) }
      #expect(throws: Errno.invalid) { try direct.write(slice.prefix(100), at: 512) }
      #expect(try direct.read(slice, at: 98_304) == 1696)
      #expect(try direct.write(slice, at: 102_400) == 8192)
      #expect(try cached.get(at: 100_000, 20_000).count == 10_592)
      // The hole is zeros, and what was written begins with what had been read.
      #expect(try cached.get(at: 102_399, 2) == [0, 1])
    }
  }

  @Test("FITRIM gives free blocks away, and no others")
  func trim() throws {
    try withVolume { _, device, root in
      let file = try root.create(bytes("big"), mode: 0o100600, user: 0, group: 0, device: 0, target: [])
        .open(flags: 2)
      _ = try file.put([UInt8](repeating: 3, count: 3_000_000), at: 0)
      try file.synchronize()
      try root.unlink(bytes("big"), directory: false)
      var range: (UInt64, UInt64, UInt64) = (0, .max, 0)
      let count = try withUnsafeMutablePointer(to: &range) { range in
        try root.file("file").control(0xc018_5879, argument: UInt(bitPattern: range))
      }
      #expect(count == 0 && range.1 == device.discarded && range.1 > 8 << 20)
      #expect(try root.file("file").get(at: 0, 200_000) == [UInt8](repeating: 1, count: 100_000))
      #expect(throws: Errno.notTerminal) { try root.file("file").control(0x1234, argument: 0) }
    }
  }

  @Test("Programs' pages go before they are refused memory, and changed ones are written first")
  func pressure() throws {
    try withVolume { _, device, root in
      let file = try root.file("file")
      #expect(try file.put([UInt8](repeating: 9, count: 20_000), at: 0) == 20_000)
      _ = try file.get(at: 0, 100_000)
      let before = frames.freeFrames
      MemoryLimit.reclaim?(frames.totalFrames)
      #expect(frames.freeFrames > before + 20)
      #expect(try file.get(at: 19_999, 2) == [9, 1])
    }
  }
}

private final class FixedClock: Clock {
  var realtimeNanoseconds: UInt64 { 1_800_000_000_000_000_000 }
}
