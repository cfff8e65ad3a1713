import CHostCommand
import Glibc
import Image
import ImageBuilder

/// The image that `swiftlet run` executes: a file, or one made in memory for a program.
struct LaunchTarget: ~Copyable {
  private let image: HostFile
  private let name: String
  /// What the image's manifest wants, or the usual; in bytes.
  private(set) var memory: UInt64 = 512 << 20

  /// Opens or builds the image; the arguments and the user go into `options`.
  init(_ name: String, arguments: [String], options: inout LaunchOptions, user: String?) throws(BuildError) {
    self.name = name
    if let file = try openImage(name) {
      let mapped = try MappedFile(descriptor: file.descriptor, Path(name))
      defer { mapped.keepAlive() }
      let reader = try readImage(mapped, name)
      if reader.manifest.memory != 0 { memory = reader.manifest.memory }
      if !arguments.isEmpty {
        options.arguments = [reader.manifest.arguments[0]] + arguments.map { Array($0.utf8) }
      }
      if let user { options.user = try ImageRoot(reader).userDatabase.identity(user) }
      image = file
    } else {
      let program = try ProgramImage(root: nil, command: [name] + arguments, additions: [])
      if let user { options.user = try UserDatabase(program.files).identity(user) }
      image = try makeTemporaryImage(program)
    }
  }

  /// What the image's root is known by.
  func rootIdentity() throws(BuildError) -> RootIdentity {
    let mapped = try MappedFile(descriptor: image.descriptor, Path(name))
    defer { mapped.keepAlive() }
    return try RootIdentity(of: try readImage(mapped, name))
  }

  /// Boots the image in a virtual machine. Returns only by throwing.
  func boot(_ machine: VirtualMachine, with options: LaunchOptions) throws(BuildError) -> Never {
    try machine.run(image: image.descriptor, options: options)
  }

  /// Replaces the command by the image. Returns only by throwing.
  func execute(with options: LaunchOptions) throws(BuildError) -> Never {
    let record = try makeLaunchRecord(options)
    var arguments: [UnsafeMutablePointer<CChar>?] = [strdup(name), nil]
    var environment: [UnsafeMutablePointer<CChar>?] = [strdup("SWIFTLET_LAUNCH_FD=\(record)"), nil]
    fexecve(image.descriptor, &arguments, &environment)
    throw BuildError("cannot execute \(name): \(String(cString: strerror(errno)))", exitStatus: 126)
  }
}

/// The image at `name`, or nil if `name` is a program (a path, or a name to be found in PATH).
private func openImage(_ name: String) throws(BuildError) -> HostFile? {
  let descriptor = open(name, O_RDONLY | O_CLOEXEC)
  guard descriptor >= 0 else {
    if errno == ENOENT && !name.utf8.contains(UInt8(ascii: "/")) { return nil }
    throw BuildError("\(name): \(String(cString: strerror(errno)))", exitStatus: errno == ENOENT ? 127 : 126)
  }
  let file = HostFile(owning: descriptor)
  var status = stat()
  guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
    if !name.utf8.contains(UInt8(ascii: "/")) { return nil }
    throw BuildError("\(name) is not a regular file", exitStatus: 126)
  }
  let mapped = try MappedFile(descriptor: descriptor, Path(name))
  defer { mapped.keepAlive() }
  switch classify(mapped.bytes) {
  case .image: return file
  case .truncatedImage: throw BuildError("\(name) is a truncated image; build it again", exitStatus: 126)
  case .other: return nil
  }
}

func readImage(_ file: MappedFile, _ name: String) throws(BuildError) -> ImageReader {
  do throws(ImageError) {
    return try ImageReader(file.bytes)
  } catch {
    throw BuildError("\(name): \(error.description)", exitStatus: 126)
  }
}

/// Builds into memory: the image has no name and ends with the process.
private func makeTemporaryImage(_ program: ProgramImage) throws(BuildError) -> HostFile {
  let file = try ImageFile(libOS: try libOSPath(), files: program.files, manifest: program.manifest)
  let writable = memfd_create("swiftlet", MEMFD_CLOSE_ON_EXEC)
  guard writable >= 0 else { throw BuildError("cannot create a temporary image") }
  let writer = HostFile(owning: writable)
  try file.write(descriptor: writer.descriptor, Path("the temporary image"))
  // A file that is open for writing cannot be executed (ETXTBSY): execute through a second, read-only
  // opening.
  let readable = open("/proc/self/fd/\(writer.descriptor)", O_RDONLY | O_CLOEXEC)
  guard readable >= 0 else { throw BuildError("cannot reopen the temporary image; is /proc mounted?") }
  return HostFile(owning: readable)
}

/// Writes the launch record to a descriptor that survives exec.
func makeLaunchRecord(_ options: LaunchOptions) throws(BuildError) -> Int32 {
  let text = options.serialise()
  let descriptor = memfd_create("swiftlet-launch", 0)
  guard descriptor >= 0, pwrite(descriptor, text, text.count, 0) == text.count else {
    throw BuildError("cannot write the launch record")
  }
  return descriptor
}
