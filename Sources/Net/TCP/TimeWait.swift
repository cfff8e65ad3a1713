/// What is left of a connection in TIME-WAIT: enough to answer a repeated FIN and to judge a new SYN.
final class TimeWait {
  let local: Endpoint
  let remote: Endpoint
  let sendNext: UInt32
  let receiveNext: UInt32
  let usesTimestamps: Bool
  let recentTimestamp: UInt32
  let timestampOffset: UInt32
  var expiry: UInt64
  /// Replaced or reused: the queue skips it.
  var isDead = false

  init(_ connection: TCPConnection, _ expiry: UInt64) {
    local = connection.local
    remote = connection.remote
    sendNext = connection.sendNext
    receiveNext = connection.receiveNext
    usesTimestamps = connection.usesTimestamps
    recentTimestamp = connection.recentTimestamp
    timestampOffset = connection.timestampOffset
    self.expiry = expiry
  }

  /// RFC 6191: a SYN that is certainly newer may open the conversation again.
  func yields(to segment: TCPSegment) -> Bool {
    guard segment.has(TCPFlags.syn), !segment.has(TCPFlags.ack), !segment.has(TCPFlags.rst) else {
      return false
    }
    if usesTimestamps, segment.hasTimestamps, isBefore(recentTimestamp, segment.timestampValue) {
      return true
    }
    return isBefore(receiveNext, segment.sequence)
  }
}

extension NetworkStack {
  static let timeWaitLimit = 16384

  /// Both ends, the local one first, of every conversation in TIME-WAIT.
  public var timeWaitConversations: [(local: Endpoint, remote: Endpoint)] {
    var list: [(local: Endpoint, remote: Endpoint)] = []
    timeWaitQueue.forEach { entry in
      if !entry.isDead { list.append((entry.local, entry.remote)) }
    }
    return list
  }

  func enterTimeWait(_ connection: TCPConnection, _ now: UInt64) {
    guard connection.isInTable else { return }
    connection.sendAck(now)
    let entry = TimeWait(connection, now &+ TCPLimits.timeWait)
    remove(connection)
    connection.state = .timeWait
    connection.releaseReservation()
    if timeWaits.count >= Self.timeWaitLimit { dropOldestTimeWait() }
    timeWaits.insert(entry, TableKey(local: entry.local, remote: entry.remote))
    timeWaitQueue.append(entry)
    connection.notify()
  }

  private func dropOldestTimeWait() {
    while let entry = timeWaitQueue.removeFirst() {
      if entry.isDead { continue }
      forget(entry)
      return
    }
  }

  func forget(_ entry: TimeWait) {
    entry.isDead = true
    timeWaits.remove(TableKey(local: entry.local, remote: entry.remote))
  }

  func expireTimeWaits(_ now: UInt64) {
    while let entry = timeWaitQueue.first, entry.isDead || entry.expiry <= now {
      timeWaitQueue.removeFirst()
      if !entry.isDead { forget(entry) }
    }
  }

  /// True when the segment has been dealt with.
  func receiveInTimeWait(_ entry: TimeWait, _ segment: TCPSegment, _ now: UInt64) -> Bool {
    if entry.yields(to: segment) {
      forget(entry)
      return false
    }
    // A reset does not end TIME-WAIT (RFC 1337).
    guard !segment.has(TCPFlags.rst) else { return true }
    if segment.length > 0 || mayChallenge(now) { acknowledge(entry, now) }
    return true
  }

  private func acknowledge(_ entry: TimeWait, _ now: UInt64) {
    sendBare(
      entry.local, entry.remote, sequence: entry.sendNext, acknowledgement: entry.receiveNext, TCPFlags.ack,
      now)
  }
}

/// A first-in first-out queue of objects.
struct Queue<Element> {
  private var elements: [Element] = []
  private var head = 0

  var isEmpty: Bool { head == elements.count }
  var count: Int { elements.count - head }
  var first: Element? { head < elements.count ? elements[head] : nil }

  func forEach(_ body: (Element) -> Void) {
    for index in head..<elements.count { body(elements[index]) }
  }

  mutating func append(_ element: Element) { elements.append(element) }

  @discardableResult
  mutating func removeFirst() -> Element? {
    guard head < elements.count else { return nil }
    let element = elements[head]
    head += 1
    if head == elements.count {
      elements.removeAll(keepingCapacity: true)
      head = 0
    } else if head >= 256, head * 2 > elements.count {
      elements.removeSubrange(0..<head)
      head = 0
    }
    return element
  }
}
