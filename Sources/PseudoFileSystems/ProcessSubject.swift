import ABI
import Processes
import Tasks
import VFS

/// Whom a directory of /proc tells about: a process, or one thread of it. Checked again at each use, because the
/// process may have gone meanwhile and its number may be another's.
final class ProcessSubject {
  let process: Process
  /// Nil for the process's own directory.
  let task: LinuxThread?
  let network: Inode

  init(_ process: Process, task: LinuxThread? = nil, network: Inode) {
    self.process = process
    self.task = task
    self.network = network
  }

  var isThere: Bool {
    guard ProcessTable.process(process.pid) === process else { return false }
    guard let task else { return true }
    return ProcessTable.thread(task.tid) === task && task.process === process
  }

  /// The thread whose state is shown: the leader, or another when it has left; nil for a zombie.
  var thread: LinuxThread? { task ?? leader ?? process.threads.first }
  private var leader: LinuxThread? { ProcessTable.thread(process.pid) }
  var identifier: Int32 { task?.tid ?? process.pid }

  func check(_ error: Errno = .noSuchProcess) throws(Errno) {
    guard isThere else { throw error }
  }

  /// ptrace(2), "Ptrace access mode checking": the same user and group by all ids, and dumpable; or root. EACCES.
  func checkInspection() throws(Errno) {
    let caller = LinuxThread.running.process
    if caller === process { return }
    let asker = caller.fileSystem.credentials
    if asker.isPrivileged { return }
    let owner = process.credentials
    guard owner.realUser == asker.user, owner.effectiveUser == asker.user, owner.savedUser == asker.user,
      owner.realGroup == asker.group, owner.effectiveGroup == asker.group, owner.savedGroup == asker.group,
      process.dumpable == 1
    else { throw .accessDenied }
  }

  /// One number a place: the process or thread, what in it, and the descriptor.
  static func inode(_ number: Int32, isThread: Bool, kind: Int = 0, descriptor: Int = 0) -> UInt64 {
    let place = UInt64(UInt32(bitPattern: number)) << 28 | UInt64(kind) << 20 | UInt64(descriptor & 0xf_ffff)
    return place | (isThread ? 1 << 61 : 1 << 60)
  }

  /// A file of this directory, owned as proc(5) says: by the process's effective ids, or root if it is not dumpable.
  func status(mode: UInt32, kind: Int, descriptor: Int = 0) -> FileStatus {
    var status = PseudoFileSystem.status(
      mode: mode, device: PseudoFileSystem.processDevice,
      inode: ProcessSubject.inode(identifier, isThread: task != nil, kind: kind, descriptor: descriptor))
    if process.dumpable == 1 || mode == 0o040555 {
      status.user = process.credentials.effectiveUser
      status.group = process.credentials.effectiveGroup
    }
    if mode & 0o170000 == 0o040000 { status.links = 2 }
    return status
  }

  /// R, S, T, t or Z as in proc(5).
  var state: UInt8 {
    if process.isZombie { return 0x5a }
    guard let thread else { return 0x5a }
    if thread.tracing?.stop != nil { return 0x74 }
    if process.isStopped, thread.tracing == nil { return 0x54 }
    return thread.isParked ? 0x53 : 0x52
  }
}
