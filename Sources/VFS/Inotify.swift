public import ABI
public import Tasks

/// What happened to a file, as inotify(7) numbers it.
public struct FileEvent: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public static var access: FileEvent { FileEvent(rawValue: 0x1) }
  public static var modify: FileEvent { FileEvent(rawValue: 0x2) }
  public static var attributes: FileEvent { FileEvent(rawValue: 0x4) }
  public static var closeWritten: FileEvent { FileEvent(rawValue: 0x8) }
  public static var closeUnwritten: FileEvent { FileEvent(rawValue: 0x10) }
  public static var open: FileEvent { FileEvent(rawValue: 0x20) }
  public static var movedFrom: FileEvent { FileEvent(rawValue: 0x40) }
  public static var movedTo: FileEvent { FileEvent(rawValue: 0x80) }
  public static var create: FileEvent { FileEvent(rawValue: 0x100) }
  public static var delete: FileEvent { FileEvent(rawValue: 0x200) }
  public static var deleteSelf: FileEvent { FileEvent(rawValue: 0x400) }
  public static var moveSelf: FileEvent { FileEvent(rawValue: 0x800) }
  /// A name changed within its directory (kernel: FS_DN_RENAME).
  public static var renamed: FileEvent { FileEvent(rawValue: 0x1000) }
  /// IN_ALL_EVENTS
  public static var all: FileEvent { FileEvent(rawValue: 0xfff) }
  static var unmount: FileEvent { FileEvent(rawValue: 0x2000) }
  static var overflow: FileEvent { FileEvent(rawValue: 0x4000) }
  static var ignored: FileEvent { FileEvent(rawValue: 0x8000) }
  static var isDirectory: FileEvent { FileEvent(rawValue: 0x4000_0000) }
}

/// Who watches files: an inotify(7) instance, or F_NOTIFY of fcntl(2).
public protocol FileWatcher: AnyObject {
  /// `name` is empty for what happened to the watched file itself.
  func happened(_ event: FileEvent, to watch: FileWatch, name: [UInt8], cookie: UInt32)
  /// The watch has to end: the file is gone, or it was for one event.
  func remove(_ watch: FileWatch)
}

/// One file that somebody watches.
public final class FileWatch {
  public let descriptor: Int32
  public let inode: Inode
  /// Events, and IN_ONESHOT, IN_EXCL_UNLINK.
  public var mask: UInt32
  unowned(unsafe) let instance: any FileWatcher

  /// Begins at once; ends by `end`.
  public init(descriptor: Int32, inode: Inode, mask: UInt32, instance: any FileWatcher) {
    self.descriptor = descriptor
    self.inode = inode
    self.mask = mask
    self.instance = instance
    inode.watches = (inode.watches ?? []) + [self]
    FileNotification.watches += 1
  }

  public func end() {
    var rest: [FileWatch] = []
    var wasThere = false
    for other in inode.watches ?? [] { if other === self { wasThere = true } else { rest.append(other) } }
    guard wasThere else { return }
    inode.watches = rest.isEmpty ? nil : rest
    FileNotification.watches -= 1
  }
}

/// Tells watchers what happened. Kernel lock held for every call.
public enum FileNotification {
  /// Watches there are: without any, nothing is to be told.
  nonisolated(unsafe) static var watches = 0
  nonisolated(unsafe) private static var lastCookie: UInt32 = 0

  @inline(__always)
  public static var isWanted: Bool { watches > 0 }

  /// Something happened to the file at `path`: its directory's watchers hear its name, its own hear of it.
  public static func tell(_ event: FileEvent, _ path: Path?, _ inode: Inode) {
    guard isWanted else { return }
    let kind: FileEvent = inode.isDirectory ? [event, .isDirectory] : event
    if let path, let parent = path.parent, path.inode === inode {
      send(kind, to: parent.inode, name: path.name, isUnlinked: inode.status.links == 0)
    }
    send(kind, to: inode, name: [])
  }

  @inline(__always)
  public static func tell(_ event: FileEvent, _ file: OpenFile) {
    if isWanted { tell(event, file.path, file.inode) }
  }

  /// A name in a directory came or went.
  static func tellEntry(
    _ event: FileEvent, _ directory: Inode, _ name: [UInt8], _ inode: Inode, cookie: UInt32 = 0
  ) {
    guard isWanted else { return }
    send(inode.isDirectory ? [event, .isDirectory] : event, to: directory, name: name, cookie: cookie)
  }

  static func tellMoved(_ from: Inode, _ name: [UInt8], _ to: Inode, _ newName: [UInt8], _ inode: Inode) {
    guard isWanted else { return }
    lastCookie &+= 1
    tellEntry(from === to ? [.movedFrom, .renamed] : .movedFrom, from, name, inode, cookie: lastCookie)
    tellEntry(.movedTo, to, newName, inode, cookie: lastCookie)
    send(inode.isDirectory ? [.moveSelf, .isDirectory] : .moveSelf, to: inode, name: [])
  }

  /// A name of `inode` was removed; with the last one and the last descriptor the file is gone.
  static func tellUnlinked(_ inode: Inode, isOpen: Bool) {
    guard isWanted else { return }
    if !inode.isDirectory { send(.attributes, to: inode, name: []) }
    if inode.status.links == 0, !isOpen { tellGone(inode) }
  }

  static func tellGone(_ inode: Inode) {
    guard isWanted, inode.watches != nil else { return }
    send(.deleteSelf, to: inode, name: [])
    forget(inode)
  }

  /// The watches of a file that is gone end.
  static func forget(_ inode: Inode) {
    for watch in inode.watches ?? [] { watch.instance.remove(watch) }
  }

  private static func send(
    _ event: FileEvent, to inode: Inode, name: [UInt8], cookie: UInt32 = 0, isUnlinked: Bool = false
  ) {
    guard let watches = inode.watches else { return }
    for watch in watches where watch.mask & event.rawValue & 0x1fff != 0 {
      if isUnlinked, watch.mask & 0x0400_0000 != 0 { continue }  // IN_EXCL_UNLINK
      // What happens to the watched file itself never says that it is a directory (kernel: inotify_fsnotify.c).
      let isSelf = !event.isDisjoint(with: [.deleteSelf, .moveSelf])
      watch.instance.happened(
        isSelf ? event.subtracting(.isDirectory) : event, to: watch, name: name, cookie: cookie)
      if watch.mask & 0x8000_0000 != 0 { watch.instance.remove(watch) }  // IN_ONESHOT
    }
  }
}

/// An inotify(7) instance. Kernel lock held for every call.
public final class Inotify: OpenFile, FileWatcher {
  struct Event: Equatable {
    var descriptor: Int32
    var mask: FileEvent
    var cookie: UInt32
    var name: [UInt8]
    /// The name is padded with NULs to a multiple of the header's size.
    var length: Int { name.isEmpty ? 0 : (name.count + 16) & ~15 }
  }

  /// /proc/sys/fs/inotify
  nonisolated(unsafe) public static var maximumInstances = 128
  nonisolated(unsafe) public static var maximumWatches = 65536
  nonisolated(unsafe) public static var maximumQueued = 16384
  nonisolated(unsafe) private static var instances = 0

  private var watches: [Int32: FileWatch] = [:]
  private var lastDescriptor: Int32 = 0
  private var events: [Event] = []
  private let queue = WaitQueue()

  /// `flags`: O_NONBLOCK. EMFILE past the limit of instances.
  public init(flags: UInt32) throws(Errno) {
    guard Inotify.instances < Inotify.maximumInstances else { throw .tooManyFiles }
    Inotify.instances += 1
    super.init(inode: PipeInodes.anonymous(mode: 0o600), flags: flags & 0o4000)
  }

  public override var anonymousName: StaticString { "inotify" }
  public override var waitQueue: WaitQueue? { queue }

  /// Watches in order, for /proc/PID/fdinfo: number, inode and device, mask.
  public var listing: [(descriptor: Int32, inode: UInt64, device: UInt64, mask: UInt32)] {
    var result: [(descriptor: Int32, inode: UInt64, device: UInt64, mask: UInt32)] = []
    for watch in watches.values {
      let status = watch.inode.status
      result.append((watch.descriptor, status.inode, status.device, watch.mask))
    }
    result.sort { $0.descriptor < $1.descriptor }
    return result
  }
  public override func readiness() -> Readiness { events.isEmpty ? [] : .readable }

  public override func released() {
    for watch in Array(watches.values) { drop(watch) }
    Inotify.instances -= 1
    events = []
  }

  /// inotify_add_watch(2): the watch's number. ENOSPC past the limit, EEXIST with IN_MASK_CREATE.
  public func add(_ inode: Inode, mask: UInt32) throws(Errno) -> Int32 {
    let kept = mask & (FileEvent.all.rawValue | 0x8400_0000)
    for watch in inode.watches ?? [] where watches[watch.descriptor] === watch {
      if mask & 0x1000_0000 != 0 { throw .fileExists }
      watch.mask = mask & 0x2000_0000 != 0 ? watch.mask | kept : kept
      return watch.descriptor
    }
    guard FileNotification.watches < Inotify.maximumWatches else { throw .noSpace }
    lastDescriptor += 1
    let watch = FileWatch(descriptor: lastDescriptor, inode: inode, mask: kept, instance: self)
    watches[lastDescriptor] = watch
    return lastDescriptor
  }

  /// inotify_rm_watch(2): EINVAL for an unknown number.
  public func remove(_ descriptor: Int32) throws(Errno) {
    guard let watch = watches[descriptor] else { throw .invalid }
    remove(watch)
  }

  /// The watch ends, and its reader is told.
  public func remove(_ watch: FileWatch) {
    post(Event(descriptor: watch.descriptor, mask: .ignored, cookie: 0, name: []))
    drop(watch)
  }

  private func drop(_ watch: FileWatch) {
    if watches.removeValue(forKey: watch.descriptor) != nil { watch.end() }
  }

  public func happened(_ event: FileEvent, to watch: FileWatch, name: [UInt8], cookie: UInt32) {
    let mask = event.subtracting(.renamed)
    post(Event(descriptor: watch.descriptor, mask: mask, cookie: cookie, name: name))
  }

  func post(_ event: Event) {
    // The same thing twice in a row is told once.
    if let last = events.last, last == event { return }
    if events.count >= Inotify.maximumQueued {
      let overflow = Event(descriptor: -1, mask: .overflow, cookie: 0, name: [])
      if events.last != overflow { events.append(overflow) }
      return
    }
    events.append(event)
    queue.wake(Readiness.readable.rawValue)
  }

  public override func read(_ slice: UserSlice) throws(Errno) -> Int {
    while events.isEmpty {
      if isNonblocking { throw .again }
      try queue.sleep()
    }
    guard 16 + events[0].length <= slice.count else { throw .invalid }
    var bytes: [UInt8] = []
    var count = 0
    while count < events.count, bytes.count + 16 + events[count].length <= slice.count {
      Inotify.encode(events[count], into: &bytes)
      count += 1
    }
    try slice.store(bytes)
    events.removeFirst(count)
    return bytes.count
  }

  /// struct inotify_event
  private static func encode(_ event: Event, into bytes: inout [UInt8]) {
    let header = [
      UInt32(bitPattern: event.descriptor), event.mask.rawValue, event.cookie, UInt32(event.length),
    ]
    for value in header {
      for i in 0..<4 { bytes.append(UInt8(truncatingIfNeeded: value >> UInt32(8 * i))) }
    }
    bytes += event.name
    for _ in 0..<(event.length - event.name.count) { bytes.append(0) }
  }

  /// FIONREAD.
  public override func control(_ request: UInt32, argument: UInt) throws(Errno) -> Int {
    guard request == 0x541b else { throw .notTerminal }
    var count = 0
    for event in events { count += 16 + event.length }
    try UserSlice.store(Int32(truncatingIfNeeded: count), at: argument)
    return 0
  }
}
