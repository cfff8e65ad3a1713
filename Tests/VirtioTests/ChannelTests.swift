import ABI
import Testing

@testable import Virtio

@Suite("The control channel")
struct ChannelTests {
  /// The other end of the channel.
  private final class Console: FakeTransport {
    var sent: [UInt8] = []
    private var empty: [UInt16] = []

    override func notify(_ index: UInt32) {
      if index == 0 { empty += takeOffered(0) } else { takeAll() }
    }

    private func takeAll() {
      for head in takeOffered(1) {
        for segment in chain(1, head) { sent += Array(segment.bytes) }
        give(1, UInt32(head), 0)
      }
    }

    /// Sends bytes in pieces of at most `size`.
    func say(_ bytes: [UInt8], inPiecesOf size: Int = 4096) {
      var at = 0
      while at < bytes.count, !empty.isEmpty {
        let head = empty.removeFirst()
        let count = min(size, bytes.count - at)
        chain(0, head)[0].bytes.copyBytes(from: bytes[at..<at + count])
        give(0, UInt32(head), count)
        at += count
      }
    }

    func message(_ type: UInt8, _ body: [UInt8]) -> [UInt8] {
      [type, UInt8(body.count & 255), UInt8(body.count >> 8 & 255), UInt8(body.count >> 16)] + body
    }
  }

  private func make() throws -> (ControlChannel, Console) {
    let platform = FakePlatform()
    let console = Console(platform)
    return (try #require(ControlChannel(console, platform)), console)
  }

  private func read(_ channel: ControlChannel) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: 100)
    let count = bytes.withUnsafeMutableBytes { try? channel.read($0) }
    return count.map { Array(bytes[..<$0]) }
  }

  @Test("input is asked for once, and comes in pieces")
  func input() throws {
    let (channel, console) = try make()
    #expect(read(channel) == nil)
    #expect(read(channel) == nil)
    #expect(console.sent == [4, 0, 0, 0])
    console.say(console.message(16, Array("hello".utf8)), inPiecesOf: 3)
    #expect(channel.isReadable)
    #expect(read(channel) == Array("hello".utf8))
    console.say(console.message(17, []))
    #expect(read(channel) == [])
  }

  @Test("signals wait to be taken and are answered")
  func signals() throws {
    let (channel, console) = try make()
    console.say(console.message(18, [15]) + console.message(18, [2]) + console.message(18, [200]))
    #expect(channel.hasMessages)
    channel.pump()
    #expect(channel.takeSignals() == 1 << 15 | 1 << 2)
    #expect(console.sent == [5, 0, 0, 0])
    #expect(!channel.hasMessages)
  }

  @Test("the size of the terminal is stored")
  func size() throws {
    let (channel, console) = try make()
    let place = UnsafeMutablePointer<UInt64>.allocate(capacity: 2)
    defer { place.deallocate() }
    place.initialize(repeating: 0, count: 2)
    channel.terminalSize = place
    console.say(console.message(19, [30, 0, 100, 0, 0, 0, 0, 0] + [0, 0x40, 0, 0, 0, 0, 0, 0]))
    channel.pump()
    #expect(place[0] == 100 << 16 | 30 && place[1] == 0x4000)
    console.say(console.message(19, [1, 2, 3]))
    channel.pump()
    #expect(place[0] == 100 << 16 | 30)
  }

  @Test("a stream that nobody reads is closed")
  func closed() throws {
    let (channel, console) = try make()
    console.say(console.message(20, [1]) + console.message(20, [255]))
    channel.pump()
    #expect(channel.isClosed(1) && !channel.isClosed(2))
  }

  @Test("output goes out a page at a time, and says how much was taken")
  func output() throws {
    let (channel, console) = try make()
    let text = [UInt8](repeating: 0x61, count: 5000)
    let count = text.withUnsafeBytes { channel.write(2, $0) }
    #expect(count == 4092)
    #expect(console.sent.prefix(4) == [2, 0xfc, 0x0f, 0] && console.sent.count == 4096)
  }

  @Test("messages that are too long, and input beyond what was asked for, end the input")
  func flood() throws {
    let (channel, console) = try make()
    console.say([16, 0xff, 0xff, 0xff] + [UInt8](repeating: 1, count: 100))
    #expect(read(channel) == [])
    let (other, talker) = try make()
    for _ in 0..<100 {
      talker.say(talker.message(16, [UInt8](repeating: 1, count: 4000)))
      other.pump()
    }
    var total = 0
    while let part = read(other), !part.isEmpty { total += part.count }
    #expect(total <= 8192)
  }
}
