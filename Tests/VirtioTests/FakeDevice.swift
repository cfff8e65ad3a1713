import ABI
import Virtio

/// Memory and interrupts for drivers under test.
final class FakePlatform: DevicePlatform {
  private(set) var pages = 0
  private var count: UInt32 = 0
  private(set) var waits = 0
  /// What devices do while the driver waits.
  var whileWaiting: () -> Void = {}

  func makePage() throws(Errno) -> DevicePage {
    pages += 1
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: 4096)
    let address = UInt(bitPattern: memory)
    return DevicePage(address: address, physical: UInt64(address))
  }

  var interrupts: UInt32 { count }
  func interrupt() { count &+= 1 }

  func waitForInterrupt(after seen: UInt32) {
    waits += 1
    precondition(waits < 100_000, "the driver waits for ever")
    whileWaiting()
  }
}

/// What a device does with the chains that it is offered, and how badly.
enum Behaviour: CaseIterable {
  /// Answers when it is told, in order.
  case prompt
  /// Answers while the driver waits, the last request first.
  case late
  /// Answers one request a wait.
  case slow
}

/// A device in memory: parses the queues as a hypervisor would.
class FakeTransport: VirtioTransport {
  struct Queue {
    var size = 0
    var descriptors: UInt64 = 0
    var available: UInt64 = 0
    var used: UInt64 = 0
    var seen: UInt16 = 0
    var given: UInt16 = 0
  }
  struct Segment {
    var address: UInt64
    var length: Int
    var isWritable: Bool
    var bytes: UnsafeMutableRawBufferPointer {
      UnsafeMutableRawBufferPointer(start: UnsafeMutableRawPointer(bitPattern: UInt(address)), count: length)
    }
  }
  let platform: FakePlatform
  var offered: UInt64 = 1 << 32
  var accepted: UInt64 = 0
  var capacity = 256
  var queues: [Queue] = [Queue(), Queue(), Queue()]
  var settings = [UInt8](repeating: 0, count: 64)
  var isReset = false
  private var state: UInt32 = 0

  init(_ platform: FakePlatform) { self.platform = platform }

  override var status: UInt32 {
    get { state }
    set {
      state = newValue
      isReset = newValue == 0
    }
  }
  override var deviceFeatures: UInt64 { offered }
  override func driverFeatures(_ features: UInt64) { accepted = features }
  override func queueCapacity(_ index: UInt32) -> Int { Int(index) < queues.count ? capacity : 0 }
  override func enableQueue(
    _ index: UInt32, size: Int, descriptors: UInt64, available: UInt64, used: UInt64
  ) {
    queues[Int(index)] = Queue(size: size, descriptors: descriptors, available: available, used: used)
  }
  override func configuration(_ offset: UInt64) -> UInt32 {
    settings.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: Int(offset), as: UInt32.self) }
  }
  override func setConfiguration(_ offset: UInt64, _ value: UInt32) {
    settings.withUnsafeMutableBytes { $0.storeBytes(of: value, toByteOffset: Int(offset), as: UInt32.self) }
  }

  func pointer(_ address: UInt64) -> UnsafeMutableRawPointer {
    guard let pointer = UnsafeMutableRawPointer(bitPattern: UInt(address)) else { fatalError() }
    return pointer
  }

  /// The first descriptors of chains that were offered since the last call.
  func takeOffered(_ index: Int) -> [UInt16] {
    let queue = queues[index]
    var heads: [UInt16] = []
    let end = pointer(queue.available + 2).load(as: UInt16.self)
    while queues[index].seen != end {
      let slot = Int(queues[index].seen) % queue.size
      heads.append(pointer(queue.available + 4 + UInt64(2 * slot)).load(as: UInt16.self))
      queues[index].seen &+= 1
    }
    return heads
  }

  func chain(_ index: Int, _ head: UInt16) -> [Segment] {
    var segments: [Segment] = []
    var at = head
    while segments.count < 300 {
      let entry = pointer(queues[index].descriptors + 16 * UInt64(at))
      let flags = entry.load(fromByteOffset: 12, as: UInt16.self)
      segments.append(
        Segment(
          address: entry.load(as: UInt64.self), length: Int(entry.load(fromByteOffset: 8, as: UInt32.self)),
          isWritable: flags & 2 != 0))
      guard flags & 1 != 0 else { break }
      at = entry.load(fromByteOffset: 14, as: UInt16.self)
    }
    return segments
  }

  /// Gives a chain back.
  func give(_ index: Int, _ head: UInt32, _ length: Int) {
    let queue = queues[index]
    let slot = UInt64(Int(queue.given) % queue.size)
    pointer(queue.used + 4 + 8 * slot).storeBytes(of: head, as: UInt32.self)
    pointer(queue.used + 8 + 8 * slot).storeBytes(of: UInt32(length), as: UInt32.self)
    queues[index].given &+= 1
    pointer(queue.used + 2).storeBytes(of: queues[index].given, as: UInt16.self)
    platform.interrupt()
  }
}

/// A disk in memory.
final class FakeDisk: FakeTransport {
  var contents: [UInt8]
  var behaviour = Behaviour.prompt
  var flushes = 0
  var discarded: [(UInt64, UInt32)] = []
  var mostAtOnce = 0
  var mostSegments = 0
  /// The status that requests are answered with.
  var answer: UInt8? = 0
  private var waiting: [UInt16] = []

  init(_ platform: FakePlatform, sectors: Int, segments: UInt32?) {
    contents = [UInt8](repeating: 0, count: sectors * 512)
    super.init(platform)
    offered |= 1 << 9 | 1 << 13
    setConfiguration(0, UInt32(sectors))
    setConfiguration(36, 64)
    if let segments {
      offered |= 1 << 2
      setConfiguration(12, segments)
    }
    platform.whileWaiting = { [unowned self] in work() }
  }

  override func notify(_ index: UInt32) {
    let heads = takeOffered(0)
    waiting += heads
    mostAtOnce = max(mostAtOnce, waiting.count)
    if behaviour == .prompt { while !waiting.isEmpty { perform(waiting.removeFirst()) } }
  }

  private func work() {
    switch behaviour {
    case .prompt: break
    case .late: while let head = waiting.popLast() { perform(head) }
    case .slow: if !waiting.isEmpty { perform(waiting.removeFirst()) }
    }
  }

  private func perform(_ head: UInt16) {
    let chain = chain(0, head)
    let header = pointer(chain[0].address)
    precondition(chain.count >= 2 && chain[0].length == 16 && !chain[0].isWritable)
    precondition(chain[chain.count - 1].length == 1 && chain[chain.count - 1].isWritable)
    let data = chain[1..<chain.count - 1]
    mostSegments = max(mostSegments, data.count)
    var at = Int(header.load(fromByteOffset: 8, as: UInt64.self)) * 512
    var written = 1
    for segment in data where answer == 0 {
      switch header.load(as: UInt32.self) {
      case 0:
        precondition(segment.isWritable)
        segment.bytes.copyBytes(from: contents[at..<at + segment.length])
        written += segment.length
      case 1:
        precondition(!segment.isWritable)
        contents.replaceSubrange(at..<at + segment.length, with: segment.bytes)
      case 11:
        let range = pointer(segment.address)
        discarded.append((range.load(as: UInt64.self), range.load(fromByteOffset: 8, as: UInt32.self)))
      default: preconditionFailure("an unknown request")
      }
      at += segment.length
    }
    if header.load(as: UInt32.self) == 4 { flushes += 1 }
    if let answer { chain[chain.count - 1].bytes[0] = answer }
    give(0, UInt32(head), written)
  }
}
