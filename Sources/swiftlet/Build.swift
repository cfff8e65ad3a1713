import ArgumentParser
import Glibc
import Image
import ImageBuilder

struct Build: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Pack a program with all it needs into an image.",
    usage: "swiftlet build -o IMAGE (--root DIR -- PROGRAM | PROGRAM [--add PATH[:DEST]]...) [-- ARG...]")

  @Option(name: .shortAndLong, help: ArgumentHelp("The image file to write.", valueName: "IMAGE"))
  var output: String

  @Option(help: ArgumentHelp("Pack this directory as the root file system.", valueName: "DIR"))
  var root: String?

  @Option(
    parsing: .singleValue,
    help: ArgumentHelp("Add a file or directory, at its own path or at DEST.", valueName: "PATH[:DEST]"))
  var add: [String] = []

  @Option(name: .shortAndLong, parsing: .singleValue, help: "Set an environment variable.")
  var env: [String] = []

  @Option(name: .shortAndLong, help: "The working directory inside the image.")
  var workdir: String = "/"

  @Option(name: .shortAndLong, help: "The user: NAME or UID, with an optional :GROUP.")
  var user: String = "root"

  @Option(name: .shortAndLong, help: "Memory of the image, for example 64m.")
  var memory: String?

  @Option(
    help: "How programs are kept apart from the libOS: none, paging or mpk; what the machine allows without.")
  var isolation: String?

  @Argument(
    help: ArgumentHelp(
      "The program (a path, or a name found in PATH) and its arguments.", valueName: "PROGRAM"))
  var command: [String] = []

  func run() throws {
    let image = try ProgramImage(
      root: root.map { Path($0) }, command: command, additions: add.map { Path($0) })
    var manifest = image.manifest
    if let memory { manifest.memory = try parseMemory(memory) }
    if let isolation { manifest.isolation = try parseIsolation(isolation) }
    guard workdir.hasPrefix("/") else { throw BuildError("the working directory \(workdir) is not absolute") }
    manifest.workingDirectory = Array(workdir.utf8)
    manifest.user = try UserDatabase(image.files).identity(user)
    for text in env {
      if let variable = try parseVariable(text) { manifest.setVariable(variable) }
    }
    let file = try ImageFile(libOS: try libOSPath(), files: image.files, manifest: manifest)
    try file.write(to: Path(output))
  }
}

/// The files and the manifest for a program, before options have their say.
struct ProgramImage {
  let files: FileCollection
  let manifest: Manifest

  init(root: Path?, command: [String], additions: [Path]) throws(BuildError) {
    guard let name = command.first, !name.isEmpty else {
      throw BuildError("name the program to pack")
    }
    var manifest = Manifest()
    manifest.environment = [
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
    ]
    .map { Array($0.utf8) }
    manifest.arguments = command.map { Array($0.utf8) }
    let tree = FileTree(root: root ?? [])
    var packer = ProgramPacker(tree)
    let progress = Progress()
    packer.files.onProgress = progress.report
    if let root {
      manifest.program = try tree.findProgram(Path(name), searching: imageSearchPath)
      if manifest.program.first != UInt8(ascii: "/") { manifest.program = Path("/") + manifest.program }
      // The slash follows a symbolic link.
      try packer.files.addTree(root + Path("/"), at: Path("/"))
      try packer.checkProgram(manifest.program)
    } else {
      let path = name.utf8.contains(UInt8(ascii: "/")) ? absolute(Path(name)) : Path(name)
      manifest.program = try tree.findProgram(path, searching: hostSearchPath())
      try packer.addProgram(manifest.program)
    }
    for addition in additions {
      let parts = addition.split(separator: UInt8(ascii: ":"), maxSplits: 1).map { Path($0) }
      guard let source = parts.first else { throw BuildError("--add needs a path") }
      try packer.add(source, at: parts.count == 2 ? parts[1] : absolute(source))
    }
    packer.files.addMinimalSystem()
    progress.end()
    packer.files.onProgress = nil
    files = packer.files
    self.manifest = manifest
  }
}

/// Counts on a terminal; silent elsewhere.
private final class Progress {
  private let isTerminal = isatty(STDERR_FILENO) == 1
  private var shown = false

  func report(_ count: Int) {
    guard isTerminal, count % 256 == 0 else { return }
    shown = true
    let text = "\r\(count) files"
    _ = write(STDERR_FILENO, text, text.utf8.count)
  }

  func end() {
    if shown { _ = write(STDERR_FILENO, "\r\u{1b}[K", 4) }
  }
}
