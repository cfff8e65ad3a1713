import CHostCommand
import Glibc
import Image

/// Packs programs with everything they need from a tree: interpreters and shared libraries at their own
/// paths.
public struct ProgramPacker {
  public var files = FileCollection()
  let tree: FileTree
  let resolver: LibraryResolver

  public init(_ tree: FileTree) {
    self.tree = tree
    resolver = LibraryResolver(tree)
  }

  /// Adds the program at `path`, its interpreter if it is a script, and their libraries.
  public mutating func addProgram(_ path: Path) throws(BuildError) {
    var next = path
    // Linux follows four levels of script interpreters (fs/binfmt_script.c and exec.c).
    for _ in 0..<5 {
      try files.addWithWay(next, from: tree)
      guard let interpreter = try scriptInterpreter(of: next, in: tree) else {
        try addLibraries(of: next)
        return
      }
      guard try tree.resolve(interpreter.program) != nil else {
        throw BuildError("\(next.text) needs \(interpreter.program.text), which does not exist")
      }
      if interpreter.program.lastComponent == Path("env"), let name = interpreter.environmentProgram {
        try addProgram(try tree.findProgram(name, searching: imageSearchPath))
      }
      next = interpreter.program
    }
    throw BuildError("\(path.text): too many levels of script interpreters", exitStatus: 126)
  }

  /// Adds a host file or directory; the libraries of the ELF executables in it come along.
  public mutating func add(_ source: Path, at destination: Path) throws(BuildError) {
    let known = files.executables.count
    if isLink(source), absolute(source) == destination {
      // The name alone would lead nowhere.
      try files.addWithWay(destination, from: tree)
    } else {
      try files.addTree(source, at: destination)
    }
    for executable in files.executables[known...] {
      let file = try MappedFile(executable.source)
      defer { file.keepAlive() }
      guard ELFFile.hasMagic(file.bytes), let elf = try? ELFFile(file.bytes, name: executable.source),
        !elf.needed.isEmpty || elf.interpreter != nil
      else { continue }
      try addLibraries(of: absolute(executable.source))
    }
  }

  private func isLink(_ path: Path) -> Bool {
    guard let status = linkStatus(path) else { return false }
    return status.st_mode & S_IFMT == S_IFLNK
  }

  private mutating func addLibraries(of path: Path) throws(BuildError) {
    for library in try resolver.dependencies(of: path) { try files.addWithWay(library, from: tree) }
  }
}

/// Where programs are looked for inside an image without its own PATH.
public let imageSearchPath = [
  "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin",
].map { Path($0) }

/// The `#!` line of a script (execve(2)).
struct ScriptInterpreter {
  let program: Path
  /// The program that `#!/usr/bin/env NAME` names.
  let environmentProgram: Path?
}

/// Nil if the file at `path` is an ELF file; throws if it is neither that nor a script.
func scriptInterpreter(of path: Path, in tree: FileTree) throws(BuildError) -> ScriptInterpreter? {
  let file = try MappedFile(tree.hostPath(path))
  defer { file.keepAlive() }
  if ELFFile.hasMagic(file.bytes) { return nil }
  guard file.bytes.count > 2, file.bytes[0] == UInt8(ascii: "#"), file.bytes[1] == UInt8(ascii: "!") else {
    throw BuildError("\(path.text) is neither an ELF program nor a script with #!", exitStatus: 126)
  }
  // BINPRM_BUF_SIZE of Linux.
  let line = Path(file.bytes.dropFirst(2).prefix(254).prefix { $0 != UInt8(ascii: "\n") })
  let words = line.split { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") }.map { Path($0) }
  guard let program = words.first, program.isAbsolute else {
    throw BuildError("\(path.text): the #! line names no absolute path", exitStatus: 126)
  }
  let name = words.dropFirst().first { $0.first != UInt8(ascii: "-") && !$0.contains(UInt8(ascii: "=")) }
  return ScriptInterpreter(program: program, environmentProgram: name)
}

/// The absolute form of a host path.
public func absolute(_ path: Path) -> Path {
  guard !path.isAbsolute else { return path }
  let isDotted = path.starts(with: "./".utf8)
  return currentDirectory().appending(isDotted ? path.dropFirst(2) : path[...])
}
