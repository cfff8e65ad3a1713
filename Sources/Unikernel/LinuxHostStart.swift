import ABI
import CMachine
import HostCore
import Image
import LinuxHost
import Processes
import Tasks
import Syscalls

/// Entry of the image as a Linux process.
@c(image_main)
public func imageMain(_ stack: UnsafePointer<UInt>) {
  let boot = LinuxHost.begin(stack: stack)
  if boot.printsPolicy {
    Seal.printPolicy()
    LinuxHost.end(status: 0)
  }
  let start = read(boot)
  let isolation = start.manifest.isolation ?? .none
  if isolation == .paging {
    LinuxHost.fail("isolation paging needs a virtual machine: swiftlet run --host=bare")
  }
  let memory = start.manifest.memory == 0 ? 512 << 20 : start.manifest.memory
  let linux = LinuxHost.establish(boot, memory: memory)
  if let descriptor = start.options.networkDescriptor {
    linux.setNetwork(descriptor: Int(descriptor))
  }
  for volume in start.options.volumes {
    do throws(Errno) {
      try linux.addDisk(descriptor: Int(volume.descriptor))
    } catch { LinuxHost.fail("a volume is neither a file nor a block device, or empty") }
  }
  if let descriptor = start.options.layerDescriptor {
    do throws(Errno) { try linux.addDisk(descriptor: Int(descriptor)) } catch {
      LinuxHost.fail("the file of --persist is neither a file nor a block device, or empty")
    }
  }
  if let descriptor = start.options.diskLogDescriptor { linux.diskLog = Int(descriptor) }
  if let descriptor = start.options.sizeDescriptor { start.size = LinuxHost.mapSize(Int(descriptor)) }
  linux.takeConsole()
  Trace.panicNumber = boot.panicNumber
  Panic.describeThread = describeThread
  isolate(linux, isolation)
  OutgoingFrames.isUsed = true
  IncomingFrames.isUsed = true
  let stacks = Stacks()
  threadMemory = stacks
  let supervisorBlock = makeLibOSThread(stacks)
  MemoryLimit.relieve = {
    if let held = LinuxMemoryMeter.largest { OutOfMemory.end(hostProcess: held.process, frames: held.frames) }
  }
  startFirstProcess(start, stacks) { block in
    Supervisor.fork(supervisorBlock, deliver: deliverFromOutside)
    linux.begin(as: block)
    LinuxHost.installTraps()
  }
}

private func isolate(_ linux: LinuxHost, _ isolation: Isolation) {
  SystemIdentity.isolation = isolation.text
  gateAddress = LinuxHost.gateAddress
  guard isolation == .keys else { return }
  linux.isolateByKeys()
  gateAddress = LinuxHost.keyedGateAddress
  gateHasKeys = true
  CodeGuard.forbidden = [.writeKeys, .writeGSBase, .restoreState]
}

/// The image's manifest and the launch record, checked.
private func read(_ boot: BootEnvironment) -> StartUp {
  do throws(ImageError) {
    let reader = try ImageReader(boot.image)
    var options = LaunchOptions()
    if boot.launchDescriptor >= 0 {
      options = try LaunchOptions(
        parsing: LinuxHost.mapFile(boot.launchDescriptor, at: LinuxHost.launchRecordAddress))
    }
    return StartUp(reader: reader, manifest: options.applied(to: reader.manifest), options: options)
  } catch { LinuxHost.fail(error.description) }
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
