import ABI
import Processes
import VFS

/// /proc/PID and /proc/PID/task/TID.
final class ProcessDirectory: PseudoDirectory {
  private let subject: ProcessSubject

  init(_ subject: ProcessSubject) {
    self.subject = subject
    super.init(status: subject.status(mode: 0o040555, kind: 0))
    status.links = subject.task == nil ? 9 : 7
  }

  override func lookup(_ name: [UInt8]) throws(Errno) -> Inode {
    try subject.check(.noSuchFile)
    for (index, entry) in ProcessDirectory.names.enumerated()
    where bytes(entry.name) == name && isShown(entry) {
      return make(entry, index + 1)
    }
    throw .noSuchFile
  }

  override func processNumber() throws(Errno) -> Int32 {
    guard subject.task == nil else { throw .badFileDescriptor }
    try subject.check()
    return subject.process.pid
  }

  override func entries(after cookie: Int64) throws(Errno) -> [Entry] {
    try subject.check(.noSuchFile)
    var list: [Entry] = []
    for (index, entry) in ProcessDirectory.names.enumerated()
    where Int64(index + 3) > cookie && isShown(entry) {
      list.append(
        Entry(
          name: bytes(entry.name),
          inode: ProcessSubject.inode(
            subject.identifier, isThread: subject.task != nil, kind: index + 1), mode: entry.mode,
          cookie: Int64(index + 3)))
    }
    return list
  }

  private func isShown(_ name: Name) -> Bool {
    name.isForAll || (subject.task == nil) == name.isForProcesses
  }

  private func make(_ name: Name, _ number: Int) -> Inode {
    let subject = subject
    let status = subject.status(mode: name.mode, kind: number)
    switch name.kind {
    case .task: return TaskDirectory(subject, status: status)
    case .descriptors: return DescriptorDirectory(subject, number, status: status, isInformation: false)
    case .descriptorInformation:
      return DescriptorDirectory(subject, number, status: status, isInformation: true)
    case .executable: return ProcessPathLink(subject, .executable, status: status)
    case .workingDirectory: return ProcessPathLink(subject, .workingDirectory, status: status)
    case .root: return ProcessPathLink(subject, .root, status: status)
    case .network: return subject.network
    case .memory: return ProcessMemory(subject, status: status)
    case .text(let content, let isInspection):
      return TextFile(
        status: status,
        content: { () throws(Errno) -> [UInt8] in
          try subject.check()
          if isInspection { try subject.checkInspection() }
          return try content(subject)
        })
    case .control(let content, let store):
      return TextFile(
        status: status,
        content: { () throws(Errno) -> [UInt8] in
          try subject.check()
          return try content(subject)
        },
        store: { (text: [UInt8]) throws(Errno) in
          try subject.check()
          try store(subject, text)
        })
    }
  }

  struct Name {
    let name: StaticString
    let mode: UInt32
    let kind: Kind
    /// In directories of processes and of tasks; else `isForProcesses` tells in which.
    var isForAll = true
    var isForProcesses = true
  }

  enum Kind {
    case task, descriptors, descriptorInformation, executable, workingDirectory, root, network, memory
    case text((ProcessSubject) throws(Errno) -> [UInt8], isInspection: Bool)
    case control((ProcessSubject) throws(Errno) -> [UInt8], (ProcessSubject, [UInt8]) throws(Errno) -> Void)
  }

  /// Made when first used: the libOS's globals start out as plain data.
  nonisolated(unsafe) private static var table: [Name] = []
  private static var names: [Name] {
    if table.isEmpty { table = makeNames() }
    return table
  }

  private static func makeNames() -> [Name] {
    func text(
      _ name: StaticString, _ content: @escaping (ProcessSubject) throws(Errno) -> [UInt8],
      isPrivate: Bool = false,
      mode: UInt32 = 0o444
    ) -> Name { Name(name: name, mode: 0o100000 | mode, kind: .text(content, isInspection: isPrivate)) }
    func control(
      _ name: StaticString, _ content: @escaping (ProcessSubject) throws(Errno) -> [UInt8],
      _ store: @escaping (ProcessSubject, [UInt8]) throws(Errno) -> Void
    ) -> Name { Name(name: name, mode: 0o100644, kind: .control(content, store)) }
    return [
      Name(name: "task", mode: 0o040555, kind: .task, isForAll: false),
      Name(name: "fd", mode: 0o040500, kind: .descriptors),
      Name(name: "fdinfo", mode: 0o040555, kind: .descriptorInformation),
      Name(name: "net", mode: 0o040555, kind: .network),
      text("environ", MemoryFiles.environment, isPrivate: true, mode: 0o400),
      text("auxv", MemoryFiles.auxiliaryVector, isPrivate: true, mode: 0o400),
      text("status", StatusFiles.status), text("stat", StatusFiles.stat), text("statm", MemoryFiles.statm),
      text("personality", StatusFiles.personality, isPrivate: true, mode: 0o400),
      text("limits", StatusFiles.limits), control("comm", StatusFiles.name, StatusFiles.setName),
      text("cmdline", MemoryFiles.commandLine), text("maps", MemoryFiles.maps, isPrivate: true),
      text("smaps", MemoryFiles.smaps, isPrivate: true),
      text("smaps_rollup", MemoryFiles.smapsRollup, isPrivate: true),
      text("numa_maps", MemoryFiles.numaMaps, isPrivate: true),
      Name(name: "mem", mode: 0o100600, kind: .memory),
      Name(name: "cwd", mode: 0o120777, kind: .workingDirectory),
      Name(name: "root", mode: 0o120777, kind: .root), Name(name: "exe", mode: 0o120777, kind: .executable),
      text("mounts", MountFiles.mounts), text("mountinfo", MountFiles.mountInformation),
      text("wchan", StatusFiles.waitChannel),
      text("stack", StatusFiles.kernelStack, isPrivate: true, mode: 0o400),
      text("schedstat", StatusFiles.schedulerStatistics), text("cgroup", StatusFiles.controlGroup),
      text("cpuset", StatusFiles.processorSet), text("oom_score", StatusFiles.memoryScore),
      control("oom_adj", StatusFiles.oldMemoryAdjustment, StatusFiles.setOldMemoryAdjustment),
      control("oom_score_adj", StatusFiles.memoryAdjustment, StatusFiles.setMemoryAdjustment),
      control("loginuid", StatusFiles.loginUser, StatusFiles.setLoginUser),
      text("sessionid", StatusFiles.loginSession),
      control("coredump_filter", StatusFiles.dumpFilter, StatusFiles.ignore),
      text("io", StatusFiles.transfers, isPrivate: true, mode: 0o400),
      control("uid_map", StatusFiles.identityMap, StatusFiles.refuse),
      control("gid_map", StatusFiles.identityMap, StatusFiles.refuse),
      control("setgroups", StatusFiles.setGroups, StatusFiles.refuse),
      Name(
        name: "children", mode: 0o100444, kind: .text(StatusFiles.children, isInspection: false),
        isForAll: false,
        isForProcesses: false),
    ]
  }
}

/// /proc/PID/task.
final class TaskDirectory: PseudoDirectory {
  private let subject: ProcessSubject

  init(_ subject: ProcessSubject, status: FileStatus) {
    self.subject = subject
    super.init(status: status)
    self.status.links = UInt32(2 + subject.process.threads.count)
  }

  override func lookup(_ name: [UInt8]) throws(Errno) -> Inode {
    try subject.check(.noSuchFile)
    guard let tid = identifier(name), let thread = ProcessTable.thread(tid),
      thread.process === subject.process
    else { throw .noSuchFile }
    return ProcessDirectory(ProcessSubject(subject.process, task: thread, network: subject.network))
  }

  override func entries(after cookie: Int64) throws(Errno) -> [Entry] {
    try subject.check(.noSuchFile)
    var numbers: [Int32] = []
    for thread in subject.process.threads where Int64(thread.tid) + 2 > cookie { numbers.append(thread.tid) }
    numbers.sort()
    var list: [Entry] = []
    for tid in numbers {
      list.append(
        Entry(
          name: decimal(UInt64(tid)), inode: ProcessSubject.inode(tid, isThread: true), mode: 0o040555,
          cookie: Int64(tid) + 2))
    }
    return list
  }
}

/// /proc/PID/fd and fdinfo.
final class DescriptorDirectory: PseudoDirectory {
  private let subject: ProcessSubject
  private let kind: Int
  private let isInformation: Bool

  init(_ subject: ProcessSubject, _ kind: Int, status: FileStatus, isInformation: Bool) {
    self.subject = subject
    self.kind = kind
    self.isInformation = isInformation
    super.init(status: status)
  }

  private func check() throws(Errno) {
    try subject.check(.noSuchFile)
    try subject.checkInspection()
  }

  override func lookup(_ name: [UInt8]) throws(Errno) -> Inode {
    try check()
    guard !subject.process.isZombie, let descriptor = identifier(name),
      let file = subject.process.descriptors.find(descriptor)
    else { throw .noSuchFile }
    let subject = subject
    if isInformation {
      return TextFile(
        status: subject.status(mode: 0o100444, kind: kind, descriptor: Int(descriptor)),
        content: { () throws(Errno) -> [UInt8] in
          try subject.check(.noSuchFile)
          try subject.checkInspection()
          return try MountFiles.descriptorInformation(subject.process, descriptor)
        })
    }
    let mode = DescriptorDirectory.mode(file)
    return DescriptorLink(
      subject, descriptor, status: subject.status(mode: mode, kind: kind, descriptor: Int(descriptor)))
  }

  /// Links have the permissions that the descriptor was opened with (proc(5)); O_PATH ones have none.
  private static func mode(_ file: OpenFile) -> UInt32 {
    if file.flags & 0o10000000 != 0 { return 0o120000 }
    return 0o120100 | (file.isReadable ? 0o400 : 0) | (file.isWritable ? 0o200 : 0)
  }

  override func entries(after cookie: Int64) throws(Errno) -> [Entry] {
    try check()
    guard !subject.process.isZombie else { return [] }
    var list: [Entry] = []
    for (descriptor, file) in subject.process.descriptors.open where Int64(descriptor) + 3 > cookie {
      list.append(
        Entry(
          name: decimal(UInt64(descriptor)),
          inode: ProcessSubject.inode(
            subject.identifier, isThread: subject.task != nil, kind: kind, descriptor: Int(descriptor)),
          mode: isInformation ? 0o100444 : DescriptorDirectory.mode(file), cookie: Int64(descriptor) + 3))
    }
    return list
  }
}

/// /proc/PID/fd/N: leads to the file itself, which is opened anew.
final class DescriptorLink: MagicLink {
  private let subject: ProcessSubject
  private let descriptor: Int32

  init(_ subject: ProcessSubject, _ descriptor: Int32, status: FileStatus) {
    self.subject = subject
    self.descriptor = descriptor
    super.init(status: status)
    self.status.size = 64
  }

  private func file() throws(Errno) -> OpenFile {
    try subject.check(.noSuchFile)
    try subject.checkInspection()
    guard !subject.process.isZombie, let file = subject.process.descriptors.find(descriptor) else {
      throw .noSuchFile
    }
    return file
  }

  override func destination() throws(Errno) -> Path {
    let file = try file()
    return file.path ?? Path(inode: file.inode, name: [], parent: nil)
  }

  override func readLink() throws(Errno) -> [UInt8] { try file().linkText }
}

/// /proc/PID/exe, cwd and root.
final class ProcessPathLink: MagicLink {
  enum Kind { case executable, workingDirectory, root }
  private let subject: ProcessSubject
  private let kind: Kind

  init(_ subject: ProcessSubject, _ kind: Kind, status: FileStatus) {
    self.subject = subject
    self.kind = kind
    super.init(status: status)
  }

  override func destination() throws(Errno) -> Path {
    try subject.check(.noSuchFile)
    try subject.checkInspection()
    let process = subject.process
    guard !process.isZombie, let context = process.fileSystem else { throw .noSuchFile }
    switch kind {
    case .executable:
      guard let path = process.executable else { throw .noSuchFile }
      return path
    case .workingDirectory: return context.workingDirectory
    case .root: return context.root
    }
  }

  override func readLink() throws(Errno) -> [UInt8] {
    let path = try destination()
    return path.inode.status.links == 0 ? path.absolute + bytes(" (deleted)") : path.absolute
  }
}
