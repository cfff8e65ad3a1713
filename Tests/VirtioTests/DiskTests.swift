import ABI
import Testing

@testable import Virtio

@Suite("The block device's driver")
struct DiskTests {
  private func pattern(_ count: Int, _ seed: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 9 &+ seed) }
  }

  private func failure(_ body: () throws(Errno) -> Void) -> Errno? {
    do throws(Errno) {
      try body()
      return nil
    } catch { return error }
  }

  private func write(_ disk: VirtioDisk, _ bytes: [UInt8], at offset: UInt64) -> Errno? {
    bytes.withUnsafeBytes { buffer in failure { () throws(Errno) in try disk.write(buffer, at: offset) } }
  }

  private func read(_ disk: VirtioDisk, _ count: Int, at offset: UInt64) -> (Errno?, [UInt8]) {
    var bytes = [UInt8](repeating: 0xee, count: count)
    let error = bytes.withUnsafeMutableBytes { buffer in
      failure { () throws(Errno) in try disk.read(buffer, at: offset) }
    }
    return (error, bytes)
  }

  @Test(
    "what is written is read, whatever the order of answers and the size of requests",
    arguments: Behaviour.allCases, [nil, 1, 4, 254])
  func contents(_ behaviour: Behaviour, _ segments: UInt32?) throws {
    let platform = FakePlatform()
    let device = FakeDisk(platform, sectors: 8192, segments: segments)
    device.behaviour = behaviour
    let disk = try #require(VirtioDisk(device, pageCount: 64, platform))
    #expect(disk.size == 4 << 20)
    for (count, offset) in [(512, 0), (4096, 4096), (1 << 20, 512), (777 * 512, 1 << 20), (2 << 20, 2 << 20)]
    {
      let bytes = pattern(count, offset)
      #expect(write(disk, bytes, at: UInt64(offset)) == nil)
      #expect(Array(device.contents[offset..<offset + count]) == bytes)
      let (error, back) = read(disk, count, at: UInt64(offset))
      #expect(error == nil && back == bytes)
    }
    #expect(device.mostSegments <= Int(segments ?? 1))
    #expect(device.mostAtOnce > 1)
    #expect(failure { () throws(Errno) in try disk.flush() } == nil)
    #expect(device.flushes == 1)
  }

  @Test("a queue of few entries, and one whose size is no power of two")
  func smallQueues() throws {
    for capacity in [4, 8, 100, 65536] {
      let platform = FakePlatform()
      let device = FakeDisk(platform, sectors: 1024, segments: 254)
      device.capacity = capacity
      let disk = try #require(VirtioDisk(device, pageCount: 240, platform))
      let bytes = pattern(300 * 512, capacity)
      #expect(write(disk, bytes, at: 512) == nil)
      #expect(read(disk, bytes.count, at: 512).1 == bytes)
    }
  }

  @Test("what lies outside the disk, or across sectors, is an error of the caller")
  func limits() throws {
    let platform = FakePlatform()
    let disk = try #require(VirtioDisk(FakeDisk(platform, sectors: 16, segments: 4), pageCount: 8, platform))
    for (count, offset) in [(512, 8192), (1024, 7680), (512, UInt64.max - 511), (100, 0), (512, 7)] {
      #expect(read(disk, count, at: offset).0 == .inputOutput)
      #expect(write(disk, [UInt8](repeating: 0, count: count), at: offset) == .inputOutput)
    }
  }

  @Test("an error of the device, and a status that never comes, are EIO, and the next request works")
  func errors() throws {
    let platform = FakePlatform()
    let device = FakeDisk(platform, sectors: 4096, segments: 8)
    let disk = try #require(VirtioDisk(device, pageCount: 32, platform))
    for answer: UInt8? in [1, 2, 77, nil] {
      device.answer = answer
      #expect(read(disk, 1 << 20, at: 0).0 == .inputOutput)
      #expect(write(disk, pattern(1 << 20, 1), at: 0) == .inputOutput)
      #expect(failure { () throws(Errno) in try disk.flush() } == .inputOutput)
      device.answer = 0
      #expect(write(disk, pattern(1 << 20, 5), at: 0) == nil)
      #expect(read(disk, 1 << 20, at: 0).1 == pattern(1 << 20, 5))
    }
  }

  @Test("discarding is cut into what the device takes at once")
  func discard() throws {
    let platform = FakePlatform()
    let device = FakeDisk(platform, sectors: 4096, segments: 8)
    let disk = try #require(VirtioDisk(device, pageCount: 8, platform))
    try disk.discard(at: 512, count: 150 * 512)
    #expect(device.discarded.map { $0.0 } == [1, 65, 129])
    #expect(device.discarded.map { $0.1 } == [64, 64, 22])
    device.offered &= ~(1 << 13)
    let plain = try #require(VirtioDisk(device, pageCount: 8, platform))
    #expect(failure { () throws(Errno) in try plain.discard(at: 0, count: 512) } == .notSupported)
  }

  @Test("a device that gives back what it was not offered is shut out for good", arguments: 0..<4)
  func lies(_ kind: Int) throws {
    let platform = FakePlatform()
    let device = LyingDisk(platform, kind)
    let disk = try #require(VirtioDisk(device, pageCount: 64, platform))
    #expect(read(disk, 65536, at: 0).0 == .inputOutput)
    #expect(device.isReset)
    #expect(read(disk, 512, at: 0).0 == .inputOutput)
    #expect(failure { () throws(Errno) in try disk.flush() } == .inputOutput)
  }

  @Test("a device without room, without queue or that refuses its features is no disk")
  func unusable() {
    let platform = FakePlatform()
    #expect(VirtioDisk(FakeDisk(platform, sectors: 0, segments: 1), pageCount: 8, platform) == nil)
    let device = FakeDisk(platform, sectors: 16, segments: 1)
    device.capacity = 0
    #expect(VirtioDisk(device, pageCount: 8, platform) == nil)
    device.capacity = 256
    device.offered &= ~(1 << 32)
    #expect(VirtioDisk(device, pageCount: 8, platform) == nil)
  }
}

/// Answers every request with a lie.
private final class LyingDisk: FakeTransport {
  private let kind: Int

  init(_ platform: FakePlatform, _ kind: Int) {
    self.kind = kind
    super.init(platform)
    offered |= 1 << 9 | 1 << 2
    setConfiguration(0, 4096)
    setConfiguration(12, 4)
  }

  override func notify(_ index: UInt32) {
    for head in takeOffered(0) {
      let segments = chain(0, head)
      segments[segments.count - 1].bytes[0] = 0
      switch kind {
      case 0: give(0, 0xffff_ffff, 1)  // no descriptor at all
      case 1: give(0, UInt32(head) + 1, 1)  // the middle of a chain
      case 2:
        // The same chain twice.
        give(0, UInt32(head), 1)
        give(0, UInt32(head), 1)
      default:
        // More answers than there were requests.
        give(0, UInt32(head), 1)
        let used = pointer(queues[0].used + 2)
        used.storeBytes(of: used.load(as: UInt16.self) &+ 200, as: UInt16.self)
        platform.interrupt()
      }
    }
  }
}
