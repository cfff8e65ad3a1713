import Tasks
import VFS

/// The tables of /proc/sysvipc (proc(5)), a line an object below the heading.
public enum SystemVListing {
  /// Decimal digits, at least `width` wide.
  private static func field(_ value: UInt64, _ width: Int) -> [UInt8] {
    let digits = decimal(value)
    return [UInt8](repeating: 0x20, count: max(0, width - digits.count) + 1) + digits
  }

  private static func head(_ object: SystemVObject) -> [UInt8] {
    let isNegative = object.key < 0
    var line = decimal(UInt64(object.key.magnitude))
    if isNegative { line.insert(0x2d, at: 0) }
    while line.count < 10 { line.insert(0x20, at: 0) }
    line += field(UInt64(object.identifier), 10)
    var octal: [UInt8] = []
    var rest = object.mode & 0o7777
    repeat {
      octal.insert(0x30 + UInt8(rest & 7), at: 0)
      rest >>= 3
    } while rest > 0
    return line + [UInt8](repeating: 0x20, count: max(0, 5 - octal.count) + 1) + octal
  }

  private static func owners(_ object: SystemVObject) -> [UInt8] {
    field(UInt64(object.user), 5) + field(UInt64(object.group), 5) + field(UInt64(object.creatingUser), 5)
      + field(UInt64(object.creatingGroup), 5)
  }

  public static func messages() -> [UInt8] {
    var text =
      bytes(
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid"
      ) + bytes("      stime      rtime      ctime\n")
    for queue in MessageQueues.queues.objects {
      text += head(queue) + field(UInt64(queue.bytes), 11) + field(UInt64(queue.messages.count), 10)
      text += field(UInt64(queue.lastSender), 5) + field(UInt64(queue.lastReceiver), 5) + owners(queue)
      text += field(queue.sent, 10) + field(queue.received, 10) + field(queue.changed, 10) + [0x0a]
    }
    return text
  }

  public static func semaphores() -> [UInt8] {
    var text = bytes(
      "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n")
    for set in Semaphores.sets.objects {
      text += head(set) + field(UInt64(set.values.count), 10) + owners(set)
      text += field(set.operated, 10) + field(set.changed, 10) + [0x0a]
    }
    return text
  }

  public static func segments() -> [UInt8] {
    var text =
      bytes(
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid"
      ) + bytes("      atime      dtime      ctime                   rss                  swap\n")
    for segment in SharedMemory.segments.objects {
      text += head(segment) + field(segment.size, 21) + field(UInt64(segment.creator), 5)
      text += field(UInt64(segment.lastUser), 5) + field(segment.attachments, 6) + owners(segment)
      text += field(segment.attached, 10) + field(segment.detached, 10) + field(segment.changed, 10)
      text += field((segment.size + 4095) & ~4095, 21) + field(0, 21) + [0x0a]
    }
    return text
  }

  /// /proc/sys/kernel/{msg,sem,shm}_next_id
  public static var nextMessage: Int32 {
    get { MessageQueues.queues.nextIdentifier }
    set { MessageQueues.queues.nextIdentifier = newValue }
  }
  public static var nextSemaphore: Int32 {
    get { Semaphores.sets.nextIdentifier }
    set { Semaphores.sets.nextIdentifier = newValue }
  }
  public static var nextSegment: Int32 {
    get { SharedMemory.segments.nextIdentifier }
    set { SharedMemory.segments.nextIdentifier = newValue }
  }

  /// /proc/sys/kernel/msgmni and shmmni: how many objects there may be.
  public static var maximumQueues: Int {
    get { MessageQueues.queues.maximum }
    set { MessageQueues.queues.maximum = newValue }
  }
  public static var maximumSegments: Int {
    get { SharedMemory.segments.maximum }
    set { SharedMemory.segments.maximum = newValue }
  }
}
