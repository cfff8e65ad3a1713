public import ABI
public import Tasks

/// What an epoll watches: a descriptor number together with the description it had then (epoll(7), Q&A 6).
public final class EpollItem: Waiter {
  unowned(unsafe) let epoll: Epoll
  let descriptor: Int32
  /// Kept alive: the item is on its wait queue. `Epoll.forget` lets it go.
  let file: OpenFile
  /// The events asked for, with the EPOLL… flags; 0 in the low bits after a one-shot.
  var events: UInt32
  var data: UInt64
  // The next item with the same descriptor number, and the next that watches the same file.
  var nextWithDescriptor: EpollItem?
  var nextWatcher: EpollItem?
  // The ready list.
  unowned(unsafe) var nextReady: EpollItem?
  unowned(unsafe) var previousReady: EpollItem?
  var isReadyListed = false

  init(_ epoll: Epoll, descriptor: Int32, file: OpenFile, events: UInt32, data: UInt64) {
    self.epoll = epoll
    self.descriptor = descriptor
    self.file = file
    self.events = events
    self.data = data
    super.init()
  }

  /// Error and hang-up are reported whether asked for or not.
  var mask: UInt32 {
    let asked = events & 0xffff
    let readHangup = events & Readiness.readHangup.rawValue
    return isDisabled ? 0 : asked | readHangup | 0x18
  }
  var isDisabled: Bool { events & ~Epoll.flags == 0 && events & Epoll.oneShot != 0 && wasReported }
  var wasReported = false
  var isEdgeTriggered: Bool { events & Epoll.edge != 0 }

  var pending: UInt32 { file.readiness().rawValue & mask }

  public override func notify(_ changed: UInt32) -> Bool {
    if changed != 0, changed & mask == 0 { return false }
    if mask == 0 { return false }
    let had = epoll.hasSleepers
    if !isReadyListed { epoll.list(self) }
    epoll.wake()
    return had
  }
}

/// An epoll(7) instance.
public final class Epoll: OpenFile {
  static let edge: UInt32 = 1 << 31
  static let oneShot: UInt32 = 1 << 30
  static let exclusive: UInt32 = 1 << 28
  static let flags: UInt32 = 0xf000_0000
  /// Nesting that epoll_ctl(2) allows before ELOOP.
  static let maximalDepth = 5

  /// The items of each descriptor number, a list each.
  private var items: [EpollItem?] = []
  unowned(unsafe) private var firstReady: EpollItem?
  unowned(unsafe) private var lastReady: EpollItem?
  private let queue = WaitQueue()

  /// epoll_create1(2).
  public override var anonymousName: StaticString { "[eventpoll]" }

  public init() { super.init(inode: PipeInodes.anonymous(mode: 0o600), flags: 2) }

  public override var waitQueue: WaitQueue? { queue }
  public override func read(_ slice: UserSlice) throws(Errno) -> Int { throw .invalid }
  var hasSleepers: Bool { !queue.isEmpty }

  func wake() {
    if !queue.isEmpty { queue.wake(Readiness.readable.rawValue, exclusive: 1) }
  }

  func list(_ item: EpollItem) {
    item.isReadyListed = true
    item.nextReady = nil
    item.previousReady = lastReady
    if let lastReady { lastReady.nextReady = item } else { firstReady = item }
    lastReady = item
  }

  private func unlist(_ item: EpollItem) {
    guard item.isReadyListed else { return }
    item.isReadyListed = false
    if let previous = item.previousReady {
      previous.nextReady = item.nextReady
    } else {
      firstReady = item.nextReady
    }
    if let next = item.nextReady {
      next.previousReady = item.previousReady
    } else {
      lastReady = item.previousReady
    }
    item.nextReady = nil
    item.previousReady = nil
  }

  /// Readable when a wait would find something. Items that turn out not to be ready leave the list.
  public override func readiness() -> Readiness {
    while let item = firstReady {
      if item.pending != 0 { return .readable }
      unlist(item)
    }
    return []
  }

  private func find(_ descriptor: Int32, _ file: OpenFile) -> EpollItem? {
    guard descriptor >= 0, Int(descriptor) < items.count else { return nil }
    var item = items[Int(descriptor)]
    while let current = item, current.file !== file { item = current.nextWithDescriptor }
    return item
  }

  // MARK: epoll_ctl(2)

  /// EPOLL_CTL_ADD. EEXIST, EPERM for files that cannot wait, EINVAL for itself, ELOOP for cycles and deep nesting.
  public func add(_ descriptor: Int32, _ file: OpenFile, events: UInt32, data: UInt64) throws(Errno) {
    guard file !== self, descriptor >= 0 else { throw .invalid }
    guard let queue = file.waitQueue else { throw .notPermitted }
    if find(descriptor, file) != nil { throw .fileExists }
    if let inner = file as? Epoll {
      if events & Epoll.exclusive != 0 { throw .invalid }
      if inner.depth(seeking: self) >= Epoll.maximalDepth { throw .tooManySymlinks }
    }
    let item = EpollItem(self, descriptor: descriptor, file: file, events: events, data: data)
    item.isExclusive = events & Epoll.exclusive != 0
    while items.count <= Int(descriptor) { items.append(nil) }
    item.nextWithDescriptor = items[Int(descriptor)]
    items[Int(descriptor)] = item
    item.nextWatcher = file.watchers
    file.watchers = item
    queue.add(item)
    listIfPending(item)
  }

  /// EPOLL_CTL_MOD. ENOENT; EINVAL for exclusive items.
  public func modify(_ descriptor: Int32, _ file: OpenFile, events: UInt32, data: UInt64) throws(Errno) {
    guard let item = find(descriptor, file) else { throw .noSuchFile }
    guard events & Epoll.exclusive == 0, !item.isExclusive else { throw .invalid }
    item.events = events
    item.data = data
    item.wasReported = false
    listIfPending(item)
  }

  /// EPOLL_CTL_DEL. ENOENT.
  public func remove(_ descriptor: Int32, _ file: OpenFile) throws(Errno) {
    guard let item = find(descriptor, file) else { throw .noSuchFile }
    drop(item)
  }

  /// epoll_ctl(2) as the system call has it: `event` is the address of a struct epoll_event (packed, 12 bytes).
  public func change(_ operation: Int32, _ descriptor: Int32, _ file: OpenFile, event: UInt) throws(Errno) {
    if operation == 2 { return try remove(descriptor, file) }
    guard operation == 1 || operation == 3 else { throw .invalid }
    let events = try UserSlice.load(event, UInt32(0))
    let data = try UserSlice.load(event &+ 4, UInt64(0))
    if operation == 1 {
      try add(descriptor, file, events: events, data: data)
    } else {
      try modify(descriptor, file, events: events, data: data)
    }
  }

  private func listIfPending(_ item: EpollItem) {
    guard item.pending != 0 else { return }
    if !item.isReadyListed { list(item) }
    wake()
  }

  private func drop(_ item: EpollItem) {
    item.queue?.remove(item)
    unlist(item)
    let slot = Int(item.descriptor)
    if items[slot] === item {
      items[slot] = item.nextWithDescriptor
    } else {
      var other = items[slot]
      while let current = other, current.nextWithDescriptor !== item { other = current.nextWithDescriptor }
      other?.nextWithDescriptor = item.nextWithDescriptor
    }
    if item.file.watchers === item {
      item.file.watchers = item.nextWatcher
    } else {
      var other = item.file.watchers
      while let current = other, current.nextWatcher !== item { other = current.nextWatcher }
      other?.nextWatcher = item.nextWatcher
    }
    item.nextWatcher = nil
    item.nextWithDescriptor = nil
  }

  /// Takes `file` out of every epoll: call it when the last descriptor of the description is closed, before
  /// `released`.
  public static func forget(_ file: OpenFile) {
    while let item = file.watchers { item.epoll.drop(item) }
  }

  public func forget(_ file: OpenFile) { Epoll.forget(file) }

  public override func released() {
    for index in items.indices {
      while let item = items[index] { drop(item) }
    }
  }

  /// How many epolls are nested in this one; the maximum if `epoll` is among them.
  private func depth(seeking epoll: Epoll, level: Int = 1) -> Int {
    if self === epoll || level >= Epoll.maximalDepth { return Epoll.maximalDepth }
    var deepest = level
    for first in items {
      var item = first
      while let current = item {
        if let inner = current.file as? Epoll {
          deepest = max(deepest, inner.depth(seeking: epoll, level: level + 1))
        }
        item = current.nextWithDescriptor
      }
    }
    return deepest
  }

  // MARK: epoll_wait(2)

  /// Waits until something is ready and writes at most `maximum` events (12 bytes each) to `slice`; how many, 0 when
  /// `deadline` (monotonic nanoseconds; 0 does not wait) has passed. EINTR, EFAULT, EINVAL.
  public func wait(_ slice: UserSlice, maximum: Int, deadline: UInt64) throws(Errno) -> Int {
    guard maximum > 0, slice.count / 12 >= maximum else { throw .invalid }
    while true {
      let found = try harvest(slice, maximum)
      if found > 0 || deadline == 0 { return found }
      do throws(Errno) {
        try queue.sleep(deadline: deadline, exclusive: true)
      } catch {
        if error == .timedOut { return try harvest(slice, maximum) }
        throw error
      }
    }
  }

  private func harvest(_ slice: UserSlice, _ maximum: Int) throws(Errno) -> Int {
    guard firstReady != nil else { return 0 }
    var found = 0
    // Level-triggered items go back to the end: stop at the first that was put there in this turn.
    var firstRelisted: EpollItem?
    while found < maximum, let item = firstReady, item !== firstRelisted {
      let pending = item.pending
      if pending == 0 {
        unlist(item)
        continue
      }
      do throws(Errno) {
        try store(pending, item.data, slice.dropFirst(found * 12))
      } catch {
        if found > 0 { return found }
        throw error
      }
      found += 1
      unlist(item)
      if item.events & Epoll.oneShot != 0 {
        item.events &= Epoll.flags
        item.wasReported = true
      } else if !item.isEdgeTriggered {
        list(item)
        if firstRelisted == nil { firstRelisted = item }
      }
    }
    if firstReady != nil { wake() }
    return found
  }

  private func store(_ events: UInt32, _ data: UInt64, _ slice: UserSlice) throws(Errno) {
    var event = (events, UInt32(truncatingIfNeeded: data), UInt32(truncatingIfNeeded: data >> 32))
    var failure = false
    withUnsafeBytes(of: &event) { bytes in
      do throws(Errno) { try slice.copyOut(bytes) } catch { failure = true }
    }
    if failure { throw .badAddress }
  }
}
