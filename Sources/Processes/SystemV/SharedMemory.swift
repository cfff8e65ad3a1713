public import ABI
public import Tasks

/// A segment of System V shared memory (shmget(2)). Kernel lock held for every call.
public final class SharedSegment: SystemVObject {
  let frames: SharedFrames
  let size: UInt64
  var attached: UInt64 = 0
  var detached: UInt64 = 0
  let creator: Int32
  var lastUser: Int32 = 0

  init(key: Int32, mode: UInt32, size: UInt64, process: Process) throws(Errno) {
    frames = try SharedFrames(count: Int((size + 4095) >> 12))
    self.size = size
    creator = process.pid
    super.init(key: key, mode: mode, credentials: process.credentials)
  }

  /// Attachments, found where they are: in the address spaces. A process that shares memory (vfork) counts once.
  var attachments: UInt64 {
    var count: UInt64 = 0
    var seen: [ObjectIdentifier] = []
    for process in ProcessTable.processes.values where !process.isZombie {
      let space = process.addressSpace
      if seen.contains(ObjectIdentifier(space)) { continue }
      seen.append(ObjectIdentifier(space))
      for area in space.areas where area.frames === frames && area.offset == 0 { count += 1 }
    }
    return count
  }

  /// struct shmid64_ds
  func record() -> [UInt8] {
    var record = permissionRecord()
    for value in [size, attached, detached, changed] { record.put(value) }
    record.put(UInt64(creator), 4)
    record.put(UInt64(lastUser), 4)
    record.put(attachments)
    record.pad(to: 112)
    return record.bytes
  }
}

/// shmget(2), shmat(2), shmdt(2), shmctl(2).
public enum SharedMemory {
  nonisolated(unsafe) static var segments = SystemVTable<SharedSegment>(maximum: 4096)
  /// SHM_DEST, SHM_LOCKED
  private static var isDestroyed: UInt32 { 0o1000 }
  private static var isLocked: UInt32 { 0o2000 }

  /// Segments marked for destruction go with their last attachment; looked at whenever somebody asks.
  private static func prune() {
    for segment in segments.objects where segment.mode & isDestroyed != 0 && segment.attachments == 0 {
      segments.remove(segment)
    }
  }

  /// EINVAL for a bad size, ENOENT, EEXIST, EACCES, ENOSPC, ENOMEM.
  public static func get(key: Int32, size: UInt64, flags: UInt32, process: Process) throws(Errno) -> Int32 {
    prune()
    if let found = try segments.get(key: key, flags: flags, process.credentials) {
      guard size <= found.size else { throw .invalid }
      return found.identifier
    }
    guard size > 0, size < 1 << 46 else { throw .invalid }
    guard size >> 12 < UInt64(frames.totalFrames) else { throw .noMemory }
    let segment = try SharedSegment(key: key, mode: flags, size: size, process: process)
    try segments.insert(segment)
    return segment.identifier
  }

  /// The address. `flags`: SHM_RDONLY 010000, SHM_RND 020000, SHM_REMAP 040000, SHM_EXEC 0100000.
  public static func attach(_ identifier: Int32, at wanted: UInt, flags: UInt32, process: Process)
    throws(Errno) -> UInt
  {
    let segment = try segments.object(identifier)
    let isReadOnly = flags & 0o10000 != 0
    try segment.check(isReadOnly ? 4 : 6, process.credentials)
    let length = (UInt(segment.size) + 4095) & ~4095
    let space = process.addressSpace
    var address = wanted
    if wanted == 0 {
      address = try space.findFree(length)
    } else {
      if flags & 0o20000 != 0 { address &= ~4095 }
      guard address & 4095 == 0, (try? AddressSpace.check(address, length)) != nil else { throw .invalid }
      if flags & 0o40000 == 0, !space.isFree(address, length) { throw .invalid }
    }
    var protection: Protection = isReadOnly ? .read : [.read, .write]
    if flags & 0o100000 != 0 { protection.insert(.execute) }
    try space.map(
      VirtualMemoryArea(
        start: address, end: address + length, protection: protection, isShared: true,
        frames: segment.frames))
    segment.attached = SystemVObject.seconds
    segment.lastUser = process.pid
    return address
  }

  /// EINVAL when nothing is attached there.
  public static func detach(_ address: UInt, process: Process) throws(Errno) {
    let space = process.addressSpace
    guard let area = space.area(at: address), area.start == address, let shown = area.frames,
      area.offset == 0, let segment = segments.objects.first(where: { $0.frames === shown })
    else { throw .invalid }
    let end = address + (UInt(segment.size) + 4095) & ~4095
    // mprotect(2) may have cut the attachment; others may have been mapped over it.
    for part in space.areas where part.start >= address && part.end <= end && part.frames === shown {
      try space.unmap(part.start, part.end)
    }
    segment.detached = SystemVObject.seconds
    segment.lastUser = process.pid
    prune()
  }

  public static func control(_ identifier: Int32, _ command: Int32, _ buffer: UInt, process: Process)
    throws(Errno) -> Int
  {
    prune()
    switch command {
    case 0:
      let segment = try segments.object(identifier)
      try segment.checkOwner(process.credentials)
      segment.mode |= isDestroyed
      segment.changed = SystemVObject.seconds
      prune()
    case 1:
      let segment = try segments.object(identifier)
      try segment.checkOwner(process.credentials)
      segment.setPermissions(try UserSlice(buffer, 48).bytes())
    case 2:
      let segment = try segments.object(identifier)
      try segment.check(4, process.credentials)
      try UserSlice(buffer, 112).store(segment.record())
    case 3:  // IPC_INFO: shmmax, shmmin, shmmni, shmseg, shmall
      var record = StructureBytes()
      for value in [UInt64(1) << 46, 1, 4096, 4096, UInt64(frames.totalFrames)] { record.put(value) }
      record.pad(to: 72)
      try UserSlice(buffer, 72).store(record.bytes)
      return segments.highestIndex
    case 11, 12:  // SHM_LOCK, SHM_UNLOCK: memory is never written out, the mark alone is kept
      let segment = try segments.object(identifier)
      try segment.checkOwner(process.credentials)
      segment.mode = command == 11 ? segment.mode | isLocked : segment.mode & ~isLocked
    case 13, 15:  // SHM_STAT, SHM_STAT_ANY
      let segment = try segments.object(index: identifier)
      if command == 13 { try segment.check(4, process.credentials) }
      try UserSlice(buffer, 112).store(segment.record())
      return Int(segment.identifier)
    case 14:  // SHM_INFO: used_ids, shm_tot, shm_rss, shm_swp, …
      var record = StructureBytes()
      var pages: UInt64 = 0
      for segment in segments.objects { pages += (segment.size + 4095) >> 12 }
      record.put(UInt64(segments.objects.count))
      record.put(pages)
      record.put(pages)
      record.pad(to: 48)
      try UserSlice(buffer, 48).store(record.bytes)
      return segments.highestIndex
    default: throw .invalid
    }
    return 0
  }
}
