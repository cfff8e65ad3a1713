public import ABI
import CMachine
import Tasks

/// The channel to `swiftlet run` over a virtio console (virtio 1.2, 5.3): a stream of messages both ways.
///
/// A message is a type in one byte, a length in three (little-endian), and so many bytes. What arrives is checked like
/// a packet: too long, or input that nobody asked for, and the channel counts as closed. Kernel lock held for every
/// call, except where it is the end.
public final class ControlChannel {
  enum Message {
    // From here. Output is of one stream, the status one byte.
    static let output: UInt8 = 1  // and 2: standard error
    static let status: UInt8 = 3
    static let wantInput: UInt8 = 4
    /// The signals that have come so far have been taken: the other side knows that somebody is there.
    static let tookSignals: UInt8 = 5
    // To here. Input is as much as one wish allows, a signal one byte, a closed stream the number of one, a size
    // two words as `ConsoleTerminal` reads them.
    static let input: UInt8 = 16
    static let inputEnd: UInt8 = 17
    static let signal: UInt8 = 18
    static let terminalSize: UInt8 = 19
    static let outputClosed: UInt8 = 20
    /// So many bytes of output have been taken: four bytes.
    static let outputTaken: UInt8 = 21
    /// How long programs have to give memory back that the host wants: seconds, one byte.
    static let grace: UInt8 = 22
  }
  private static let header = 4
  private static let longest = 4096
  private static let pagesForControl = 3
  /// So much output may be under way: QEMU drops what the socket behind its console does not take at once.
  private static let window = 65536
  /// Input that waits here: two wishes.
  private static let mostInput = 2 * longest

  private let queues: QueuePair
  private var receive: PageQueue { queues.receive }
  private var transmit: PageQueue { queues.transmit }
  private var incoming: [UInt8] = []
  private var input: [UInt8] = []
  private var inputStart = 0
  private var inputHasEnded = false
  private var hasAsked = false
  private var outputUnderWay = 0
  /// Input is asked for before anybody waits for it, as terminals want it.
  public var readsAhead = false
  /// Where the size of the terminal is kept.
  public var terminalSize: UnsafeMutablePointer<UInt64>?
  /// Nanoseconds that programs have to give memory back, if the other side said so.
  public private(set) var grace: UInt64?
  /// Streams that nobody reads any more, a bit each.
  private var closedStreams: UInt8 = 0
  /// Signals that wait to be delivered, a bit each.
  private var signals: UInt64 = 0
  private var owesAnswer = false
  /// There was no room to ask for input.
  private var owesWish = false
  /// Said apart from `input`, which is not looked at without the kernel lock.
  private var hasInput = false

  /// `pollDevices` looks here without the kernel lock: references must not be counted.
  public func keepForEver() {
    neverCount(self)
    queues.keepForEver()
  }

  public init?(_ transport: VirtioTransport, _ platform: any DevicePlatform) {
    guard transport.negotiate(0) != nil,
      let pair = QueuePair(transport, receives: 8, transmits: 32, platform)
    else { return nil }
    queues = pair
  }

  public func acknowledge() { queues.transport.acknowledge() }

  /// Something has arrived that nobody has looked at.
  public var hasMessages: Bool { receive.hasUsed || signals != 0 || owesAnswer || owesWish }

  /// `read` may have something to say.
  public var isReadable: Bool { receive.hasUsed || hasInput || inputHasEnded }

  public func isClosed(_ stream: Int) -> Bool { closedStreams & 1 << UInt8(stream) != 0 }

  public func takeSignals() -> UInt64 {
    defer { signals = 0 }
    if owesAnswer, send(Message.tookSignals, UnsafeRawBufferPointer(start: nil, count: 0)) == 0 {
      owesAnswer = false
    }
    return signals
  }

  /// Reads what has arrived, and says what there was no room for before.
  public func pump() {
    if owesWish { ask() }
    while let done = receive.nextDone() {
      incoming += UnsafeRawBufferPointer(
        rebasing: UnsafeRawBufferPointer(receive.pages[Int(done.page)].bytes)[..<done.length])
      receive.offer(done.page)
      receive.notify()
      parse()
    }
  }

  private func parse() {
    var at = 0
    while incoming.count - at >= ControlChannel.header {
      let length = Int(incoming[at + 1]) | Int(incoming[at + 2]) << 8 | Int(incoming[at + 3]) << 16
      guard length <= ControlChannel.longest else { return close() }
      let start = at + ControlChannel.header
      guard incoming.count - start >= length else { break }
      take(incoming[at], incoming[start..<start + length])
      at = start + length
    }
    if at > 0, at <= incoming.count { incoming.removeSubrange(..<at) }
  }

  /// The other side does not keep to the rules.
  private func close() {
    incoming.removeAll()
    inputHasEnded = true
  }

  private func take(_ type: UInt8, _ body: ArraySlice<UInt8>) {
    switch type {
    case Message.input:
      guard !inputHasEnded, input.count - inputStart + body.count <= ControlChannel.mostInput else {
        inputHasEnded = true
        return
      }
      input += body
      hasInput = inputStart < input.count
      hasAsked = false
    case Message.inputEnd: inputHasEnded = true
    case Message.signal:
      if let number = body.first, number > 0, number < 64 { signals |= 1 << UInt64(number) }
      owesAnswer = true
    case Message.terminalSize:
      if body.count == 16, let terminalSize {
        for i in 0..<2 { terminalSize[i] = word(body.dropFirst(8 * i)) }
      }
    case Message.outputTaken: outputUnderWay = max(0, outputUnderWay - Int(word(body.prefix(4))))
    case Message.grace: grace = body.first.map { UInt64($0) * 1_000_000_000 }
    case Message.outputClosed:
      if let stream = body.first, stream < 8 { closedStreams |= 1 << stream }
    default: break
    }
  }

  private func word(_ bytes: ArraySlice<UInt8>) -> UInt64 {
    var value: UInt64 = 0
    for byte in bytes.prefix(8).reversed() { value = value << 8 | UInt64(byte) }
    return value
  }

  /// Input of the user; 0 at its end, EAGAIN while there is none: then it is asked for.
  public func read(_ bytes: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
    pump()
    let count = min(bytes.count, input.count - inputStart)
    if count > 0 {
      input.withUnsafeBytes {
        bytes.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[inputStart..<inputStart + count]))
      }
      inputStart += count
      if inputStart == input.count {
        input.removeAll()
        inputStart = 0
        hasInput = false
        if readsAhead { ask() }
      }
      return count
    }
    if inputHasEnded { return 0 }
    ask()
    throw .again
  }

  private func ask() {
    guard !hasAsked, !inputHasEnded else { return }
    hasAsked = send(Message.wantInput, UnsafeRawBufferPointer(start: nil, count: 0)) == 0
    owesWish = !hasAsked
  }

  /// Sends output of `stream`; what was taken, or -11 when the channel is full.
  public func write(_ stream: Int, _ bytes: UnsafeRawBufferPointer) -> Int {
    if outputUnderWay >= ControlChannel.window { pump() }
    transmit.reclaim()
    // A flood of output leaves room for what keeps the other side informed.
    guard outputUnderWay < ControlChannel.window, transmit.freeCount > ControlChannel.pagesForControl else {
      return -11
    }
    let count = send(UInt8(stream), bytes)
    outputUnderWay += max(0, count)
    return count
  }

  /// Sends one message of at most a page; the bytes taken, or -11 when the channel is full.
  private func send(_ type: UInt8, _ bytes: UnsafeRawBufferPointer) -> Int {
    transmit.reclaim()
    guard let page = transmit.take() else { return -11 }
    let target = transmit.pages[Int(page)].bytes
    let count = min(bytes.count, 4096 - ControlChannel.header)
    target.storeBytes(of: UInt32(type) | UInt32(count) << 8, as: UInt32.self)
    if count > 0 {
      UnsafeMutableRawBufferPointer(rebasing: target[ControlChannel.header..<ControlChannel.header + count])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<count]))
    }
    transmit.offer([(page, ControlChannel.header + count)], isForDevice: true)
    transmit.notify()
    return count
  }

  /// Sends the exit status and waits until the device has taken everything.
  public func finish(status: UInt8) {
    var byte = status
    withUnsafeBytes(of: &byte) {
      var attempts = 0
      while send(Message.status, $0) < 0, attempts < 1_000_000 {
        attempts += 1
        machine_pause()
      }
    }
    for _ in 0..<10_000_000 {
      transmit.reclaim()
      if transmit.freeCount == transmit.size { return }
      machine_pause()
    }
  }
}
