import ABI
import Ext4
import Image
import LinuxHost
import Processes
import PseudoFileSystems
import Syscalls
import Tasks
import VFS

extension StartUp {
  /// Builds the first process's world: files, descriptors, hooks.
  func build() throws(Errno) {
    let root = TemporaryFileSystem.makeRoot()
    let owner = Credentials(user: 0, group: 0, groups: [])
    let context = FileSystemContext(root: Path(inode: root, name: [], parent: nil), credentials: owner)
    try unpack(into: root, context)
    try mountSystem(context)
    try mountVolumes(context)
    let process = thread.process
    process.fileSystem = context
    process.credentials.become(user: manifest.user.uid, group: manifest.user.gid)
    ownAnonymousFiles()
    try openConsole(process)
    hook()
    try configureNetwork(context)
    context.credentials = Credentials(user: manifest.user.uid, group: manifest.user.gid, groups: [])
    if let place = try? context.resolve(manifest.workingDirectory), place.inode.isDirectory {
      context.workingDirectory = place
    }
    if manifest.processes > 0 { ProcessTable.maximumThreads = Int(manifest.processes) }
  }

  /// Puts the image's archive into the root; files' content stays in the image. Entries are checked: parents come first.
  private func unpack(into root: Inode, _ context: FileSystemContext) throws(Errno) {
    var inodes: [Inode?] = []
    var directories: [[UInt8]: Inode] = [[]: root]
    for i in 0..<reader.entryCount {
      let entry = reader.entry(i)
      let path = Array(entry.path)
      if path.isEmpty {
        try root.setAttributes(mode: entry.mode & 0o7777, user: entry.uid, group: entry.gid)
        inodes.append(root)
        continue
      }
      let cut = path.lastIndex(of: 0x2f)
      let name = Array(path[(cut.map { $0 + 1 } ?? 0)...])
      guard let parent = directories[cut.map { Array(path[..<$0]) } ?? []] else { throw .noSuchFile }
      if let original = entry.hardLinkIndex, let inode = inodes[original] {
        try parent.link(name, to: inode)
        inodes.append(inode)
        continue
      }
      let isLink = entry.mode & 0o170000 == 0o120000
      let inode = try parent.create(
        name, mode: entry.mode, user: entry.uid, group: entry.gid, device: UInt64(entry.rdev),
        target: isLink ? Array(entry.data) : [])
      if let file = inode as? TemporaryFile, entry.data.count > 0 {
        file.show(entry.data, imageOffset: UInt(entry.dataOffset))
      }
      if inode.isDirectory { directories[path] = inode }
      let time = entry.mtimeSeconds &* 1_000_000_000 &+ UInt64(entry.mtimeNanoseconds)
      inode.status.modified = time
      inodes.append(inode)
    }
  }

  private func mountSystem(_ context: FileSystemContext) throws(Errno) {
    let device = TemporaryFileSystem.makeRoot()
    try DeviceTable.populate(device)
    MountTable.mountRoot(context.root.inode)
    try mount(device, "/dev", "tmpfs", context)
    try mount(PseudoTerminalDirectory(), "/dev/pts", "devpts", context)
    PseudoTerminalDirectory.mounted = try context.resolve(bytes("/dev/pts"))
    try mount(try PseudoFileSystems.makeProcessRoot(), "/proc", "proc", context)
    try mount(try PseudoFileSystems.makeSystemRoot(), "/sys", "sysfs", context)
  }

  private func mount(_ root: Inode, _ name: StaticString, _ type: StaticString, _ context: FileSystemContext)
    throws(Errno)
  {
    if (try? context.resolve(bytes(name))) == nil { try context.makeDirectory(bytes(name), mode: 0o755) }
    MountTable.mount(root, on: try context.resolve(bytes(name)).inode, place: bytes(name), type: type)
  }

  /// What a process makes without a name belongs to it; the console belongs to the image's user.
  private func ownAnonymousFiles() {
    PipeInodes.owner = {
      let owner = LinuxThread.running.process.credentials
      return (owner.effectiveUser, owner.effectiveGroup)
    }
  }

  /// The volumes of `-v`; a file system that cannot be mounted ends the start with the reason.
  private func mountVolumes(_ context: FileSystemContext) throws(Errno) {
    for (number, volume) in options.volumes.enumerated() {
      guard number < host.diskCount else { throw .noSuchDevice }
      let mounted: Volume
      do throws(MountError) {
        let disk = Disk(number: number, isReadOnly: volume.isReadOnly)
        mounted = try Volume(disk, isReadOnly: volume.isReadOnly)
      } catch {
        let text: StaticString = "swiftlet: a volume cannot be mounted because of:\n"
        text.withUTF8Buffer { _ = try? host.writeConsole(2, UnsafeRawBufferPointer($0)) }
        host.fail(error.reason, status: 125)
      }
      let root = try mounted.root()
      try makeDirectories(volume.path, context)
      MountTable.mount(
        root, on: try context.resolve(volume.path).inode, place: volume.path, type: "ext4",
        flags: volume.isReadOnly ? 1 : 0)
    }
  }

  private func makeDirectories(_ path: [UInt8], _ context: FileSystemContext) throws(Errno) {
    for end in 1...path.count where end == path.count || path[end] == 0x2f {
      let part = Array(path[..<end])
      if (try? context.resolve(part)) == nil { try context.makeDirectory(part, mode: 0o755) }
    }
  }

  private func openConsole(_ process: Process) throws(Errno) {
    Terminal.jobControl = JobControl()
    if options.terminal { return try openTerminal(process) }
    for stream in 0..<3 {
      _ = try process.descriptors.install(ConsoleFile(stream: stream), closesOnExecution: false)
    }
  }

  /// `swiftlet run -t`: the host's terminal is ours, and the controlling one of the first process's session.
  private func openTerminal(_ process: Process) throws(Errno) {
    let console = ConsoleTerminal(size: size)
    TerminalMultiplexer.console = console
    guard let inode = console.inode else { throw .noSuchDevice }
    try inode.setAttributes(mode: nil, user: manifest.user.uid, group: nil)
    let path = try process.fileSystem.resolve(bytes("/dev/pts/0"))
    let file = try console.open(inode: inode, flags: 2)
    file.path = path
    for _ in 0..<3 { _ = try process.descriptors.install(file, closesOnExecution: false) }
  }

  private func hook() {
    ProcessTable.releaseResources = { process in
      process.descriptors.leave()
      process.addressSpace = AddressSpace()
    }
    FileSystemContext.isExecuted = { inode in
      for process in ProcessTable.processes.values where !process.isZombie {
        if let path = process.executable, path.inode === inode { return true }
      }
      return false
    }
    TemporaryFile.sizeLimit = {
      Int64(min(LinuxThread.running.process.limits[ResourceLimit.fileSize].soft, UInt64(Int64.max)))
    }
    Inode.wasTruncated = AddressSpace.fileWasResized
    ProcessTable.initEnded = { status in
      TerminalMultiplexer.console?.drain()
      Volume.unmountAll()
      host.exit(status: status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f))
    }
    switch options.trace {
    case .systemCalls: Trace.systemCalls = true
    case .missing: Trace.missing = true
    default: break
    }
  }
}
