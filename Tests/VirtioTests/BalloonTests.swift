import ABI
import Testing

@testable import Virtio

@Suite("The balloon")
struct BalloonTests {
  /// Keeps the frames that it was given.
  private final class Balloon: FakeTransport {
    var held: [UInt32] = []
    var answers = true

    override func notify(_ index: UInt32) {
      for head in takeOffered(Int(index)) {
        let numbers = Array(chain(Int(index), head)[0].bytes.assumingMemoryBound(to: UInt32.self))
        if index == 0 { held += numbers } else { held.removeAll { numbers.contains($0) } }
        give(Int(index), answers ? UInt32(head) : 99, 0)
      }
    }
  }

  private func write(_ numbers: Range<UInt32>, to address: UInt) -> Int {
    guard let page = UnsafeMutablePointer<UInt32>(bitPattern: address) else { return 0 }
    for (i, number) in numbers.enumerated() { page[i] = number }
    return numbers.count
  }

  @Test("frames are handed over and taken back, and the device is told how many it has")
  func exchange() throws {
    let platform = FakePlatform()
    let device = Balloon(platform)
    let balloon = try #require(VirtioBalloon(device, platform))
    device.setConfiguration(0, 2048)
    #expect(balloon.wanted == 2048)
    #expect(balloon.handOver { write(100..<1124, to: $0) } == 1024)
    #expect(balloon.handOver { write(5000..<5010, to: $0) } == 10)
    #expect(device.held == Array(100..<1124) + Array(5000..<5010))
    #expect(device.configuration(4) == 1034)
    #expect(balloon.takeBack { write(100..<200, to: $0) } == 100)
    #expect(device.held.count == 934 && device.configuration(4) == 934)
    #expect(balloon.handOver { _ in 0 } == 0)
  }

  @Test("a device that lies about what it took keeps nobody waiting")
  func lies() throws {
    let platform = FakePlatform()
    let device = Balloon(platform)
    let balloon = try #require(VirtioBalloon(device, platform))
    device.answers = false
    _ = balloon.handOver { write(0..<8, to: $0) }
    #expect(balloon.handOver { write(8..<16, to: $0) } == 0)
  }
}

@Suite("The network device's driver")
struct NetworkTests {
  /// A link that ends here.
  private final class Link: FakeTransport {
    var sent: [[UInt8]] = []
    private var empty: [UInt16] = []

    override func notify(_ index: UInt32) {
      if index == 0 {
        empty += takeOffered(0)
      } else {
        for head in takeOffered(1) {
          sent.append(chain(1, head).flatMap { Array($0.bytes) })
          give(1, UInt32(head), 0)
        }
      }
    }

    /// A frame in buffers of the driver's: a header of twelve bytes first.
    func deliver(_ frame: [UInt8], flags: UInt8 = 0, buffers wrong: UInt16? = nil) {
      let count = (12 + frame.count + 4095) / 4096
      let number = wrong ?? UInt16(count)
      let header = [flags] + [UInt8](repeating: 0, count: 9) + [UInt8(number & 255), UInt8(number >> 8)]
      let bytes = header + frame
      for i in 0..<count {
        let head = empty.removeFirst()
        let part = bytes[4096 * i..<min(bytes.count, 4096 * (i + 1))]
        chain(0, head)[0].bytes.copyBytes(from: part)
        give(0, UInt32(head), part.count)
      }
    }
  }

  private func make(_ features: UInt64) throws -> (VirtioNetwork, Link) {
    let platform = FakePlatform()
    let link = Link(platform)
    link.offered |= features
    return (try #require(VirtioNetwork(link, platform)), link)
  }

  private func read(_ network: VirtioNetwork) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: 70000)
    let count = bytes.withUnsafeMutableBytes { network.read($0) }
    return count < 0 ? nil : Array(bytes[..<count])
  }

  @Test(
    "what the device cannot do is not asked of it", arguments: [(0, false), (0x801, false), (0x1801, true)])
  func offloads(_ features: UInt64, _ expected: Bool) throws {
    let (network, link) = try make(1 << 15 | features | 1 << 22)
    #expect(network.completesFrames == expected)
    #expect(link.accepted == 1 << 32 | 1 << 15 | features)
  }

  @Test("frames of one buffer and of many arrive whole, with their flags")
  func receive() throws {
    let (network, link) = try make(1 << 15)
    for size in [60, 1514, 4084, 4085, 65000] {
      let frame = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 7) }
      link.deliver(frame, flags: 2)
      #expect(network.hasInput)
      let seen = try #require(read(network))
      #expect(seen[0] == 2 && Array(seen[10...]) == frame)
    }
    #expect(read(network) == nil)
  }

  @Test("a frame that claims more buffers than came is cut, and the next one arrives")
  func lies() throws {
    let (network, link) = try make(1 << 15)
    link.deliver([UInt8](repeating: 1, count: 100), buffers: 500)
    #expect(read(network)?.count == 110)
    link.deliver([UInt8](repeating: 2, count: 100), buffers: 0)
    #expect(read(network)?.count == 110)
  }

  @Test("large frames go out as one chain, and the queue never runs over")
  func transmit() throws {
    let (network, link) = try make(1 << 15 | 0x1801)
    let frame = (0..<65000).map { UInt8(truncatingIfNeeded: $0 &* 13) }
    let header = [UInt8](repeating: 3, count: 10)
    for turn in 1...100 {
      let count = header.withUnsafeBytes { head in
        frame.withUnsafeBytes { network.write(header: head, $0) }
      }
      #expect(count == 65010)
      #expect(link.sent.count == turn)
    }
    #expect(link.sent.allSatisfy { Array($0[12...]) == frame && Array($0[..<10]) == header })
  }
}
