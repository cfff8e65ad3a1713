import ArgumentParser
import CHostCommand
import Glibc
import ImageBuilder

struct Update: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Change the memory of a running image.",
    discussion: """
      What is taken away is asked back first: caches go, and programs that watch /proc/pressure/memory hear of it. What \
      is missing after the time of grace the image takes by ending the program that holds most. The limit can be \
      raised again, up to what the image was started with.
      """)

  @Option(name: .shortAndLong, help: "Memory from now on, for example 64m.")
  var memory: String

  @Option(help: ArgumentHelp("Seconds that programs have to give memory back.", valueName: "SECONDS"))
  var grace: Int = 5

  @Argument(
    help: ArgumentHelp("The process that is the image, or the swiftlet run beside it.", valueName: "PID"))
  var process: Int32

  func validate() throws {
    guard grace >= 1, grace <= 127 else { throw ValidationError("--grace takes 1 to 127 seconds") }
  }

  func run() throws {
    let mebibytes = try parseMemory(memory) >> 20
    guard mebibytes < 1 << 24 else { throw BuildError("\(memory) of memory is too much") }
    guard Update.isImage(process) else { throw BuildError("process \(process) is no running image") }
    guard queue_signal(process, memory_limit_signal(), Int32(mebibytes) | Int32(grace) << 24) == 0 else {
      throw BuildError("cannot reach process \(process): \(String(cString: strerror(errno)))")
    }
  }

  /// The signal would end any other program.
  private static func isImage(_ process: Int32) -> Bool {
    let descriptor = open("/proc/\(process)/exe", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return false }
    let file = HostFile(owning: descriptor)
    var status = stat()
    var own = stat()
    guard fstat(file.descriptor, &status) == 0, stat("/proc/self/exe", &own) == 0 else { return false }
    // The command stays beside virtual machines and at terminals.
    if status.st_dev == own.st_dev, status.st_ino == own.st_ino { return true }
    guard let mapped = try? MappedFile(descriptor: file.descriptor, Path("/proc/\(process)/exe")) else {
      return false
    }
    defer { mapped.keepAlive() }
    if case .image = classify(mapped.bytes) { return true }
    return false
  }
}
