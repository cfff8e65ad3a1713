import ABI
import CBareHost
import CMachine
import Tasks

/// The channel to `swiftlet run` over a virtio console (virtio 1.2, 5.3): a stream of messages both ways.
///
/// A message is a type in one byte, a length in three (little-endian), and so many bytes. From here: standard output
/// and error, the exit status (one byte), and the wish for input. To here: input (as much as one wish allows), its
/// end, signals (one byte), and how much output was taken (four bytes). Kernel lock held for every call, except where it is the end.
final class ControlChannel {
  enum Message {
    static let output: UInt8 = 1  // and 2: standard error
    static let status: UInt8 = 3
    static let wantInput: UInt8 = 4
    static let input: UInt8 = 16
    static let inputEnd: UInt8 = 17
    static let signal: UInt8 = 18
    static let outputTaken: UInt8 = 21
  }
  private static let header = 4
  /// So much output may be under way: QEMU drops what the socket behind its console does not take at once.
  private static let window = 65536

  private let queues: QueuePair
  private var receive: Virtqueue { queues.receive }
  private var transmit: Virtqueue { queues.transmit }
  private var incoming: [UInt8] = []
  private var input: [UInt8] = []
  private var inputStart = 0
  private var inputHasEnded = false
  private var hasAsked = false
  private var outputUnderWay = 0
  /// Signals that wait to be delivered, a bit each.
  private(set) var signals: UInt64 = 0
  /// Said apart from `input`, which is not looked at without the kernel lock.
  private var hasInput = false

  /// `pollDevices` looks here without the kernel lock: references must not be counted.
  func keepForEver() {
    neverCount(self)
    queues.keepForEver()
  }

  init?(_ transport: VirtioTransport) {
    guard transport.negotiate(0) != nil, let pair = QueuePair(transport, receives: 8, transmits: 32) else {
      return nil
    }
    queues = pair
  }

  func acknowledge() { queues.transport.acknowledge() }

  /// Something has arrived that nobody has looked at.
  var hasMessages: Bool { receive.hasUsed || signals != 0 }

  /// `read` may have something to say.
  var isReadable: Bool { receive.hasUsed || hasInput || inputHasEnded }

  func takeSignals() -> UInt64 {
    defer { signals = 0 }
    return signals
  }

  /// Reads what has arrived.
  func pump() {
    while let done = receive.nextDone() {
      incoming += UnsafeRawBufferPointer(
        rebasing: UnsafeRawBufferPointer(receive.pages[Int(done.page)].bytes)[..<done.length])
      receive.offer([(done.page, 4096)], isWrite: true)
      receive.notify()
    }
    var at = 0
    while incoming.count - at >= ControlChannel.header {
      let length = Int(incoming[at + 1]) | Int(incoming[at + 2]) << 8 | Int(incoming[at + 3]) << 16
      let start = at + ControlChannel.header
      guard incoming.count - start >= length else { break }
      take(incoming[at], incoming[start..<start + length])
      at = start + length
    }
    if at > 0 { incoming.removeSubrange(..<at) }
  }

  private func take(_ type: UInt8, _ body: ArraySlice<UInt8>) {
    switch type {
    case Message.input:
      input += body
      hasInput = inputStart < input.count
      hasAsked = false
    case Message.inputEnd: inputHasEnded = true
    case Message.outputTaken:
      var count = 0
      for byte in body.reversed() { count = count << 8 | Int(byte) }
      outputUnderWay = max(0, outputUnderWay - count)
    case Message.signal:
      if let number = body.first, number < 64 { signals |= 1 << UInt64(number) }
    default: break
    }
  }

  /// Input of the user; 0 at its end, EAGAIN while there is none: then it is asked for.
  func read(_ bytes: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
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
      }
      return count
    }
    if inputHasEnded { return 0 }
    if !hasAsked, send(Message.wantInput, UnsafeRawBufferPointer(start: nil, count: 0)) == 0 {
      hasAsked = true
    }
    throw .again
  }

  /// Sends output of a stream; the bytes taken, or -11 when the channel is full.
  func write(_ stream: Int, _ bytes: UnsafeRawBufferPointer) -> Int {
    if outputUnderWay >= ControlChannel.window { pump() }
    guard outputUnderWay < ControlChannel.window else { return -11 }
    let count = send(UInt8(stream), bytes)
    outputUnderWay += max(0, count)
    return count
  }

  /// Sends one message of at most a page; the bytes taken, or -11 when the channel is full.
  func send(_ type: UInt8, _ bytes: UnsafeRawBufferPointer) -> Int {
    transmit.reclaim()
    guard let page = transmit.take() else { return -11 }
    let target = transmit.pages[Int(page)].bytes
    let count = min(bytes.count, 4096 - ControlChannel.header)
    target.storeBytes(of: UInt32(type) | UInt32(count) << 8, as: UInt32.self)
    if count > 0 {
      UnsafeMutableRawBufferPointer(rebasing: target[ControlChannel.header..<ControlChannel.header + count])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<count]))
    }
    transmit.offer([(page, ControlChannel.header + count)], isWrite: false)
    transmit.notify()
    return count
  }

  /// Sends the exit status and waits until the device has taken everything.
  func finish(status: UInt8) {
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
