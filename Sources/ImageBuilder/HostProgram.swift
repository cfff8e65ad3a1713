import CHostCommand
import Glibc

/// Programs of this machine that do a part of the work.
public enum HostProgram {
  /// Runs mke2fs, which makes an ext4 file system. `descriptor` is open in it as 3; `environment` is added to its own.
  public static func mke2fs(
    _ arguments: [String], environment: [String] = [], descriptor: Int32? = nil
  ) throws(BuildError) {
    var programs = ["/usr/sbin/mke2fs", "/sbin/mke2fs"]
    if let path = getenv("PATH") {
      programs = String(cString: path).split(separator: ":").map { $0 + "/mke2fs" } + programs
    }
    guard let program = programs.first(where: { access($0, X_OK) == 0 }) else {
      throw BuildError("mke2fs, which makes file systems, is not installed; install the package e2fsprogs")
    }
    try run(program, ["mke2fs", "-q", "-F", "-t", "ext4"] + arguments, environment, descriptor)
  }

  /// Runs a program; what it printed becomes the error.
  private static func run(
    _ program: String, _ arguments: [String], _ variables: [String], _ descriptor: Int32?
  ) throws(BuildError) {
    var messages: [Int32] = [-1, -1]
    guard pipe2(&messages, O_CLOEXEC) == 0 else { throw BuildError("cannot create a pipe") }
    let output = HostFile(owning: messages[0])
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDWR, 0)
    posix_spawn_file_actions_adddup2(&actions, messages[1], STDOUT_FILENO)
    posix_spawn_file_actions_adddup2(&actions, messages[1], STDERR_FILENO)
    if let descriptor { posix_spawn_file_actions_adddup2(&actions, descriptor, 3) }
    var vector: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    defer { for pointer in vector { free(pointer) } }
    var environment: [UnsafeMutablePointer<CChar>?] = variables.map { strdup($0) }
    var place = environ
    while let variable = place.pointee {
      environment.append(strdup(variable))
      place += 1
    }
    environment.append(nil)
    defer { for pointer in environment { free(pointer) } }
    var process: pid_t = 0
    let result = posix_spawn(&process, program, &actions, nil, &vector, &environment)
    close(messages[1])
    guard result == 0 else { throw BuildError("cannot run \(program): \(String(cString: strerror(result)))") }
    var report: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 4096)
    while true {
      let count = read(output.descriptor, &part, part.count)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { break }
      report += part[..<count]
    }
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0 && errno == EINTR {}
    guard status == 0 else {
      throw BuildError("\(program) failed: \(String(decoding: report, as: UTF8.self))")
    }
  }
}
