import ABI
import CMachine
import Tasks
import Testing
import VFS

@testable import Processes
@testable import PseudoFileSystems

@Suite("procfs and sysfs", .serialized) struct PseudoFileSystemsTests {
  let machine = FakeHost()
  let first: LinuxThread
  let context: FileSystemContext

  init() throws {
    host = machine
    _ = KernelLock.tryAcquire()
    frames = FakeFrames()
    ProcessTable.reset()
    MountTable.reset()
    first = try ProcessTable.createProcess(parent: nil, block: Self.block())
    Self.enter(first)
    let root = TemporaryFileSystem.makeRoot()
    context = FileSystemContext(
      root: Path(inode: root, name: [], parent: nil), credentials: Credentials(user: 0, group: 0, groups: []))
    for (name, tree) in [
      ("/proc", try PseudoFileSystems.makeProcessRoot()), ("/sys", try PseudoFileSystems.makeSystemRoot()),
    ] {
      try context.makeDirectory(Array(name.utf8), mode: 0o755)
      MountTable.mount(
        tree, on: try context.resolve(Array(name.utf8)).inode, place: Array(name.utf8), type: "proc")
    }
    first.process.fileSystem = context
    first.process.name = Array("init (1)".utf8)
  }

  static func block() -> UnsafeMutablePointer<thread_block> {
    let block = UnsafeMutablePointer<thread_block>.allocate(capacity: 1)
    block.initialize(to: thread_block())
    return block
  }

  static func enter(_ thread: LinuxThread) {
    machine_set_current_thread(Unmanaged.passUnretained(thread).toOpaque())
  }

  func child() throws -> LinuxThread {
    let child = try ProcessTable.createProcess(parent: first.process, block: Self.block())
    child.process.inherit(from: first.process, [])
    return child
  }

  func open(_ path: String, _ flags: UInt32 = 0) throws(Errno) -> OpenFile {
    try context.open(Array(path.utf8), flags: flags, mode: 0o644)
  }

  func read(_ file: OpenFile, _ count: Int = 65536) throws -> String {
    var bytes = [UInt8](repeating: 0, count: count)
    let found = try bytes.withUnsafeMutableBytes { try file.read(UserSlice(kernel: $0)) }
    return String(decoding: bytes[..<found], as: UTF8.self)
  }

  func write(_ file: OpenFile, _ text: String) throws(Errno) {
    let bytes = Array(text.utf8)
    var failure: Errno?
    bytes.withUnsafeBytes { buffer in
      do throws(Errno) { _ = try file.write(UserSlice(kernel: buffer)) } catch { failure = error }
    }
    if let failure { throw failure }
  }

  func text(_ path: String) throws -> String { try read(try open(path)) }

  func code(_ body: () throws(Errno) -> Void) -> Int32 {
    do throws(Errno) {
      try body()
      return 0
    } catch { return error.rawValue }
  }

  func names(_ path: String, space: Int = 4096) throws -> [String] {
    let file = try open(path, 0o200000)
    var list: [String] = []
    while true {
      var bytes = [UInt8](repeating: 0, count: space)
      let count = try bytes.withUnsafeMutableBytes { try file.readDirectory(UserSlice(kernel: $0)) }
      if count == 0 { return list }
      var at = 0
      while at < count {
        let length = Int(bytes[at + 16]) | Int(bytes[at + 17]) << 8
        list.append(String(decoding: bytes[(at + 19)..<(at + length)].prefix { $0 != 0 }, as: UTF8.self))
        at += length
      }
    }
  }

  @Test("stat has 52 fields and the accounting of the host")
  func statFields() throws {
    let stat = try text("/proc/self/stat")
    #expect(stat.hasPrefix("1 (init (1)) R 0 1 1 0 -1 "))
    let fields = stat[stat.lastIndex(of: ")")!...].split(separator: " ")
    #expect(fields.count == 51)
    #expect(fields[12] == "250")
    #expect(try text("/proc/1/task/1/status").contains("\nCpus_allowed:\t7\nCpus_allowed_list:\t0-2\n"))
  }

  @Test("directories list everything once, whatever the size of the buffer")
  func listing() throws {
    for _ in 0..<40 { _ = try child() }
    let whole = try names("/proc", space: 65536)
    #expect(try names("/proc", space: 40) == whole)
    #expect(Set(whole).count == whole.count)
    #expect(whole.contains("41") && whole.contains("meminfo") && whole.contains("self"))
    #expect(try names("/proc/self/fd", space: 32) == [".", ".."])
  }

  @Test("every file that is listed can be looked up, and every text read in two sizes is the same")
  func walk() throws {
    var pending = ["/proc", "/sys"]
    var seen = 0
    while let path = pending.popLast() {
      for name in try names(path) where name != "." && name != ".." {
        let inner = path + "/" + name
        let inode = try context.resolve(Array(inner.utf8), followLast: false).inode
        seen += 1
        if inode.isDirectory { pending.append(inner) }
        guard inode.isRegular, name != "mem", name != "uuid" else { continue }
        let whole = try text(inner)
        let file = try open(inner)
        var parts = ""
        while true {
          let part = try read(file, 7)
          if part.isEmpty { break }
          parts += part
        }
        #expect(parts == whole, "\(inner)")
        #expect(inode.currentStatus().size == 0)
      }
    }
    #expect(seen > 300)
  }

  @Test("a file keeps its text until it is read from the start again")
  func consistency() throws {
    let file = try open("/proc/uptime")
    #expect(try read(file, 2) == "5.")
    machine.now = 9_000_000_000
    #expect(try read(file, 3) == "00 ")
    _ = try file.seek(0, whence: 0)
    #expect(try read(file, 2) == "9.")
  }

  @Test("control files take writes, and truncation means nothing to them")
  func controls() throws {
    let file = try open("/proc/self/comm", 0o1101)
    try write(file, "a name that is too long\n")
    #expect(try text("/proc/self/comm") == "a name that is \n")
    let score = try open("/proc/self/oom_score_adj", 0o1102)
    try write(score, "-7\n")
    #expect(try read(try open("/proc/1/oom_score_adj")) == "-7\n")
    #expect(code { () throws(Errno) in try write(score, "1001") } == 22)
    #expect(code { () throws(Errno) in try write(try open("/proc/version", 1), "x") } == 5)
    #expect(code { () throws(Errno) in _ = try open("/proc/none", 0o101) } == 2)
    #expect(code { () throws(Errno) in try context.makeDirectory(Array("/proc/d".utf8), mode: 0) } != 0)
    #expect(code { () throws(Errno) in try context.unlink(Array("/proc/stat".utf8), directory: false) } == 1)
  }

  @Test("a pipe opens again by its descriptor's link, in the other direction too; a socket does not")
  func reopening() throws {
    let (reader, writer) = Pipe.make()
    _ = try first.process.descriptors.install(reader, closesOnExecution: false)
    _ = try first.process.descriptors.install(writer, closesOnExecution: false)
    let link = try context.resolve(Array("/proc/self/fd/0".utf8), followLast: false)
    #expect(link.inode.status.mode == 0o120500)
    #expect(
      String(decoding: try link.inode.readLink(), as: UTF8.self) == "pipe:[\(reader.inode.status.inode)]")
    let other = try open("/proc/self/fd/0", 1)
    try write(other, "through")
    #expect(try read(reader, 20) == "through")
    #expect(try names("/proc/self/fd") == [".", "..", "0", "1"])
    #expect(code { () throws(Errno) in _ = try open("/proc/self/fd/2") } == 2)
    let socket = OpenFile(inode: PipeInodes.anonymous(mode: 0o140777), flags: 2)
    _ = try first.process.descriptors.install(socket, closesOnExecution: false)
    #expect(code { () throws(Errno) in _ = try open("/proc/self/fd/2", 2) } == 6)
  }

  @Test("a zombie has no memory, descriptors or program; what has gone gives ESRCH and ENOENT")
  func endings() throws {
    let child = try child()
    let pid = child.process.pid
    child.process.commandLine = Array("x\0".utf8)
    let stat = try open("/proc/\(pid)/stat")
    let directory = try context.resolve(Array("/proc/\(pid)".utf8))
    #expect(try text("/proc/\(pid)/cmdline") == "x\0")
    Self.enter(child)
    child.exit(code: 3)
    Self.enter(first)
    #expect(try text("/proc/\(pid)/cmdline") == "")
    #expect(try text("/proc/\(pid)/maps") == "")
    #expect(try read(stat).contains(") Z 1 "))
    #expect(try names("/proc/\(pid)/task") == [".", ".."])
    #expect(try names("/proc/\(pid)/fd") == [".", ".."])
    #expect(code { () throws(Errno) in _ = try context.resolve(Array("/proc/\(pid)/exe".utf8)) } == 2)
    _ = try first.wait(.any, .exited)
    _ = try stat.seek(0, whence: 0)
    #expect(
      code { () throws(Errno) in
        var byte: UInt8 = 0
        var failure: Errno?
        withUnsafeMutableBytes(of: &byte) { buffer in
          do throws(Errno) { _ = try stat.read(UserSlice(kernel: buffer)) } catch { failure = error }
        }
        if let failure { throw failure }
      } == 3)
    #expect(code { () throws(Errno) in _ = try directory.inode.lookup(Array("stat".utf8)) } == 2)
    #expect(code { () throws(Errno) in _ = try open("/proc/\(pid)/stat") } == 2)
  }

  @Test("another user's process shows its status and hides its memory, environment and descriptors")
  func permissions() throws {
    let other = try child()
    other.process.credentials.become(user: 7, group: 7)
    let path = "/proc/\(other.process.pid)"
    context.credentials = Credentials(user: 5, group: 5, groups: [])
    #expect(try text(path + "/status").contains("Uid:\t7\t7\t7\t"))
    #expect(code { () throws(Errno) in _ = try open(path + "/environ") } == 13)
    #expect(code { () throws(Errno) in _ = try open(path + "/fd", 0o200000) } == 13)
    #expect(code { () throws(Errno) in _ = try context.resolve(Array((path + "/cwd").utf8)) } == 13)
    let maps = try open(path + "/maps")
    #expect(throws: Errno.accessDenied) { try read(maps) }
  }

  @Test("numbers of processes have one form")
  func numbers() throws {
    #expect(try context.resolve(Array("/proc/1".utf8)).inode.isDirectory)
    for name in ["01", "1x", "-1", "0", "99999999999999999999", "2"] {
      #expect(code { () throws(Errno) in _ = try context.resolve(Array("/proc/\(name)".utf8)) } == 2)
    }
  }
}
