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
    let root = try mountRoot().root()
    let owner = Credentials(user: 0, group: 0, groups: [])
    let context = FileSystemContext(root: Path(inode: root, name: [], parent: nil), credentials: owner)
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

  private func mountSystem(_ context: FileSystemContext) throws(Errno) {
    let device = TemporaryFileSystem.makeRoot()
    try DeviceTable.populate(device)
    MountTable.mountRoot(context.root.inode, type: "ext4", source: "/dev/root")
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
        fail("a volume cannot be mounted because of:\n", error.reason)
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
      OutgoingFrames.flush()
      host.exit(status: status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f))
    }
    switch options.trace {
    case .systemCalls: Trace.systemCalls = true
    case .missing: Trace.missing = true
    default: break
    }
  }
}
