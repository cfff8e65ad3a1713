public import ABI
public import Tasks

/// One operation of semop(2).
public struct SemaphoreOperation: BitwiseCopyable {
  public var number: UInt16 = 0
  public var change: Int16 = 0
  public var flags: Int16 = 0
  public init() {}
  var noWait: Bool { flags & 0o4000 != 0 }
  var undoes: Bool { flags & 0x1000 != 0 }
}

/// A set of semaphores (semget(2)). Kernel lock held for every call.
public final class SemaphoreSet: SystemVObject {
  var values: [Int32]
  var lastUsers: [Int32]
  var operated: UInt64 = 0
  let queue = WaitQueue()
  /// What sleepers wait for: the semaphore, and whether for zero.
  var sleepers: [(number: Int, forZero: Bool)] = []

  init(key: Int32, mode: UInt32, count: Int, credentials: ProcessCredentials) {
    values = [Int32](repeating: 0, count: count)
    lastUsers = values
    super.init(key: key, mode: mode, credentials: credentials)
  }

  /// struct semid64_ds
  func record() -> [UInt8] {
    var record = permissionRecord()
    for value in [operated, 0, changed, 0, UInt64(values.count)] { record.put(value) }
    record.pad(to: 104)
    return record.bytes
  }
}

/// What SEM_UNDO takes back at a process's end.
struct SemaphoreUndo {
  let set: SemaphoreSet
  var adjustments: [Int32]
}

/// semget(2), semop(2), semctl(2).
public enum Semaphores {
  nonisolated(unsafe) static var sets = SystemVTable<SemaphoreSet>(maximum: 32000)
  private static let maximumValue: Int32 = 32767
  private static let maximumPerSet = 32000
  private static let maximumOperations = 500

  public static func get(key: Int32, count: Int32, flags: UInt32, process: Process) throws(Errno) -> Int32 {
    guard count >= 0, count <= maximumPerSet else { throw .invalid }
    if let found = try sets.get(key: key, flags: flags, process.credentials) {
      guard Int(count) <= found.values.count else { throw .invalid }
      return found.identifier
    }
    guard count > 0 else { throw .invalid }
    let set = SemaphoreSet(key: key, mode: flags, count: Int(count), credentials: process.credentials)
    try sets.insert(set)
    return set.identifier
  }

  /// semop(2), semtimedop(2): all operations or none. EAGAIN, E2BIG, EFBIG, ERANGE, EIDRM, EINTR, EACCES, EINVAL.
  public static func operate(
    _ identifier: Int32, _ operations: [SemaphoreOperation], deadline: UInt64, thread: LinuxThread
  ) throws(Errno) {
    guard operations.count > 0 else { throw .invalid }
    guard operations.count <= maximumOperations else { throw .argumentListTooLong }
    let set = try sets.object(identifier)
    for operation in operations where Int(operation.number) >= set.values.count { throw .fileTooLarge }
    let changes = operations.contains { $0.change != 0 }
    try set.check(changes ? 2 : 4, thread.process.credentials)
    while let blocking = try attempt(set, operations, thread.process) {
      if blocking.noWait { throw .again }
      set.sleepers.append((Int(blocking.number), blocking.change == 0))
      var failure: Errno?
      do throws(Errno) { try set.queue.sleep(deadline: deadline) } catch { failure = error }
      let number = Int(blocking.number)
      if let i = set.sleepers.firstIndex(where: {
        $0.number == number && $0.forZero == (blocking.change == 0)
      }) {
        set.sleepers.remove(at: i)
      }
      if set.isRemoved { throw .identifierRemoved }
      if let failure { throw failure == .timedOut ? .again : failure }
    }
  }

  /// Nil when done; the operation that has to wait, with nothing changed.
  private static func attempt(_ set: SemaphoreSet, _ operations: [SemaphoreOperation], _ process: Process)
    throws(Errno) -> SemaphoreOperation?
  {
    var values = set.values
    for operation in operations {
      let number = Int(operation.number)
      if operation.change == 0 {
        if values[number] != 0 { return operation }
        continue
      }
      let new = values[number] + Int32(operation.change)
      if new < 0 { return operation }
      if new > maximumValue { throw .outOfRange }
      values[number] = new
    }
    let hasChanged = values != set.values
    set.values = values
    for operation in operations {
      set.lastUsers[Int(operation.number)] = process.pid
      if operation.undoes { remember(operation, set, process) }
    }
    set.operated = SystemVObject.seconds
    if hasChanged { set.queue.wake() }
    return nil
  }

  private static func remember(_ operation: SemaphoreOperation, _ set: SemaphoreSet, _ process: Process) {
    let list = process.semaphoreUndo
    var index = list.firstIndex { $0.set === set }
    if index == nil {
      index = list.count
      process.semaphoreUndo.append(
        SemaphoreUndo(set: set, adjustments: [Int32](repeating: 0, count: set.values.count)))
    }
    if let index {
      process.semaphoreUndo[index].adjustments[Int(operation.number)] -= Int32(operation.change)
    }
  }

  /// The end of a process.
  static func undo(_ process: Process) {
    for undo in process.semaphoreUndo where !undo.set.isRemoved {
      for i in undo.adjustments.indices where undo.adjustments[i] != 0 {
        undo.set.values[i] = min(maximumValue, max(0, undo.set.values[i] + undo.adjustments[i]))
        undo.set.lastUsers[i] = process.pid
      }
      undo.set.queue.wake()
    }
    process.semaphoreUndo = []
  }

  /// SETVAL and SETALL clear what processes would undo.
  private static func forgetUndo(_ set: SemaphoreSet, _ number: Int?) {
    for process in ProcessTable.processes.values {
      for i in process.semaphoreUndo.indices where process.semaphoreUndo[i].set === set {
        for j in set.values.indices where number == nil || number == j {
          process.semaphoreUndo[i].adjustments[j] = 0
        }
      }
    }
  }

  public static func control(
    _ identifier: Int32, _ number: Int32, _ command: Int32, _ argument: UInt, process: Process
  ) throws(Errno) -> Int {
    switch command {
    case 3, 19: return try information(command, argument)
    case 18, 20:
      let set = try sets.object(index: identifier)
      if command == 18 { try set.check(4, process.credentials) }
      try UserSlice(argument, 104).store(set.record())
      return Int(set.identifier)
    default: break
    }
    let set = try sets.object(identifier)
    switch command {
    case 0:
      try set.checkOwner(process.credentials)
      sets.remove(set)
      set.queue.wake()
    case 1:
      try set.checkOwner(process.credentials)
      set.setPermissions(try UserSlice(argument, 48).bytes())
    case 2:
      try set.check(4, process.credentials)
      try UserSlice(argument, 104).store(set.record())
    case 13, 17: try all(set, command, argument, process)
    case 11, 12, 14, 15, 16: return try single(set, number, command, argument, process)
    default: throw .invalid
    }
    return 0
  }

  private static func all(_ set: SemaphoreSet, _ command: Int32, _ argument: UInt, _ process: Process)
    throws(Errno)
  {
    try set.check(command == 13 ? 4 : 2, process.credentials)
    if command == 13 {
      for i in set.values.indices {
        try UserSlice.store(UInt16(set.values[i]), at: argument &+ UInt(2 * i))
      }
      return
    }
    var new: [Int32] = []
    for i in set.values.indices {
      let value = Int32(try UserSlice.load(argument &+ UInt(2 * i), UInt16(0)))
      guard value <= maximumValue else { throw .outOfRange }
      new.append(value)
    }
    set.values = new
    forgetUndo(set, nil)
    set.changed = SystemVObject.seconds
    set.queue.wake()
  }

  private static func single(
    _ set: SemaphoreSet, _ number: Int32, _ command: Int32, _ argument: UInt, _ process: Process
  ) throws(Errno) -> Int {
    guard number >= 0, Int(number) < set.values.count else { throw .invalid }
    let i = Int(number)
    try set.check(command == 16 ? 2 : 4, process.credentials)
    switch command {
    case 11: return Int(set.lastUsers[i])
    case 12: return Int(set.values[i])
    case 14, 15: return set.sleepers.count { $0.number == i && $0.forZero == (command == 15) }
    default:
      let value = Int32(truncatingIfNeeded: argument)
      guard value >= 0, value <= maximumValue else { throw .outOfRange }
      set.values[i] = value
      set.lastUsers[i] = process.pid
      forgetUndo(set, i)
      set.changed = SystemVObject.seconds
      set.queue.wake()
      return 0
    }
  }

  /// struct seminfo: semmap, semmni, semmns, semmnu, semmsl, semopm, semume, semusz, semvmx, semaem.
  private static func information(_ command: Int32, _ argument: UInt) throws(Errno) -> Int {
    var total = 0
    for set in sets.objects { total += set.values.count }
    let isUse = command == 19
    var record = StructureBytes()
    for value in [
      1_024_000_000, 32000, 1_024_000_000, 1_024_000_000, 32000, 500, 500,
      isUse ? sets.objects.count : 20, 32767, isUse ? total : 32767,
    ] { record.put(UInt64(value), 4) }
    try UserSlice(argument, 40).store(record.bytes)
    return sets.highestIndex
  }
}
