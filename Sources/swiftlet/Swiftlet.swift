import ArgumentParser
import Glibc
import ImageBuilder

@main
struct Swiftlet: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Pack Linux programs into unikernel images and run them.", version: "0.1.0",
    subcommands: [Build.self, Run.self, Update.self, Inspect.self, Doctor.self])

  /// As podman: one line and status 125 for errors of the command itself, 126 and 127 for the program's.
  static func main() {
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch let error as BuildError {
      fail(error.message, error.exitStatus)
    } catch {
      if exitCode(for: error) == .success { exit(withError: error) }
      fail(message(for: error), 125)
    }
  }

  private static func fail(_ message: String, _ status: Int32) -> Never {
    let line = message.split(separator: "\n").joined(separator: " ")
    writeLine("swiftlet: \(line)", to: STDERR_FILENO)
    Glibc.exit(status)
  }
}

/// Writes past stdio, which an exec would lose.
func writeLine(_ line: String, to descriptor: Int32) {
  var text = line + "\n"
  text.withUTF8 { bytes in
    var done = 0
    while done < bytes.count, let start = bytes.baseAddress {
      let count = write(descriptor, start + done, bytes.count - done)
      if count <= 0 { return }
      done += count
    }
  }
}

/// An environment variable of the command itself.
func hostVariable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

/// The directories of PATH.
func hostSearchPath() -> [Path] {
  (hostVariable("PATH") ?? "/usr/local/bin:/usr/bin:/bin").split(separator: ":").map { Path(String($0)) }
}

/// The libOS executable: $SWIFTLET_LIBOS, or beside the command.
func libOSPath() throws(BuildError) -> Path {
  if let path = hostVariable("SWIFTLET_LIBOS") {
    guard access(path, R_OK) == 0 else { throw BuildError("cannot read the libOS \(path) ($SWIFTLET_LIBOS)") }
    return Path(path)
  }
  let path = withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { buffer -> String in
    let length = buffer.baseAddress.map { readlink("/proc/self/exe", $0, buffer.count) } ?? 0
    let own = buffer[..<max(0, length)].map { UInt8(bitPattern: $0) }
    let directory = own[..<(own.lastIndex(of: UInt8(ascii: "/")) ?? 0)]
    return String(decoding: directory, as: UTF8.self) + "/unikernel.elf"
  }
  guard access(path, R_OK) == 0 else {
    throw BuildError("the libOS \(path) is missing; build it with: make build")
  }
  return Path(path)
}

/// Parses SIZE as podman does: a number with an optional b, k, m or g.
func parseMemory(_ text: String) throws(BuildError) -> UInt64 {
  var digits = text[...]
  var unit: UInt64 = 1
  switch digits.last {
  case "b", "B": digits = digits.dropLast()
  case "k", "K": (digits, unit) = (digits.dropLast(), 1 << 10)
  case "m", "M": (digits, unit) = (digits.dropLast(), 1 << 20)
  case "g", "G": (digits, unit) = (digits.dropLast(), 1 << 30)
  default: break
  }
  guard digits.utf8.allSatisfy({ $0 >= 48 && $0 <= 57 }), let number = UInt64(digits) else {
    throw BuildError("\(text) is not a size; write for example 64m or 1g")
  }
  let (size, overflow) = number.multipliedReportingOverflow(by: unit)
  guard !overflow, size <= 1 << 46 else { throw BuildError("\(text) of memory is too much") }
  guard size >= 16 << 20 else { throw BuildError("\(text) of memory is too little; the least is 16m") }
  return size
}

/// Parses `NAME=VALUE`, or `NAME` for the value it has here; nil if it has none.
func parseVariable(_ text: String) throws(BuildError) -> [UInt8]? {
  guard text.first != "=", !text.isEmpty else { throw BuildError("\(text) is not NAME=VALUE") }
  if text.utf8.contains(UInt8(ascii: "=")) { return Array(text.utf8) }
  return hostVariable(text).map { Array("\(text)=\($0)".utf8) }
}
