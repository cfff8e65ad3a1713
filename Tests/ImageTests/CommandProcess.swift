import Glibc
import Testing

/// The outcome of a process that ran to its end.
struct ProcessOutcome {
  let status: Int32
  let output: String
  let errors: String
}

/// Runs a program with its output captured in unlinked temporary files, so that no pipe can fill up.
func runProcess(
  _ arguments: [String], environment: [String] = [], directory: String? = nil
) throws -> ProcessOutcome {
  let files = (0..<2).map { _ in tmpfile() }
  defer { for file in files { if let file { fclose(file) } } }
  let output = fileno(try #require(files[0]))
  let errors = fileno(try #require(files[1]))
  var actions = posix_spawn_file_actions_t()
  posix_spawn_file_actions_init(&actions)
  defer { posix_spawn_file_actions_destroy(&actions) }
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
  posix_spawn_file_actions_adddup2(&actions, output, 1)
  posix_spawn_file_actions_adddup2(&actions, errors, 2)
  var vector: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
  var variables: [UnsafeMutablePointer<CChar>?] =
    (environment + ["PATH=/usr/local/bin:/usr/bin:/bin"]).map { strdup($0) } + [nil]
  defer { for pointer in vector + variables { free(pointer) } }
  var process: pid_t = 0
  try #require(posix_spawn(&process, arguments[0], &actions, nil, &vector, &variables) == 0)
  var status: Int32 = 0
  while waitpid(process, &status, 0) < 0 && errno == EINTR {}
  return ProcessOutcome(
    status: status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + status & 0x7f, output: content(output),
    errors: content(errors))
}

private func content(_ descriptor: Int32) -> String {
  var bytes = [UInt8](repeating: 0, count: 1 << 20)
  let count = pread(descriptor, &bytes, bytes.count, 0)
  return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
}

/// The swiftlet command that was built with the tests: it stands beside the test program.
func swiftletPath() -> String {
  for argument in CommandLine.arguments where argument.hasSuffix(".xctest") {
    return directory(argument) + "/swiftlet"
  }
  var buffer = [CChar](repeating: 0, count: 4096)
  let length = readlink("/proc/self/exe", &buffer, buffer.count)
  let own = String(decoding: buffer.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
  return directory(own) + "/swiftlet"
}

private func directory(_ path: String) -> String {
  guard let slash = path.lastIndex(of: "/") else { return "." }
  return String(path[..<slash])
}

/// A directory that is removed with its content.
final class TemporaryDirectory {
  let path: String

  init() throws {
    var template = Array("/tmp/swiftlet-test-XXXXXX".utf8CString)
    let name = template.withUnsafeMutableBufferPointer { buffer in
      buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) }
    }
    path = try #require(name)
  }

  deinit {
    _ = try? runProcess(["/bin/rm", "-rf", path])
  }

  @discardableResult
  func write(_ name: String, _ content: [UInt8], mode: mode_t = 0o644) throws -> String {
    let file = "\(path)/\(name)"
    let stream = try #require(fopen(file, "w"))
    fwrite(content, 1, content.count, stream)
    fclose(stream)
    chmod(file, mode)
    return file
  }

  func read(_ name: String) throws -> [UInt8] {
    let stream = try #require(fopen("\(path)/\(name)", "r"))
    defer { fclose(stream) }
    var bytes = [UInt8](repeating: 0, count: 64 << 20)
    let count = fread(&bytes, 1, bytes.count, stream)
    return Array(bytes.prefix(count))
  }
}
