import ABI
import BareHost
import CMachine
import HostCore
import Image
import Processes
import Syscalls
import Tasks

/// Entry of the image in ring 3 above the exokernel.
@c(bare_main)
public func bareMain() {
  BareHost.begin()
  let bare = BareHost.establish()
  let start: StartUp
  do throws(ImageError) {
    let reader = try ImageReader(BareHost.image)
    var options = LaunchOptions()
    if BareHost.record.count > 0 { options = try LaunchOptions(parsing: BareHost.record) }
    start = StartUp(reader: reader, manifest: options.applied(to: reader.manifest), options: options)
  } catch { bare.fail(error.description, status: 125) }
  isolate(bare, start.manifest.isolation ?? (bare.hasKeys && !bare.isEmulated ? .keys : .none))
  if start.options.terminal {
    start.size = bare.followTerminal(
      size: start.options.terminalSize ?? 80 << 16 | 24, flags: start.options.terminalFlags)
  }
  Trace.panicNumber = BareHost.panicNumber
  let stacks = Stacks()
  threadMemory = stacks
  MemoryLimit.relieve = { OutOfMemory.end { bare.meter.privateFrames(of: $0) } }
  let standby = makeLibOSThread(stacks)
  startFirstProcess(start, stacks) { block in
    bare.adopt(block)
    bare.startStandby(standby, deliver: deliverFromOutside)
  }
}

private func isolate(_ bare: BareHost, _ isolation: Isolation) {
  SystemIdentity.isolation = isolation.text
  switch isolation {
  case .none: gateAddress = BareHost.gateAddress
  case .paging: bare.isolateByPaging()
  case .keys:
    guard bare.hasKeys else {
      bare.fail("isolation mpk: this processor has no protection keys; use paging", status: 125)
    }
    gateAddress = BareHost.keyedGateAddress
    gateHasKeys = true
    CodeGuard.forbidden = [.writeKeys, .writeGSBase]
    bare.isolateByKeys()
  }
}
