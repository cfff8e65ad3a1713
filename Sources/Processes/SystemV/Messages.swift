public import ABI
public import Tasks

/// A message queue (msgget(2)). Kernel lock held for every call.
public final class MessageQueue: SystemVObject {
  struct Message {
    var type: Int64
    var text: [UInt8]
  }
  var messages: [Message] = []
  var bytes = 0
  var capacity: UInt64 = 16384
  var sent: UInt64 = 0
  var received: UInt64 = 0
  var lastSender: Int32 = 0
  var lastReceiver: Int32 = 0
  let readers = WaitQueue()
  let writers = WaitQueue()

  init(key: Int32, mode: UInt32, owner: ProcessCredentials) {
    super.init(key: key, mode: mode, credentials: owner)
  }

  /// struct msqid64_ds
  func record() -> [UInt8] {
    var record = permissionRecord()
    for value in [sent, received, changed, UInt64(bytes), UInt64(messages.count), capacity] {
      record.put(value)
    }
    record.put(UInt64(lastSender), 4)
    record.put(UInt64(lastReceiver), 4)
    record.pad(to: 120)
    return record.bytes
  }

  /// Which message msgrcv(2) means. `flags`: MSG_EXCEPT 020000, MSG_COPY 040000.
  func find(_ type: Int64, _ flags: UInt32) -> Int? {
    if flags & 0o40000 != 0 { return type >= 0 && type < messages.count ? Int(type) : nil }
    if type == 0 { return messages.isEmpty ? nil : 0 }
    if type > 0 {
      let excepts = flags & 0o20000 != 0
      return messages.firstIndex { ($0.type == type) != excepts }
    }
    let most = type == .min ? .max : -type
    var best: Int?
    for i in messages.indices where messages[i].type <= most {
      if let known = best, messages[known].type <= messages[i].type { continue }
      best = i
    }
    return best
  }
}

/// msgget(2), msgsnd(2), msgrcv(2), msgctl(2).
public enum MessageQueues {
  nonisolated(unsafe) static var queues = SystemVTable<MessageQueue>(maximum: 32000)
  private static let maximumMessage = 8192
  private static var noWait: UInt32 { 0o4000 }

  public static func get(key: Int32, flags: UInt32, process: Process) throws(Errno) -> Int32 {
    if let found = try queues.get(key: key, flags: flags, process.credentials) { return found.identifier }
    let queue = MessageQueue(key: key, mode: flags, owner: process.credentials)
    try queues.insert(queue)
    return queue.identifier
  }

  public static func send(_ identifier: Int32, _ buffer: UInt, _ size: Int, flags: UInt32, process: Process)
    throws(Errno)
  {
    guard size >= 0, size <= maximumMessage else { throw .invalid }
    let type = try UserSlice.load(buffer, Int64(0))
    guard type >= 1 else { throw .invalid }
    let text = try UserSlice(buffer &+ 8, size).bytes()
    let queue = try queues.object(identifier)
    try queue.check(2, process.credentials)
    while UInt64(queue.bytes + size) > queue.capacity || UInt64(queue.messages.count) >= queue.capacity {
      if flags & noWait != 0 { throw .again }
      try queue.writers.sleep()
      if queue.isRemoved { throw .identifierRemoved }
    }
    queue.messages.append(MessageQueue.Message(type: type, text: text))
    queue.bytes += size
    queue.lastSender = process.pid
    queue.sent = SystemVObject.seconds
    queue.readers.wake()
  }

  public static func receive(
    _ identifier: Int32, _ buffer: UInt, _ size: Int, type: Int64, flags: UInt32, process: Process
  ) throws(Errno) -> Int {
    guard size >= 0, identifier >= 0 else { throw .invalid }
    let copies = flags & 0o40000 != 0
    if copies, flags & 0o20000 != 0 || flags & noWait == 0 { throw .invalid }
    let queue = try queues.object(identifier)
    try queue.check(4, process.credentials)
    while true {
      if let i = queue.find(type, flags) {
        let message = queue.messages[i]
        guard message.text.count <= size || flags & 0o10000 != 0 else { throw .argumentListTooLong }
        let count = min(size, message.text.count)
        try UserSlice.store(message.type, at: buffer)
        try UserSlice(buffer &+ 8, count).store(Array(message.text.prefix(count)))
        if copies { return count }
        queue.messages.remove(at: i)
        queue.bytes -= message.text.count
        queue.lastReceiver = process.pid
        queue.received = SystemVObject.seconds
        queue.writers.wake()
        return count
      }
      if flags & noWait != 0 { throw .noMessage }
      try queue.readers.sleep()
      if queue.isRemoved { throw .identifierRemoved }
    }
  }

  public static func control(_ identifier: Int32, _ command: Int32, _ buffer: UInt, process: Process)
    throws(Errno) -> Int
  {
    switch command {
    case 0:
      let queue = try queues.object(identifier)
      try queue.checkOwner(process.credentials)
      queues.remove(queue)
      queue.readers.wake()
      queue.writers.wake()
    case 1:
      let queue = try queues.object(identifier)
      try queue.checkOwner(process.credentials)
      let capacity = try UserSlice.load(buffer &+ 88, UInt64(0))
      if capacity > 16384, !process.credentials.isPrivileged { throw .notPermitted }
      queue.setPermissions(try UserSlice(buffer, 48).bytes())
      queue.capacity = capacity
      queue.writers.wake()
    case 2:
      let queue = try queues.object(identifier)
      try queue.check(4, process.credentials)
      try UserSlice(buffer, 120).store(queue.record())
    case 3, 12:  // IPC_INFO, MSG_INFO: msgpool, msgmap, msgmax, msgmnb, msgmni, msgssz, msgtql, msgseg
      var (count, bytes) = (0, 0)
      for queue in queues.objects {
        count += queue.messages.count
        bytes += queue.bytes
      }
      var record = StructureBytes()
      let isUse = command == 12
      for value in [
        isUse ? queues.objects.count : 512_000, isUse ? count : 16384, maximumMessage, 16384, 32000, 16,
        isUse ? bytes : 16384,
      ] { record.put(UInt64(value), 4) }
      record.put(0xffff, 2)
      record.pad(to: 32)
      try UserSlice(buffer, 32).store(record.bytes)
      return queues.highestIndex
    case 11, 13:
      let queue = try queues.object(index: identifier)
      if command == 11 { try queue.check(4, process.credentials) }
      try UserSlice(buffer, 120).store(queue.record())
      return Int(queue.identifier)
    default: throw .invalid
    }
    return 0
  }
}
