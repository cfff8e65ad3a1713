import CMachine

/// Frames on their way in: read from the host without the kernel lock, handed to the network with it held.
///
/// Reading costs as much as handling; with the lock held meanwhile, the other processors' calls would run into it and
/// sleep. Who has the poller's role reads, and hands over before it gives the role up: nothing here is shared.
public enum IncomingFrames {
  /// Set by hosts that let a thread read without the kernel lock.
  nonisolated(unsafe) public static var isUsed = false

  /// Reads that gave something.
  nonisolated(unsafe) static var received: UInt64 = 0

  private static let most = 32
  /// An address alone: without the lock no object may be touched.
  nonisolated(unsafe) private static var place: UnsafeMutableRawPointer? = nil
  nonisolated(unsafe) private static var room = 0
  nonisolated(unsafe) private static var largest = 0
  nonisolated(unsafe) private static var lengths: [32 of Int32] = .init(repeating: 0)
  nonisolated(unsafe) private static var count = 0

  /// Where the next reads go, one behind the other, each of at most `largest` bytes. Kernel lock held.
  public static func expect(in area: UnsafeMutableRawBufferPointer, largest: Int) {
    place = area.baseAddress
    room = area.count
    self.largest = largest
    count = 0
  }

  /// Reads what there is, until the host has no more (an error number is kept as the last length) or there is no room.
  @inline(never)
  static func read() {
    var offset = 0
    while let place, count < most, room - offset >= largest {
      let length = host.readFrame(UnsafeMutableRawBufferPointer(start: place + offset, count: largest))
      lengths[count] = Int32(truncatingIfNeeded: length)
      count += 1
      guard length > 0 else { return }
      offset += length
    }
  }

  /// Calls `body` with every read's bytes in turn, and its result where that was none. Kernel lock held.
  public static func handOver(_ body: (UnsafeMutableRawBufferPointer, Int) -> Void) {
    if count == 0 { read() }
    var offset = 0
    for i in 0..<count {
      let length = Int(lengths[i])
      if length > 0 { received &+= 1 }
      body(UnsafeMutableRawBufferPointer(start: place.map { $0 + offset }, count: max(length, 0)), length)
      offset += max(length, 0)
    }
    count = 0
  }
}
