public import ABI
import Tasks

/// What every object of System V IPC has (sysvipc(7)): key, owner, mode, and an id that names it.
public class SystemVObject {
  public final let key: Int32
  public final var user: UInt32
  public final var group: UInt32
  public final let creatingUser: UInt32
  public final let creatingGroup: UInt32
  public final var mode: UInt32
  public final internal(set) var identifier: Int32 = 0
  /// Seconds since the epoch of the last change by `*ctl`.
  public final var changed: UInt64
  public final var isRemoved = false

  init(key: Int32, mode: UInt32, credentials: ProcessCredentials) {
    self.key = key
    self.mode = mode & 0o777
    user = credentials.effectiveUser
    group = credentials.effectiveGroup
    creatingUser = user
    creatingGroup = group
    changed = SystemVObject.seconds
  }

  static var seconds: UInt64 { host.realtimeNanoseconds / 1_000_000_000 }

  /// `wanted`: 4 read, 2 write. EACCES.
  final func check(_ wanted: UInt32, _ credentials: ProcessCredentials) throws(Errno) {
    if credentials.isPrivileged { return }
    let me = credentials.effectiveUser
    var bits = mode
    if me == user || me == creatingUser {
      bits >>= 6
    } else if isMember(group, credentials) || isMember(creatingGroup, credentials) {
      bits >>= 3
    }
    if bits & wanted & 7 != wanted & 7 { throw .accessDenied }
  }

  private final func isMember(_ group: UInt32, _ credentials: ProcessCredentials) -> Bool {
    credentials.effectiveGroup == group || credentials.groups.contains(group)
  }

  /// IPC_SET and IPC_RMID are for the owner, the creator and root. EPERM.
  final func checkOwner(_ credentials: ProcessCredentials) throws(Errno) {
    let me = credentials.effectiveUser
    guard credentials.isPrivileged || me == user || me == creatingUser else { throw .notPermitted }
  }

  /// struct ipc64_perm, 48 bytes.
  final func permissionRecord() -> StructureBytes {
    var record = StructureBytes()
    for word in [UInt32(bitPattern: key), user, group, creatingUser, creatingGroup, mode] {
      record.put(UInt64(word), 4)
    }
    record.put(UInt64(identifier >> 15), 4)
    record.pad(to: 48)
    return record
  }

  /// IPC_SET's part that all kinds share: uid, gid, mode of a struct ipc64_perm.
  final func setPermissions(_ bytes: [UInt8]) {
    func word(_ at: Int) -> UInt32 {
      var value: UInt32 = 0
      for i in 0..<4 { value |= UInt32(bytes[at + i]) << UInt32(8 * i) }
      return value
    }
    user = word(4)
    group = word(8)
    mode = mode & ~0o777 | word(20) & 0o777
    changed = SystemVObject.seconds
  }
}

/// Builds a structure of Linux's ABI field by field, little endian.
struct StructureBytes {
  private(set) var bytes: [UInt8] = []

  mutating func put(_ value: UInt64, _ size: Int = 8) {
    for i in 0..<size { bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * i))) }
  }
  mutating func pad(to count: Int) { while bytes.count < count { bytes.append(0) } }
}

/// The objects of one kind by id and key. An id is a slot plus 32768 times a sequence number, so that an old id does
/// not name a new object (IPCMNI in Linux).
struct SystemVTable<Object: SystemVObject> {
  private var slots: [Object?] = []
  private var sequence: Int32 = 0
  /// /proc/sys/kernel/{shmmni,msgmni,sem}
  var maximum: Int
  /// /proc/sys/kernel/{shm,msg,sem}_next_id
  var nextIdentifier: Int32 = -1

  init(maximum: Int) { self.maximum = maximum }

  var objects: [Object] {
    var result: [Object] = []
    for slot in slots { if let slot { result.append(slot) } }
    return result
  }

  /// Index of the last slot in use, for the *_INFO commands.
  var highestIndex: Int { max(0, (slots.lastIndex { $0 != nil }) ?? 0) }

  /// The object of a key, nil when there is none; IPC_PRIVATE (0) names none.
  func find(key: Int32) -> Object? {
    if key == 0 { return nil }
    for slot in slots { if let slot, slot.key == key, !slot.isRemoved { return slot } }
    return nil
  }

  /// EINVAL for an id that names nothing.
  func object(_ identifier: Int32) throws(Errno) -> Object {
    let index = Int(identifier & 0x7fff)
    guard identifier >= 0, index < slots.count, let object = slots[index], object.identifier == identifier
    else { throw .invalid }
    return object
  }

  /// The object in a slot (SHM_STAT and its like). EINVAL.
  func object(index: Int32) throws(Errno) -> Object {
    guard index >= 0, Int(index) < slots.count, let object = slots[Int(index)] else { throw .invalid }
    return object
  }

  /// ENOSPC.
  mutating func insert(_ object: Object) throws(Errno) {
    guard objects.count < maximum else { throw .noSpace }
    if nextIdentifier >= 0, try insert(object, wanted: nextIdentifier) { return }
    let index = slots.firstIndex { $0 == nil } ?? slots.count
    if index == slots.count {
      guard index < 32768 else { throw .noSpace }
      slots.append(nil)
    }
    object.identifier = sequence << 15 | Int32(index)
    sequence = (sequence + 1) & 0xffff
    slots[index] = object
  }

  /// The id that /proc/sys/kernel/*_next_id asks for, -1 for none; false when it is taken: the next is any.
  private mutating func insert(_ object: Object, wanted: Int32) throws(Errno) -> Bool {
    nextIdentifier = -1
    let index = Int(wanted & 0x7fff)
    while slots.count <= index { slots.append(nil) }
    guard slots[index] == nil else { return false }
    object.identifier = wanted
    slots[index] = object
    return true
  }

  mutating func remove(_ object: Object) {
    object.isRemoved = true
    let index = Int(object.identifier & 0x7fff)
    if index < slots.count, slots[index] === object { slots[index] = nil }
  }

  /// What the *get calls share: the object of `key` (checked), or nil when one is to be made. ENOENT, EEXIST, EACCES.
  func get(key: Int32, flags: UInt32, _ credentials: ProcessCredentials) throws(Errno) -> Object? {
    guard let found = find(key: key) else {
      if key != 0, flags & 0o1000 == 0 { throw .noSuchFile }
      return nil
    }
    if flags & 0o3000 == 0o3000 { throw .fileExists }
    try found.check((flags & 0o777) >> 6 | (flags & 0o77) >> 3 | flags & 7, credentials)
    return found
  }
}
