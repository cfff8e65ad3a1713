// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import ABI
import CEmbeddedRuntime
import CLinuxHost
import CMachine
import Image
import LinuxHost
import Processes
import Sockets
import Syscalls
import Tasks
import VFS

/// What start-up hands from one step to the next.
nonisolated(unsafe) private var startUp: StartUp! = nil

final class StartUp {
  let reader: ImageReader
  var manifest: Manifest
  let options: LaunchOptions
  var thread: LinuxThread! = nil
  /// The size of the user's terminal, kept up to date by the command; nil without one.
  var size: UnsafePointer<UInt64>?

  init(reader: ImageReader, manifest: Manifest, options: LaunchOptions) {
    self.reader = reader
    self.manifest = manifest
    self.options = options
  }
}

/// Entry of the image as a Linux process.
@c(image_main)
public func imageMain(_ stack: UnsafePointer<UInt>) {
  let boot = LinuxHost.begin(stack: stack)
  if boot.printsPolicy {
    Seal.printPolicy()
    LinuxHost.end(status: 0)
  }
  let start = read(boot)
  startUp = start
  let memory = start.manifest.memory == 0 ? 512 << 20 : start.manifest.memory
  let linux = LinuxHost.establish(boot, memory: memory)
  if let descriptor = start.options.networkDescriptor {
    linux.setNetwork(descriptor: Int(descriptor))
  }
  if let descriptor = start.options.sizeDescriptor { start.size = LinuxHost.mapSize(Int(descriptor)) }
  linux.takeConsole()
  let stacks = Stacks()
  threadMemory = stacks
  gateAddress = LinuxHost.gateAddress
  do throws(Errno) {
    let supervisorBlock = try stacks.make()
    let supervisor = Thread(block: supervisorBlock)
    supervisorBlock.pointee.thread = Unmanaged.passRetained(supervisor).toOpaque()
    let block = try stacks.make()
    Supervisor.fork(supervisorBlock) { signal in
      if signal == 28, let console = TerminalMultiplexer.console { return console.updateSize() }
      ProcessTable.initProcess?.notify(
        SignalInformation(signal, code: SignalInformation.user), fromOutside: true)
    } outOfMemory: { host, frames in
      OutOfMemory.end(hostProcess: UInt64(host), frames: frames)
    }
    linux.adopt(block)
    LinuxHost.installTraps()
    start.thread = try ProcessTable.createProcess(parent: nil, block: block)
    block.pointee.thread = Unmanaged.passUnretained(start.thread).toOpaque()
    LinuxHost.go(block, runFirstProcess)
  } catch { LinuxHost.fail("-m is too small: there is no memory for the first process") }
}

/// The image's manifest and the launch record, checked.
private func read(_ boot: BootEnvironment) -> StartUp {
  do throws(ImageError) {
    let reader = try ImageReader(boot.image)
    var options = LaunchOptions()
    if boot.launchDescriptor >= 0 {
      options = try LaunchOptions(parsing: LinuxHost.mapFile(boot.launchDescriptor, at: 0x2e00_0000_0000))
    }
    return StartUp(reader: reader, manifest: options.applied(to: reader.manifest), options: options)
  } catch { LinuxHost.fail(error.description) }
}

/// On the first thread's libOS stack.
private func runFirstProcess() {
  KernelLock.acquire()
  let start = startUp!
  do throws(Errno) {
    try start.build()
  } catch {
    LinuxHost.fail(
      error == .noSpace || error == .noMemory
        ? "-m is too small: the image's files do not fit" : "the image's files cannot be unpacked")
  }
  Seal.install()
  let thread = LinuxThread.running
  let call = SystemCall(frame: thread.block.pointee.frame, number: 59)
  do throws(Errno) {
    _ = try call.execute(start.manifest.program, start.manifest.arguments, start.manifest.environment)
  } catch {
    switch error {
    case .noSuchFile: LinuxHost.fail("the program, or its interpreter, is not in the image", status: 127)
    case .accessDenied: LinuxHost.fail("the program is not executable", status: 126)
    case .notExecutable: LinuxHost.fail("the program is not an x86-64 ELF file or a script", status: 126)
    default: LinuxHost.fail("the program cannot be run", status: 126)
    }
  }
  KernelLock.release()
}

final class Stacks: ThreadMemory {
  private let stacks = ThreadStacks()

  func make() throws(Errno) -> UnsafeMutablePointer<thread_block> { try stacks.make() }
  func retire(_ block: UnsafeMutablePointer<thread_block>, inUse: Bool) { stacks.retire(block, inUse: inUse) }
  func `continue`(
    as block: UnsafeMutablePointer<thread_block>, from old: UnsafeMutablePointer<thread_block>,
    _ function: @convention(c) () -> Void
  ) -> Never { stacks.continue(as: block, from: old, function) }
}
