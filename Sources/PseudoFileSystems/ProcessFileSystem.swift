public import ABI
import Processes
import Tasks
public import VFS

/// The procfs and the sysfs (proc(5), sysfs(5)), each made once at start. Kernel lock held.
public enum PseudoFileSystems {
  /// What is mounted at /proc.
  public static func makeProcessRoot() throws(Errno) -> Inode { ProcessRoot() }

  /// What is mounted at /sys.
  public static func makeSystemRoot() throws(Errno) -> Inode { SystemFiles.make() }
}

/// /proc: the system's files, then a directory a process.
final class ProcessRoot: FixedDirectory {
  /// Cookies of processes start here.
  private static let firstProcess: Int64 = 256
  private let network = NetworkFiles.make()

  init() {
    super.init(device: PseudoFileSystem.processDevice)
    let device = PseudoFileSystem.processDevice
    add(
      bytes("self"),
      PseudoLink(status: PseudoFileSystem.status(mode: 0o120777, device: device)) {
        () throws(Errno) -> [UInt8] in decimal(UInt64(LinuxThread.running.process.pid))
      })
    add(
      bytes("thread-self"),
      PseudoLink(status: PseudoFileSystem.status(mode: 0o120777, device: device)) {
        () throws(Errno) -> [UInt8] in
        let thread = LinuxThread.running
        return decimal(UInt64(thread.process.pid)) + bytes("/task/") + decimal(UInt64(thread.tid))
      })
    add("mounts", linkTo: bytes("self/mounts"))
    add("net", linkTo: bytes("self/net"))
    SystemInformation.fill(self)
    ProcessorInformation.fill(self)
    add(bytes("sys"), KernelSettings.make())
  }

  override func lookup(_ name: [UInt8]) throws(Errno) -> Inode {
    if let pid = identifier(name) {
      // Threads have directories too that no listing shows.
      if let process = ProcessTable.process(pid) ?? ProcessTable.thread(pid)?.process {
        return ProcessDirectory(ProcessSubject(process, network: network))
      }
      throw .noSuchFile
    }
    return try super.lookup(name)
  }

  override func entries(after cookie: Int64) throws(Errno) -> [Entry] {
    var list = try super.entries(after: cookie)
    var numbers: [Int32] = []
    for pid in ProcessTable.processes.keys where ProcessRoot.firstProcess + Int64(pid) > cookie {
      numbers.append(pid)
    }
    numbers.sort()
    for pid in numbers {
      list.append(
        Entry(
          name: decimal(UInt64(pid)), inode: ProcessSubject.inode(pid, isThread: false), mode: 0o040555,
          cookie: ProcessRoot.firstProcess + Int64(pid)))
    }
    return list
  }
}

/// A process or thread number in its one decimal form; nil for anything else.
func identifier(_ name: [UInt8]) -> Int32? {
  guard let first = name.first, first != 0x30 || name.count == 1, name.count <= 9 else { return nil }
  var value: Int32 = 0
  for byte in name {
    guard byte >= 0x30, byte <= 0x39 else { return nil }
    value = value * 10 + Int32(byte - 0x30)
  }
  return value
}
