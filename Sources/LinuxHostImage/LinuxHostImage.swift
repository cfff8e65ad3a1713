import ABI
import CEmbeddedRuntime
import CLinuxHost
import CMachine
import LinuxHost
import Syscalls
import Tasks

@c(image_main)
public func imageMain(_ stack: UnsafePointer<UInt>) {
  let boot = LinuxHost.begin(stack: stack)
  _ = LinuxHost.establish(boot, memory: 64 << 20)
  LinuxHost.fail("nothing to run yet")
}
