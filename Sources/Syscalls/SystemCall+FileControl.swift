import ABI
import Processes
import Tasks
import VFS

/// `struct flock` of x86-64 (asm-generic/fcntl.h).
struct LinuxLock: BitwiseCopyable {
  var type: Int16 = 0
  var whence: Int16 = 0
  var padding: Int32 = 0
  var start: Int64 = 0
  var length: Int64 = 0
  var process: Int32 = 0
  var morePadding: Int32 = 0
}

/// fcntl(2), flock(2), ioctl(2), fsync(2) and their relatives.
extension SystemCall {
  func fcntl() throws(Errno) -> Int {
    let command = int(b)
    let table = process.descriptors
    let file = try description(int(a))
    switch command {
    case 0, 1030:
      guard c <= UInt(Int32.max) else { throw .invalid }
      return try install(file, closes: command == 1030, minimum: Int(c))
    case 1: return try table.closesOnExecution(int(a)) ? 1 : 0
    case 2: try table.setClosesOnExecution(int(a), c & 1 != 0)
    case 3:
      return Int(file.flags & ~SystemCall.closesOnExecution | (file.flags & 0o10000000 == 0 ? 0o100000 : 0))
    default: return try control(try self.file(int(a)), command)
    }
    return 0
  }

  private func control(_ file: OpenFile, _ command: Int32) throws(Errno) -> Int {
    switch command {
    case 4:
      // O_APPEND, O_NONBLOCK, O_ASYNC, O_DIRECT and O_NOATIME can change.
      let changeable: UInt32 = 0o1066000
      let wanted = unsigned(c)
      if wanted & ~file.flags & 0o1000000 != 0, !process.credentials.isPrivileged,
        process.fileSystem.credentials.user != file.inode.status.user
      {
        throw .notPermitted
      }
      file.flags = file.flags & ~changeable | wanted & changeable
      file.signalDescriptor = int(a)
      AsynchronousNotifier.follow(file)
    case 5, 36: return try queryLock(file, isOpenFileLock: command == 36)
    case 6, 7: try setLock(file, isOpenFileLock: false, waits: command == 7)
    case 37, 38: try setLock(file, isOpenFileLock: true, waits: command == 38)
    case 8, 9, 10, 11, 15, 16: return try controlOwner(file, command)
    case 1024: try setLease(file)
    case 1026:  // F_NOTIFY
      guard file.inode.isDirectory else { throw .notDirectory }
      let notifier = file.directoryWatch ?? DirectoryNotifier(file, descriptor: int(a))
      file.directoryWatch = notifier
      notifier.follow(unsigned(c))
      if file.signalOwner == 0 { file.signalOwner = process.pid }
    case 1025: return Int(file.inode.leaseHolder == nil ? 2 : file.inode.leaseKind)
    case 1031:
      guard let pipe = file as? PipeFile else { throw .badFileDescriptor }
      return try pipe.setCapacity(Int(int(c)))
    case 1032:
      guard let pipe = file as? PipeFile else { throw .badFileDescriptor }
      return pipe.capacity
    case 1033: try addSeals(file)
    case 1034:
      guard let inode = file.inode as? TemporaryFile else { throw .invalid }
      return Int(inode.seals)
    default: throw .invalid
    }
    return 0
  }

  /// F_SETOWN 8, F_GETOWN 9, F_SETSIG 10, F_GETSIG 11, F_SETOWN_EX 15, F_GETOWN_EX 16.
  private func controlOwner(_ file: OpenFile, _ command: Int32) throws(Errno) -> Int {
    switch command {
    case 8:
      guard int(c) != .min else { throw .invalid }
      if int(c) > 0, ProcessTable.process(int(c)) == nil { throw .noSuchProcess }
      if int(c) < 0, ProcessTable.members(ofGroup: -int(c)).isEmpty { throw .noSuchProcess }
      file.ownerKind = int(c) < 0 ? 2 : 1
      file.signalOwner = abs(int(c))
    case 9: return Int(file.ownerKind == 2 ? -file.signalOwner : file.signalOwner)
    case 10:
      guard int(c) >= 0, int(c) <= Signal.last else { throw .invalid }
      file.ownerSignal = int(c)
    case 11: return Int(file.ownerSignal)
    case 15:
      let (kind, number) = try UserSlice.load(c, (Int32(0), Int32(0)))
      guard (0...2).contains(kind) else { throw .invalid }
      if number != 0 {
        let exists =
          kind == 0
          ? ProcessTable.thread(number) != nil
          : kind == 1
            ? ProcessTable.process(number) != nil : !ProcessTable.members(ofGroup: number).isEmpty
        guard exists else { throw .noSuchProcess }
      }
      file.ownerKind = kind
      file.signalOwner = number
    default: try UserSlice.store((file.ownerKind, file.signalOwner), at: c)
    }
    return 0
  }

  /// F_SETLEASE: F_RDLCK 0 while nobody has the file open for writing, F_WRLCK 1 while nobody else has it open.
  private func setLease(_ file: OpenFile) throws(Errno) {
    let inode = file.inode
    let kind = int(c)
    guard (0...2).contains(kind) else { throw .invalid }
    guard process.credentials.isPrivileged || process.fileSystem.credentials.user == inode.status.user
    else { throw .accessDenied }
    guard inode.isRegular else { throw .invalid }
    let isHolder = inode.leaseHolder == ObjectIdentifier(file)
    if kind == 2 {
      guard isHolder else { throw .again }
      inode.leaseHolder = nil
      return
    }
    if kind == 0, inode.writers > 0 { throw .again }
    if kind == 1, inode.opens > 1 { throw .again }
    if inode.leaseHolder != nil, !isHolder { throw .again }
    inode.leaseHolder = ObjectIdentifier(file)
    inode.leaseKind = kind
    if file.signalOwner == 0 {
      file.ownerKind = 1
      file.signalOwner = process.pid
    }
  }

  /// F_ADD_SEALS: EPERM once F_SEAL_SEAL is there, EBUSY for F_SEAL_WRITE while somebody maps the file for writing.
  private func addSeals(_ file: OpenFile) throws(Errno) {
    guard let inode = file.inode as? TemporaryFile, unsigned(c) & ~0x3f == 0 else { throw .invalid }
    guard file.isWritable, inode.seals & 1 == 0 else { throw .notPermitted }
    if c & 8 != 0, inode.mappings > 0 {
      for process in ProcessTable.processes.values {
        for area in process.addressSpace.areas
        where area.inode === inode && area.isShared && area.protection.contains(.write) {
          throw .busy
        }
      }
    }
    inode.seals |= unsigned(c)
  }

  // MARK: Locks

  private func range(_ lock: LinuxLock, _ file: OpenFile, isOpenFileLock: Bool) throws(Errno) -> RecordLock {
    guard (0...2).contains(lock.type) else { throw .invalid }
    if isOpenFileLock, lock.process != 0 { throw .invalid }
    let base: Int64
    switch lock.whence {
    case 0: base = 0
    case 1: base = file.offset
    case 2: base = file.inode.status.size
    default: throw .invalid
    }
    var (start, overflow) = base.addingReportingOverflow(lock.start)
    guard !overflow else { throw .overflow }
    var end = Int64.max
    if lock.length > 0 {
      (end, overflow) = start.addingReportingOverflow(lock.length)
      guard !overflow else { throw .overflow }
    } else if lock.length < 0 {
      end = start
      (start, overflow) = start.addingReportingOverflow(lock.length)
      guard !overflow else { throw .invalid }
    }
    guard start >= 0 else { throw .invalid }
    return RecordLock(
      owner: isOpenFileLock ? ObjectIdentifier(file) : ObjectIdentifier(process.descriptors),
      process: isOpenFileLock ? -1 : process.pid, isExclusive: lock.type == 1, start: start, end: end)
  }

  private func queryLock(_ file: OpenFile, isOpenFileLock: Bool) throws(Errno) -> Int {
    var lock = try UserSlice.load(c, LinuxLock())
    guard lock.type != 2 else { throw .invalid }
    let wanted = try range(lock, file, isOpenFileLock: isOpenFileLock)
    if let held = file.inode.recordLocks?.conflict(wanted) {
      lock.type = held.isExclusive ? 1 : 0
      lock.whence = 0
      lock.start = held.start
      lock.length = held.end == .max ? 0 : held.end - held.start
      lock.process = held.process
    } else {
      lock.type = 2
    }
    try UserSlice.store(lock, at: c)
    return 0
  }

  private func setLock(_ file: OpenFile, isOpenFileLock: Bool, waits: Bool) throws(Errno) {
    let lock = try UserSlice.load(c, LinuxLock())
    let wanted = try range(lock, file, isOpenFileLock: isOpenFileLock)
    if lock.type == 2 {
      file.inode.recordLocks?.unlock(wanted)
      return
    }
    guard lock.type == 0 ? file.isReadable : file.isWritable else { throw .badFileDescriptor }
    let locks = file.inode.recordLocks ?? RecordLocks()
    file.inode.recordLocks = locks
    try locks.take(wanted, waits: waits)
  }

  func flock() throws(Errno) -> Int {
    let file = try file(int(a))
    let operation = int(b) & ~4
    guard operation == 1 || operation == 2 || operation == 8 else { throw .invalid }
    let lock = RecordLock(
      owner: ObjectIdentifier(file), process: -1, isExclusive: operation == 2, start: 0, end: .max)
    if operation == 8 {
      file.inode.fileLocks?.unlock(lock)
      return 0
    }
    let locks = file.inode.fileLocks ?? RecordLocks()
    file.inode.fileLocks = locks
    try locks.take(lock, waits: int(b) & 4 == 0)
    return 0
  }

  // MARK: ioctl(2)

  func ioctl() throws(Errno) -> Int {
    let file = try file(int(a))
    switch unsigned(b) {
    case 0x5421:  // FIONBIO
      let on = try UserSlice.load(c, Int32(0)) != 0
      file.flags = on ? file.flags | SystemCall.isNonblocking : file.flags & ~SystemCall.isNonblocking
    case 0x5452:  // FIOASYNC
      let on = try UserSlice.load(c, Int32(0)) != 0
      file.flags = on ? file.flags | 0o20000 : file.flags & ~0o20000
      file.signalDescriptor = int(a)
      AsynchronousNotifier.follow(file)
    case 0x5451: try process.descriptors.setClosesOnExecution(int(a), true)
    case 0x5450: try process.descriptors.setClosesOnExecution(int(a), false)
    case 0x4004_9409, 0x4020_940d: throw .notSupported  // FICLONE, FICLONERANGE
    case 0x541b where file.inode.isRegular:  // FIONREAD
      let left = max(0, file.inode.currentStatus().size &- file.offset)
      try UserSlice.store(Int32(truncatingIfNeeded: left), at: c)
    case 0x5441:  // TIOCGPTPEER
      guard let master = file as? PseudoTerminalMaster else { throw .notTerminal }
      let flags = unsigned(c) & (0o3 | 0o400 | SystemCall.isNonblocking)
      return try install(
        master.peer(flags: flags), closes: unsigned(c) & SystemCall.closesOnExecution != 0)
    case 0xc018_5879 where process.capabilities.effective & Capabilities.administration == 0:  // FITRIM
      throw .notPermitted
    default: return try file.control(unsigned(b), argument: c)
    }
    return 0
  }

  /// vhangup(2): the caller's terminal. EPERM for all but root.
  func vhangup() throws(Errno) -> Int {
    guard process.credentials.isPrivileged else { throw .notPermitted }
    process.terminal?.hangUpOpenFiles()
    return 0
  }

  // MARK: Synchronisation

  /// Directories in memory have nothing to synchronise, those of volumes do.
  private func hasSynchronization(_ file: OpenFile) -> Bool {
    !file.inode.isDirectory || file.inode.statistics != nil
  }
  func fsync() throws(Errno) -> Int {
    let file = try file(int(a))
    if hasSynchronization(file) { try file.synchronize() }
    return 0
  }
  func fdatasync() throws(Errno) -> Int {
    let file = try file(int(a))
    if hasSynchronization(file) { try file.synchronizeData() }
    return 0
  }
  func sync() throws(Errno) -> Int {
    Volume.synchronizeAll()
    return 0
  }
  func syncfs() throws(Errno) -> Int {
    try file(int(a)).inode.synchronizeFileSystem()
    return 0
  }
  func sync_file_range() throws(Errno) -> Int {
    let file = try file(int(a))
    guard Int(bitPattern: b) >= 0, Int(bitPattern: c) >= 0, unsigned(d) & ~7 == 0 else { throw .invalid }
    if file.inode.type == 0o010000 { throw .illegalSeek }
    return 0
  }
  func fadvise64() throws(Errno) -> Int {
    if try file(int(a)).inode.type == 0o010000 { throw .illegalSeek }
    guard (0...5).contains(int(d)) else { throw .invalid }
    return 0
  }
  func readahead() throws(Errno) -> Int {
    guard try readable(int(a)).inode.isRegular else { throw .invalid }
    return 0
  }
}
