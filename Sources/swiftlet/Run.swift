import ArgumentParser
import Glibc
import Image
import ImageBuilder

struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run an image, or a program as a temporary image.",
    discussion: "Options come before IMAGE; everything after it belongs to the program.")

  @Option(
    name: [.customShort("p"), .customLong("publish")], parsing: .singleValue,
    help: ArgumentHelp("Forward a host port.", valueName: "[IP:]HOST:GUEST[/udp]"))
  var ports: [String] = []

  @Option(
    name: [.customShort("v"), .customLong("volume")], parsing: .singleValue,
    help: ArgumentHelp(
      "Mount an ext4 file system; SIZE@FILE makes FILE, a directory needs :ro.",
      valueName: "[SIZE@]FILE:PATH[:ro]"))
  var volumes: [String] = []

  @Option(
    help: ArgumentHelp(
      "Keep what the run changes of the root in FILE, for the next run; SIZE says how large the root is at first.",
      valueName: "[SIZE@]FILE"))
  var persist: String?

  @Option(name: .shortAndLong, help: "Memory, for example 64m.")
  var memory: String?

  @Option(name: .shortAndLong, parsing: .singleValue, help: "Set an environment variable.")
  var env: [String] = []

  @Option(
    name: [.customLong("net"), .customLong("network")], help: "user, tap:NAME or none; user if -p is given.")
  var network: String?

  @Option(help: "The image's address with prefix length, or dhcp.")
  var address: String = "10.0.2.15/24"

  @Option(help: "The image's gateway; by default this machine's address on the tap, or 10.0.2.2.")
  var gateway: String?

  @Option(name: .customLong("dns"), parsing: .singleValue, help: "A name server for /etc/resolv.conf.")
  var nameservers: [String] = []

  @Flag(name: .customLong("rm"), help: "Accepted for podman's sake: nothing is ever left behind.")
  var remove = false

  @Flag(name: .shortAndLong, help: "Keep standard input open.")
  var interactive = false

  @Flag(name: [.customShort("t"), .customLong("tty")], help: "Give the program the terminal.")
  var terminal = false

  @Option(help: "Print system calls: missing or syscalls.")
  var trace: String?

  @Option(name: .shortAndLong, help: "The user: NAME or UID, with an optional :GROUP.")
  var user: String?

  @Option(name: .shortAndLong, help: "The working directory.")
  var workdir: String?

  @Option(help: "The host name.")
  var hostname: String?

  @Option(help: "Where the image runs: linux (a sealed process) or bare (a virtual machine of QEMU).")
  var host: String = "linux"

  @Option(help: "How programs are kept apart from the libOS: none, paging or mpk.")
  var isolation: String?

  @Option(help: "Processors of the virtual machine.")
  var cpus: Int?

  @Option(help: "The virtual machine's kind: microvm or q35.")
  var machine: String = "microvm"

  @Argument(
    parsing: .captureForPassthrough,
    help: ArgumentHelp("The image or program, and arguments for it.", valueName: "IMAGE [ARG...]"))
  var command: [String] = []

  func run() throws {
    guard let name = command.first else { throw BuildError("name the image or program to run") }
    // What looks like an option and was captured is one that podman may know and this command does not.
    if name == "--help" || name == "-h" { throw CleanExit.helpRequest(Run.self) }
    if name.hasPrefix("-") { throw BuildError("unknown option \(name) of swiftlet run") }
    if terminal && isatty(STDIN_FILENO) != 1 {
      throw BuildError("-t needs a terminal on standard input; leave it out")
    }
    var options = LaunchOptions()
    try readOptions(into: &options)
    if terminal { return try runOnTerminal(name, &options) }
    let target = try LaunchTarget(name, arguments: Array(command.dropFirst()), options: &options, user: user)
    if let persist {
      options.layerDescriptor = try PersistOption(persist).open(for: try target.rootIdentity())
    }
    try Networking(
      option: network, ports: ports, address: address, gateway: gateway, nameservers: nameservers
    ).start(&options)
    if !interactive { try useNullInput() }
    guard host == "bare" else { try target.execute(with: options) }
    try target.boot(virtualMachine(target, options), with: options)
  }

  private func virtualMachine(_ target: borrowing LaunchTarget, _ options: LaunchOptions) -> VirtualMachine {
    VirtualMachine(
      machine: machine, processors: cpus ?? min(max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))), 16),
      memory: options.memory ?? target.memory)
  }

  func validate() throws {
    guard host == "linux" || host == "bare" else { throw ValidationError("--host takes linux or bare") }
    guard machine == "microvm" || machine == "q35" else {
      throw ValidationError("--machine takes microvm or q35")
    }
    guard cpus ?? 1 >= 1, cpus ?? 1 <= 16 else { throw ValidationError("--cpus takes 1 to 16") }
  }

  private func runOnTerminal(_ name: String, _ options: inout LaunchOptions) throws {
    let session = try TerminalSession(&options)
    let target = try LaunchTarget(name, arguments: Array(command.dropFirst()), options: &options, user: user)
    if let persist {
      options.layerDescriptor = try PersistOption(persist).open(for: try target.rootIdentity())
    }
    try Networking(
      option: network, ports: ports, address: address, gateway: gateway, nameservers: nameservers
    ).start(&options)
    let launch = options
    guard host == "bare" else { try session.run { try target.execute(with: launch) } }
    var virtual = virtualMachine(target, launch)
    virtual.terminalSize = session.size
    try session.run { try target.boot(virtual, with: launch) }
  }

  private func readOptions(into options: inout LaunchOptions) throws(BuildError) {
    options.terminal = terminal
    if let memory { options.memory = try parseMemory(memory) }
    if terminal, let variable = try parseVariable("TERM") { options.environment.append(variable) }
    for text in env {
      if let variable = try parseVariable(text) { options.environment.append(variable) }
    }
    if let workdir {
      guard workdir.hasPrefix("/") else {
        throw BuildError("the working directory \(workdir) is not absolute")
      }
      options.workingDirectory = Array(workdir.utf8)
    }
    if let hostname {
      guard !hostname.isEmpty, hostname.utf8.count <= 64 else {
        throw BuildError("the host name is empty or too long")
      }
      options.hostname = Array(hostname.utf8)
    }
    if let isolation {
      options.isolation = try parseIsolation(isolation)
      if host != "bare", options.isolation == .paging {
        throw BuildError("--isolation=paging needs --host=bare")
      }
    }
    if let text = hostVariable("SWIFTLET_TEST_DISK_LOG") { options.diskLogDescriptor = Int32(text) }
    for text in volumes { options.volumes.append(try VolumeOption(text).open()) }
    switch trace {
    case nil: break
    case "missing": options.trace = .missing
    case "syscalls": options.trace = .systemCalls
    default: throw BuildError("--trace takes missing or syscalls")
    }
  }

  /// Without -i or -t the program reads end of file, as with podman.
  private func useNullInput() throws(BuildError) {
    let null = open("/dev/null", O_RDONLY)
    guard null >= 0, dup2(null, STDIN_FILENO) == STDIN_FILENO else {
      throw BuildError("cannot open /dev/null")
    }
    if null != STDIN_FILENO { close(null) }
  }
}

/// The value of --isolation.
func parseIsolation(_ text: String) throws(BuildError) -> Isolation {
  switch text {
  case "none": return .none
  case "paging": return .paging
  case "mpk": return .keys
  default: throw BuildError("--isolation takes none, paging or mpk")
  }
}
