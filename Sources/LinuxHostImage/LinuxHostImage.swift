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
  Trace.panicNumber = boot.panicNumber
  Panic.describeThread = describeThread
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

/// One line, with the least that would do.
private func failForSize(_ reader: ImageReader) -> Never {
  var files = 0
  for i in 0..<reader.entryCount { files += (reader.entry(i).data.count + 4095) >> 12 + 1 }
  // The files, as much again of a 32nd for the reserve, the libOS's tables and something for the program.
  let least = (files + files / 16 + 2560) >> 8
  say("swiftlet: -m is too small: the image's files do not fit; give at least ")
  sayDecimal(least)
  say("M\n")
  LinuxHost.end(status: 125)
}

/// What a panic tells of the thread: its process, its registers as they were in the program, and its last calls.
private func describeThread() {
  let block = LinuxThread.running.block
  guard block.pointee.host_thread != 0 else { return }
  let thread = LinuxThread.running
  say("  process ")
  sayDecimal(Int(thread.process.pid))
  say(", thread ")
  sayDecimal(Int(thread.tid))
  say(" (")
  thread.process.name.withUnsafeBytes { _ = try? host.writeConsole(2, $0) }
  say("), program at ")
  sayHexadecimal(block.pointee.frame.pointee.rip)
  say(", stack ")
  sayHexadecimal(block.pointee.frame.pointee.rsp)
  say("\n  its last system calls, latest first:")
  for i in 0..<min(thread.calls.count, RecentCalls.size) {
    say(i == 0 ? " " : ", ")
    let call = thread.calls.latest(i)
    sayDecimal(call.number)
    if call.isDone {
      say(" = ")
      sayDecimal(call.result)
    }
  }
  say("\n")
}

/// On the first thread's libOS stack.
private func runFirstProcess() {
  KernelLock.acquire()
  startFirstProgram()
  KernelLock.release()
}

@inline(never)
private func startFirstProgram() {
  let start = startUp!
  do throws(Errno) {
    try start.build()
  } catch {
    if error == .noSpace || error == .noMemory { failForSize(start.reader) }
    LinuxHost.fail("the image's files cannot be unpacked")
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
