import CHostCommand
import Glibc
import Image
import ImageBuilder

/// Starts passt(1) and returns the image's end of its socket, which survives exec. passt goes to the
/// background when it is ready and ends when the image's end is closed.
func startPasst(
  _ ports: [PublishedPort], address: IPv4Address, prefixLength: UInt8, gateway: IPv4Address,
  nameserver: IPv4Address
) throws(BuildError) -> Int32 {
  for port in ports { try port.checkFree() }
  guard let program = findPasst() else {
    throw BuildError("--net user and -p need passt, which is not installed; install the package passt")
  }
  var arguments = ["passt", "--fd", "3", "-q", "-e", "-a", text(address), "-n", "\(prefixLength)"]
  arguments += ["-g", text(gateway), "--dns-forward", text(nameserver)]
  // passt wants an interface to imitate; without a default route any will do, for nothing of it is used.
  if !hasDefaultRoute() { arguments += ["-i", "lo", "-M", "02:53:57:4c:54:02"] }
  // IPv6 only where this machine has it: the image gets a prefix of this machine's network.
  if !hasDefaultRouteIPv6() { arguments.append("-4") }
  for port in ports { arguments += port.passtArguments }

  var ends: [Int32] = [-1, -1]
  var messages: [Int32] = [-1, -1]
  guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends) == 0,
    pipe2(&messages, O_CLOEXEC) == 0
  else { throw BuildError("cannot create a socket for passt") }
  let remote = HostFile(owning: ends[1])
  let output = HostFile(owning: messages[0])
  let input = HostFile(owning: messages[1])
  let process = try spawn(program, arguments, socket: remote.descriptor, errors: input.descriptor)
  _ = consume input
  _ = consume remote
  let report = readAll(output.descriptor)
  var status: Int32 = 0
  while waitpid(process, &status, 0) < 0 && errno == EINTR {}
  guard status == 0 else { throw BuildError("passt failed: \(lastMessage(report))") }
  _ = fcntl(ends[0], F_SETFD, 0)
  return ends[0]
}

func findPasst() -> String? {
  for directory in hostSearchPath() {
    let path = directory.text + "/passt"
    if access(path, X_OK) == 0 { return path }
  }
  return nil
}

private func text(_ address: IPv4Address) -> String { String(decoding: address.text, as: UTF8.self) }

/// passt as descriptor 3's peer: dup2 drops close-on-exec.
private func spawn(_ program: String, _ arguments: [String], socket: Int32, errors: Int32) throws(BuildError)
  -> pid_t
{
  var actions = posix_spawn_file_actions_t()
  posix_spawn_file_actions_init(&actions)
  defer { posix_spawn_file_actions_destroy(&actions) }
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDWR, 0)
  posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, STDOUT_FILENO)
  posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO)
  posix_spawn_file_actions_adddup2(&actions, socket, 3)
  var vector: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
  defer { for pointer in vector { free(pointer) } }
  var process: pid_t = 0
  let result = posix_spawn(&process, program, &actions, nil, &vector, environ)
  guard result == 0 else { throw BuildError("cannot start \(program): \(String(cString: strerror(result)))") }
  return process
}

private func readAll(_ descriptor: Int32) -> [UInt8] {
  var result: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 4096)
  while true {
    let count = read(descriptor, &buffer, buffer.count)
    if count < 0 && errno == EINTR { continue }
    guard count > 0, result.count < 1 << 16 else { return result }
    result += buffer[..<count]
  }
}

/// The last line that is not about the system log.
private func lastMessage(_ report: [UInt8]) -> String {
  let lines = String(decoding: report, as: UTF8.self).split(separator: "\n")
  return lines.last { !$0.hasPrefix("Failed to send") }.map { String($0) } ?? "it gave no reason"
}

/// Whether /proc/net/route has a line whose destination and mask are 0.
private func hasDefaultRoute() -> Bool {
  let descriptor = open("/proc/net/route", O_RDONLY | O_CLOEXEC)
  guard descriptor >= 0 else { return false }
  defer { close(descriptor) }
  let lines = String(decoding: readAll(descriptor), as: UTF8.self).split(separator: "\n").dropFirst()
  return lines.contains { line in
    let fields = line.split(separator: "\t")
    return fields.count > 7 && fields[1] == "00000000" && fields[7] == "00000000"
  }
}

/// Whether /proc/net/ipv6_route has a default route that is in use and not of the loopback interface.
private func hasDefaultRouteIPv6() -> Bool {
  let descriptor = open("/proc/net/ipv6_route", O_RDONLY | O_CLOEXEC)
  guard descriptor >= 0 else { return false }
  defer { close(descriptor) }
  return String(decoding: readAll(descriptor), as: UTF8.self).split(separator: "\n").contains { line in
    let fields = line.split(separator: " ")
    return fields.count > 9 && fields[1] == "00" && fields[0].allSatisfy { $0 == "0" } && fields[9] != "lo"
  }
}
