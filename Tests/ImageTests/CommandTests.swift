import Glibc
import Image
import ImageBuilder
import Testing

/// Runs `swiftlet` with /bin/true or another program as a stand-in for the libOS.
private func swiftlet(_ arguments: [String], libOS: String = "/bin/true") throws -> ProcessOutcome {
  try runProcess([swiftletPath()] + arguments, environment: ["SWIFTLET_LIBOS=\(libOS)"])
}

/// The modes of all files of a root, by path.
private func files(_ root: ImageRoot) throws -> [String: UInt32] {
  var modes: [String: UInt32] = [:]
  try root.visit { (path, inode) throws(BuildError) in modes[path.text] = inode.mode }
  return modes
}

@Suite("The swiftlet command")
struct CommandTests {
  private func expectFailure(
    _ arguments: [String], _ status: Int32, _ message: String, libOS: String = "/bin/true"
  ) throws {
    let outcome = try swiftlet(arguments, libOS: libOS)
    #expect(outcome.status == status)
    #expect(outcome.errors.hasPrefix("swiftlet: ") && outcome.errors.contains(message), "\(outcome.errors)")
    #expect(outcome.errors.filter { $0 == "\n" }.count == 1)
    #expect(outcome.output.isEmpty)
  }

  @Test("A built image holds the program with its loader, libraries and links")
  func build() throws {
    let directory = try TemporaryDirectory()
    let image = directory.path + "/image"
    let outcome = try swiftlet(
      [
        "build", "-o", image, "--user", "www-data", "--memory", "64m", "-e", "A=B", "/usr/bin/env", "--",
        "-i", "C=D",
      ])
    #expect(outcome.status == 0 && outcome.errors.isEmpty && outcome.output.isEmpty)
    var status = stat()
    #expect(lstat(image, &status) == 0 && status.st_mode == 0o100755)
    try directory.read("image").withUnsafeBytes { buffer in
      let reader = try ImageReader(buffer)
      #expect(reader.manifest.program == bytes("/usr/bin/env"))
      #expect(reader.manifest.arguments == [bytes("/usr/bin/env"), bytes("-i"), bytes("C=D")])
      #expect(reader.manifest.user == UserIdentity(uid: 33, gid: 33))
      #expect(reader.manifest.memory == 64 << 20)
      #expect(reader.manifest.environment.contains(bytes("A=B")))
      let root = try ImageRoot(reader)
      let paths = try files(root).keys
      for path in ["usr/bin/env", "lib64", "tmp", "etc/passwd", "proc"] { #expect(paths.contains(path)) }
      #expect(paths.contains { $0.hasSuffix("libc.so.6") })
      #expect(try root.data(of: "usr/bin/env") == MappedFile(Path("/usr/bin/env")).copy())
    }
    #expect(try swiftlet(["inspect", image]).output.contains("/usr/bin/env"))
  }

  @Test("A script brings its interpreter, and --add keeps modes, links and hard links")
  func scriptAndAdditions() throws {
    let directory = try TemporaryDirectory()
    let script = try directory.write("script", bytes("#!/bin/sh -e\nexit 0\n"), mode: 0o755)
    mkdir(directory.path + "/data", 0o750)
    let file = try directory.write("data/a", bytes("content"), mode: 0o640)
    link(file, directory.path + "/data/b")
    symlink("a", directory.path + "/data/c")
    let image = directory.path + "/image"
    let outcome = try swiftlet(["build", "-o", image, script, "--add", "\(directory.path)/data:/srv/data"])
    #expect(outcome.errors.isEmpty)
    try directory.read("image").withUnsafeBytes { buffer in
      let root = try ImageRoot(try ImageReader(buffer))
      let modes = try files(root)
      #expect(modes["srv/data"] == 0o040750)
      #expect(modes["srv/data/a"] == 0o100640)
      #expect(modes["srv/data/c"] == 0o120777)
      #expect(root.data(of: "srv/data/b") == bytes("content"))
      #expect(modes.keys.contains { $0 == "usr/bin/sh" || $0 == "bin/sh" })
    }
  }

  @Test("A program may be named by a relative path")
  func relativePath() throws {
    let directory = try TemporaryDirectory()
    try directory.write("program", MappedFile(Path("/usr/bin/env")).copy(), mode: 0o755)
    let command = "cd \(directory.path) && \(swiftletPath()) build -o image ./program"
    let outcome = try runProcess(["/bin/sh", "-c", command], environment: ["SWIFTLET_LIBOS=/bin/true"])
    #expect(outcome.status == 0 && outcome.errors.isEmpty, "\(outcome.errors)")
    try directory.read("image").withUnsafeBytes { buffer in
      let program = try ImageReader(buffer).manifest.program
      #expect(program == bytes(directory.path + "/program"))
    }
  }

  @Test("A directory becomes the root file system, its program checked")
  func rootDirectory() throws {
    let directory = try TemporaryDirectory()
    mkdir(directory.path + "/root", 0o755)
    try directory.write("root/program", MappedFile(Path("/usr/bin/env")).copy(), mode: 0o755)
    let image = directory.path + "/image"
    try expectFailure(
      ["build", "-o", image, "--root", directory.path + "/root", "--", "/program"], 125,
      "/program needs the program interpreter /lib64/ld-linux-x86-64.so.2")
    #expect(access(image, F_OK) != 0)
  }

  @Test("Additions and made-up directories go where the root's symbolic links lead")
  func linksInRoot() throws {
    let directory = try TemporaryDirectory()
    let root = directory.path + "/root"
    for name in ["", "/usr", "/usr/lib64", "/data", "/srv"] { mkdir(root + name, 0o755) }
    symlink("usr/lib64", root + "/lib64")
    symlink("data", root + "/var")
    symlink(root, directory.path + "/link")
    for (source, name) in [
      ("/usr/bin/env", "env"), ("/lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"),
      ("/lib/x86_64-linux-gnu/libc.so.6", "usr/lib64/libc.so.6"),
    ] {
      try directory.write("root/" + name, MappedFile(Path(source)).copy(), mode: 0o755)
    }
    mkdir(directory.path + "/more", 0o755)
    try directory.write("more/file", bytes("x"))
    let outcome = try swiftlet([
      "build", "-o", directory.path + "/image", "--root", directory.path + "/link",
      "--add", "\(directory.path)/more:/lib64", "--", "/env",
    ])
    #expect(outcome.status == 0 && outcome.errors.isEmpty, "\(outcome.errors)")
    try directory.read("image").withUnsafeBytes { buffer in
      let root = try ImageRoot(try ImageReader(buffer))
      #expect(root.data(of: "usr/lib64/file") == bytes("x"))
      #expect(try files(root).keys.contains("data/tmp"))
    }
  }

  @Test("A missing library is named, and so is who needs it")
  func missingLibrary() throws {
    let directory = try TemporaryDirectory()
    var program = try MappedFile(Path("/usr/bin/env")).copy()
    let name = bytes("libc.so.6\0")
    let position = try #require(
      (0..<program.count - 10).first { program[$0..<($0 + 10)].elementsEqual(name) })
    program[position + 3] = UInt8(ascii: "X")
    let file = try directory.write("program", program, mode: 0o755)
    try expectFailure(
      ["build", "-o", directory.path + "/image", file], 125, "\(file) needs the shared library libX.so.6")
  }

  @Test("run executes the image itself: the status is the image's")
  func run() throws {
    let directory = try TemporaryDirectory()
    for (libOS, status) in [("/bin/true", 0), ("/bin/false", 1)] as [(String, Int32)] {
      let image = directory.path + "/image"
      #expect(try swiftlet(["build", "-o", image, "env"], libOS: libOS).status == 0)
      #expect(try swiftlet(["run", "--rm", image, "--help"]).status == status)
      #expect(try swiftlet(["run", "env", "-x"], libOS: libOS).status == status)
    }
  }

  @Test("The image's environment holds the launch record's descriptor and nothing else")
  func environment() throws {
    let outcome = try swiftlet(["run", "-e", "SECRET=1", "env"], libOS: "/usr/bin/env")
    #expect(outcome.output.hasPrefix("SWIFTLET_LAUNCH_FD="))
    #expect(outcome.output.filter { $0 == "\n" }.count == 1)
  }

  @Test("Wrong images and programs are refused with one line")
  func wrongFiles() throws {
    let directory = try TemporaryDirectory()
    let image = directory.path + "/image"
    #expect(try swiftlet(["build", "-o", image, "env"]).status == 0)
    let whole = try directory.read("image")
    let cut = try directory.write("cut", Array(whole.dropLast(70)), mode: 0o755)
    try expectFailure(["run", cut], 126, "truncated image")
    try expectFailure(["inspect", cut], 126, "truncated image")
    var damaged = whole
    damaged[whole.count - 70] ^= 1
    damaged[whole.count - 90] ^= 1
    try expectFailure(["run", try directory.write("damaged", damaged, mode: 0o755)], 126, "checksum")
    var foreign = try MappedFile(Path("/bin/true")).copy()
    foreign[18] = 183
    try expectFailure(["run", try directory.write("foreign", foreign, mode: 0o755)], 126, "another machine")
    try expectFailure(["run", "/bin/true"], 125, "libOS", libOS: "/nonexistent")
    try expectFailure(["inspect", "/bin/true"], 126, "not a Swiftlet image")
    try expectFailure(["run", "/etc/passwd"], 126, "neither an ELF program nor a script")
    try expectFailure(["run", directory.path], 126, "not a regular file")
    try expectFailure(["run", "/nonexistent"], 127, "No such file")
    try expectFailure(["run", "no-such-program"], 127, "not found in PATH")
    try expectFailure(["build", "-o", image, "no-such-program"], 127, "not found in PATH")
    try expectFailure(["build", "-o", "/nonexistent/image", "env"], 125, "No such file")
  }

  @Test(
    "Wrong options are refused with one line",
    arguments: [
      (["run", "-m", "1m", "env"], "too little"), (["run", "-m", "x", "env"], "not a size"),
      (["run", "-t", "env"], "needs a terminal"), (["run", "-p", "80", "env"], "HOST:GUEST"),
      (["run", "-p", "70000:1", "env"], "HOST:GUEST"), (["run", "-p", "1:1/sctp", "env"], "HOST:GUEST"),
      (["run", "--net", "bridge", "env"], "user, tap:NAME or none"),
      (["run", "--net", "none", "-p", "8080:80", "env"], "-p needs"),
      (["run", "--net", "tap:interface-name-too-long", "env"], "not an interface name"),
      (["run", "--net", "user", "--address", "10.0.2.15", "env"], "--address"),
      (["run", "--trace", "all", "env"], "missing or syscalls"), (["run", "--frob", "env"], "--frob"),
      (["run", "-w", "x", "env"], "not absolute"), (["run", "--user", "nobody-here", "env"], "no user"),
      (["run"], "name the image"), (["build", "env"], "--output"), (["frob"], "frob"),
    ])
  func wrongOptions(arguments: [String], message: String) throws {
    try expectFailure(arguments, 125, message)
  }

  @Test("Help and version go to standard output with status 0")
  func help() throws {
    for arguments in [["--version"], ["--help"], ["run", "--help"], ["build", "--help"], ["doctor"]] {
      let outcome = try swiftlet(arguments)
      #expect(outcome.status == 0 && !outcome.output.isEmpty && outcome.errors.isEmpty)
    }
  }

  @Test("A forwarded port starts passt, whose socket the image receives")
  func userNetwork() throws {
    guard access("/usr/bin/passt", X_OK) == 0 else { return }
    // cat(1) as the libOS would need arguments; env(1) at least shows that passt started and the image ran.
    let outcome = try swiftlet(["run", "-p", "127.0.0.1:28461:80", "env"], libOS: "/usr/bin/env")
    #expect(outcome.status == 0 && outcome.errors.isEmpty, "\(outcome.errors)")
    #expect(outcome.output.hasPrefix("SWIFTLET_LAUNCH_FD="))
  }

  @Test("A port in use is reported with the option that asked for it")
  func portInUse() throws {
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(listener) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
        #expect(bind(listener, generic, length) == 0)
        #expect(listen(listener, 1) == 0)
        #expect(getsockname(listener, generic, &length) == 0)
      }
    }
    let port = UInt16(bigEndian: address.sin_port)
    try expectFailure(
      ["run", "-p", "\(port):80", "env"], 125,
      "port \(port) is already in use (-p \(port):80); choose another host port")
  }
}
