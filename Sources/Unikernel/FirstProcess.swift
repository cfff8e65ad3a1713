// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import ABI
import CEmbeddedRuntime
import CHostCore
import CMachine
import HostCore
import Image
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

/// Makes the first process and leaves for its stack. `begin` makes the calling thread of the host the thread of the
/// block that it is given.
func startFirstProcess(
  _ start: StartUp, _ stacks: Stacks, begin: (UnsafeMutablePointer<thread_block>) -> Void
) {
  startUp = start
  do throws(Errno) {
    let block = try stacks.make()
    begin(block)
    start.thread = try ProcessTable.createProcess(parent: nil, block: block)
    block.pointee.thread = Unmanaged.passUnretained(start.thread).toOpaque()
    switch_stack(block.pointee.frame, runFirstProcess)
  } catch { host.fail("-m is too small: there is no memory for the first process", status: 125) }
}

/// A thread of the libOS itself, without a process, that is not started yet.
func makeLibOSThread(_ stacks: Stacks) -> UnsafeMutablePointer<thread_block> {
  do throws(Errno) {
    let block = try stacks.make()
    block.pointee.thread = Unmanaged.passRetained(Thread(block: block)).toOpaque()
    return block
  } catch { host.fail("-m is too small: there is no memory to start", status: 125) }
}

/// Passes a signal from outside to the first process. Kernel lock held.
func deliverFromOutside(_ signal: Int32) {
  if signal == 28, let console = TerminalMultiplexer.console { return console.updateSize() }
  ProcessTable.initProcess?.notify(
    SignalInformation(signal, code: SignalInformation.user), fromOutside: true)
}

/// On the first thread's libOS stack.
private func runFirstProcess() {
  KernelLock.acquire()
  startFirstProgram()
  KernelLock.release()
}

/// Apart, so that no reference is counted outside the kernel lock.
@inline(never)
private func startFirstProgram() {
  let start = startUp!
  do throws(Errno) {
    try start.build()
  } catch {
    if error == .noSpace || error == .noMemory {
      host.fail("-m is too small: there is no memory to start", status: 125)
    }
    host.fail("the image's root file system is damaged", status: 125)
  }
  host.seal()
  let thread = LinuxThread.running
  let call = SystemCall(frame: thread.block.pointee.frame, number: 59)
  do throws(Errno) {
    _ = try call.execute(start.manifest.program, start.manifest.arguments, start.manifest.environment)
  } catch {
    switch error {
    case .noSuchFile: host.fail("the program, or its interpreter, is not in the image", status: 127)
    case .accessDenied: host.fail("the program is not executable", status: 126)
    case .notExecutable: host.fail("the program is not an x86-64 ELF file or a script", status: 126)
    default: host.fail("the program cannot be run", status: 126)
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
