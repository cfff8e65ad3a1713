public import ABI
public import Tasks
public import VFS

/// A POSIX message queue (mq_overview(7)). Kernel lock held for every call.
public final class PosixQueue {
  struct Message {
    var priority: UInt32
    var text: [UInt8]
  }

  public let inode: Inode
  let maximum: Int
  let messageSize: Int
  /// Highest priority first; of one priority, the oldest.
  var messages: [Message] = []
  let readers = WaitQueue()
  let writers = WaitQueue()
  /// Who asked by mq_notify(2) to be told of the first message: signal 0 for nobody to signal.
  var notified: Process?
  var notification = SignalInformation(0, code: -3)
  /// Readers that wait take the message, and nobody is notified.
  var waitingReaders = 0

  init(mode: UInt32, maximum: Int, messageSize: Int, owner: Credentials) {
    inode = PipeInodes.anonymous(mode: 0o100000 | mode & 0o777)
    inode.status.user = owner.user
    inode.status.group = owner.group
    self.maximum = maximum
    self.messageSize = messageSize
  }

  var bytes: Int {
    var sum = 0
    for message in messages { sum += message.text.count }
    return sum
  }
}

/// The queues by name, and the calls on them.
public enum PosixQueues {
  nonisolated(unsafe) private static var queues: [[UInt8]: PosixQueue] = [:]
  /// /proc/sys/fs/mqueue
  nonisolated(unsafe) public static var maximumQueues = 256
  nonisolated(unsafe) public static var maximumMessages = 10
  nonisolated(unsafe) public static var maximumMessageSize = 8192
  nonisolated(unsafe) public static var defaultMessages = 10
  nonisolated(unsafe) public static var defaultMessageSize = 8192

  /// What mq_open(2) asks of a new queue (struct mq_attr).
  public struct Attributes {
    public var maximum: Int64
    public var messageSize: Int64
    public init(maximum: Int64, messageSize: Int64) {
      self.maximum = maximum
      self.messageSize = messageSize
    }
  }

  /// mq_open(2); the name has no leading slash here, as in the system call.
  public static func open(
    _ name: [UInt8], flags: UInt32, mode: UInt32, attributes: Attributes?, credentials: Credentials
  ) throws(Errno) -> PosixQueueFile {
    try check(name)
    guard flags & 3 != 3 else { throw .invalid }
    if let queue = queues[name] {
      if flags & 0o300 == 0o300 { throw .fileExists }
      try credentials.check(queue.inode, flags & 3 == 0 ? 4 : flags & 3 == 1 ? 2 : 6)
      return PosixQueueFile(queue, flags: flags & 0o4003)
    }
    guard flags & 0o100 != 0 else { throw .noSuchFile }
    let queue = try make(mode, attributes, credentials)
    queues[name] = queue
    return PosixQueueFile(queue, flags: flags & 0o4003)
  }

  private static func make(_ mode: UInt32, _ attributes: Attributes?, _ credentials: Credentials)
    throws(Errno)
    -> PosixQueue
  {
    guard queues.count < maximumQueues || credentials.isPrivileged else { throw .noSpace }
    var (count, size) = (min(defaultMessages, maximumMessages), min(defaultMessageSize, maximumMessageSize))
    if let attributes {
      // HARD_MSGMAX and HARD_MSGSIZEMAX
      let (most, largest): (Int64, Int64) =
        credentials.isPrivileged
        ? (65536, 16 << 20) : (Int64(maximumMessages), Int64(maximumMessageSize))
      guard attributes.maximum > 0, attributes.messageSize > 0, attributes.maximum <= most,
        attributes.messageSize <= largest
      else { throw .invalid }
      guard attributes.maximum * attributes.messageSize <= 64 << 20 else { throw .noMemory }
      (count, size) = (Int(attributes.maximum), Int(attributes.messageSize))
    }
    return PosixQueue(mode: mode, maximum: count, messageSize: size, owner: credentials)
  }

  private static func check(_ name: [UInt8]) throws(Errno) {
    guard !name.isEmpty else { throw .noSuchFile }
    guard name.count <= 255 else { throw .nameTooLong }
    if name.contains(0x2f) || name == [0x2e] || name == [0x2e, 0x2e] { throw .accessDenied }
  }

  /// mq_unlink(2): the queue lives on while it is open.
  public static func unlink(_ name: [UInt8], credentials: Credentials) throws(Errno) {
    guard name.count <= 255 else { throw .nameTooLong }
    guard let queue = queues[name] else { throw .noSuchFile }
    guard credentials.isPrivileged || credentials.user == queue.inode.status.user else { throw .accessDenied }
    queues[name] = nil
  }
}

/// An open message queue.
public final class PosixQueueFile: OpenFile {
  public let queue: PosixQueue

  init(_ queue: PosixQueue, flags: UInt32) {
    self.queue = queue
    super.init(inode: queue.inode, flags: flags)
  }

  public override var waitQueue: WaitQueue? { isReadable ? queue.readers : queue.writers }
  public override func readiness() -> Readiness {
    var result: Readiness = []
    if isReadable, !queue.messages.isEmpty { result.insert(.readable) }
    if isWritable, queue.messages.count < queue.maximum { result.insert(.writable) }
    return result
  }

  /// What cat(1) of a file of the mqueue file system shows.
  public override func read(_ slice: UserSlice) throws(Errno) -> Int { 0 }

  /// mq_getsetattr(2)'s record: flags, maximum, message size, messages now.
  public var attributes: (Int64, Int64, Int64, Int64) {
    (Int64(flags & 0o4000), Int64(queue.maximum), Int64(queue.messageSize), Int64(queue.messages.count))
  }

  /// mq_timedsend(2). EMSGSIZE, EAGAIN, ETIMEDOUT, EINTR.
  public func send(_ slice: UserSlice, priority: UInt32, deadline: UInt64, process: Process) throws(Errno) {
    guard isWritable else { throw .badFileDescriptor }
    guard slice.count <= queue.messageSize else { throw .messageTooLong }
    let text = try slice.bytes()
    while queue.messages.count >= queue.maximum {
      if isNonblocking { throw .again }
      try queue.writers.sleep(deadline: deadline)
    }
    let wasEmpty = queue.messages.isEmpty
    let place = queue.messages.firstIndex { $0.priority < priority } ?? queue.messages.count
    queue.messages.insert(PosixQueue.Message(priority: priority, text: text), at: place)
    touch()
    if wasEmpty, queue.waitingReaders == 0 { tell(process) }
    queue.readers.wake(Readiness.readable.rawValue)
  }

  /// The one who registered is told once.
  private func tell(_ sender: Process) {
    guard let process = queue.notified else { return }
    queue.notified = nil
    guard queue.notification.signal != 0 else { return }
    queue.notification.pid = sender.pid
    queue.notification.uid = sender.credentials.realUser
    process.notify(queue.notification)
  }

  private func touch() {
    let now = host.realtimeNanoseconds
    queue.inode.status.modified = now
    queue.inode.status.changed = now
  }

  /// mq_timedreceive(2): length and priority. EMSGSIZE when the buffer is smaller than the queue's messages may be.
  public func receive(_ address: UInt, _ size: Int, deadline: UInt64) throws(Errno) -> (Int, UInt32) {
    guard isReadable else { throw .badFileDescriptor }
    guard size >= queue.messageSize else { throw .messageTooLong }
    while queue.messages.isEmpty {
      if isNonblocking { throw .again }
      queue.waitingReaders += 1
      defer { queue.waitingReaders -= 1 }
      try queue.readers.sleep(deadline: deadline)
    }
    let message = queue.messages[0]
    try UserSlice(address, message.text.count).store(message.text)
    queue.messages.removeFirst()
    touch()
    queue.writers.wake(Readiness.writable.rawValue)
    return (message.text.count, message.priority)
  }

  /// mq_notify(2): nil ends the caller's registration. EBUSY when somebody is registered.
  public func notify(_ information: SignalInformation?, process: Process) throws(Errno) {
    guard let information else {
      if queue.notified === process { queue.notified = nil }
      return
    }
    if let other = queue.notified, !other.isZombie { throw .busy }
    queue.notified = process
    queue.notification = information
  }

  /// A process that closes the queue is no longer notified.
  public override func released() { queue.notified = nil }
}
