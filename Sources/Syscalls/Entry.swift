import ABI
import CMachine
import Processes
import Tasks
import VFS

// Where threads come in: from the gate, from traps, and on the slow way out. References are counted without atomic
// operations, so a function that takes or gives up the kernel lock holds no object itself.

/// A call through the gate. The frame's rax holds the number, and the result afterwards.
@c(libos_system_call)
public func libosSystemCall(_ frame: UnsafeMutablePointer<trap_frame>) {
  let number = Int(truncatingIfNeeded: frame.pointee.rax)
  if quick(number, frame) { return }
  KernelLock.acquire()
  serve(number, frame)
  KernelLock.release()
}

/// Calls that touch no shared state take no lock. The gate answers getpid and gettid itself when they come through it.
@inline(__always)
private func quick(_ number: Int, _ frame: UnsafeMutablePointer<trap_frame>) -> Bool {
  switch number {
  // Without the lock no reference may be counted.
  case 39: frame.pointee.rax = unlocked { UInt64(truncatingIfNeeded: $0.pid) }
  case 186: frame.pointee.rax = unlocked { UInt64(truncatingIfNeeded: $0.tid) }
  case 228 where frame.pointee.rdi <= 1 && !Trace.systemCalls:
    let now = frame.pointee.rdi == 0 ? host.realtimeNanoseconds : host.monotonicNanoseconds
    let time = (Int64(now / 1_000_000_000), Int64(now % 1_000_000_000))
    do throws(Errno) {
      try UserSlice.store(time, at: UInt(frame.pointee.rsi))
      frame.pointee.rax = 0
    } catch { frame.pointee.rax = UInt64(bitPattern: -Int64(error.rawValue)) }
  default: return false
  }
  return true
}

@inline(__always)
private func unlocked(_ body: (LinuxThread) -> UInt64) -> UInt64 {
  guard let thread = machine_current_thread() else { return 0 }
  return Unmanaged<LinuxThread>.fromOpaque(thread)._withUnsafeGuaranteedRef(body)
}

@inline(never)
private func serve(_ number: Int, _ frame: UnsafeMutablePointer<trap_frame>) {
  let thread = LinuxThread.running
  if thread.tracing == nil { perform(number, frame, thread) } else { performTraced(number, frame, thread) }
}

/// With the stops that a tracer asked for (ptrace(2)), which may change the call and its result.
@inline(never)
private func performTraced(_ number: Int, _ frame: UnsafeMutablePointer<trap_frame>, _ thread: LinuxThread) {
  if let wanted = thread.enterCall(number, frame) { perform(wanted, frame, thread) }
  thread.leaveCall(frame)
  if frame.pointee.kind == UInt64(TRAP_RETURN) { thread.callNumber = nil }
}

@inline(__always)
private func perform(_ number: Int, _ frame: UnsafeMutablePointer<trap_frame>, _ thread: LinuxThread) {
  let call = SystemCall(frame: frame, number: number)
  thread.callNumber = UInt64(number)
  thread.calls.begin(number)
  let sample = UInt64(thread.calls.count) % Process.systemSampling == 64 ? thread.processorNanoseconds : 0
  let line = Trace.systemCalls ? Trace.begin(call) : nil
  do throws(Errno) {
    if call.keepsMemory, MemoryLimit.isExhausted { throw .noMemory }
    let result = try call.dispatch()
    if frame.pointee.kind != UInt64(TRAP_RETURN) {
      frame.pointee.rax = UInt64(bitPattern: Int64(result))
    }
  } catch {
    let code = Int64(error == .interrupted ? call.interruption.rawValue : error.rawValue)
    frame.pointee.rax = UInt64(bitPattern: -code)
    if code >= 512 || code == 4 { machine_store(&thread.block.pointee.attention, 1) }
    if error == .fileTooLarge, thread.process.limits[ResourceLimit.fileSize].soft != .max {
      thread.process.notify(SignalInformation(Signal.fileSize, code: SignalInformation.kernel))
    }
    if error == .brokenPipe, call.raisesBrokenPipe {
      thread.process.notify(SignalInformation(Signal.pipe, code: SignalInformation.kernel))
    }
  }
  if sample != 0 { thread.process.addSystemSample(thread.processorNanoseconds &- sample) }
  if frame.pointee.kind == UInt64(TRAP_RETURN), thread.tracing == nil { thread.callNumber = nil }
  thread.calls.end(frame.pointee.rax)
  if let line { Trace.end(line, result: frame.pointee.rax) }
}

/// The way out could not write the thread's slot, for want of memory: the program cannot go on.
@c(libos_slot_fault)
public func libosSlotFault(_ frame: UnsafeMutablePointer<trap_frame>) {
  KernelLock.acquire()
  killProgram()
  KernelLock.release()
}

@inline(never)
private func killProgram() {
  LinuxThread.running.process.beginGroupExit(status: Signal.kill)
  machine_store(&LinuxThread.running.block.pointee.attention, 1)
}

/// A trapped thread: its frame has every register.
@c(libos_trap)
public func libosTrap(_ frame: UnsafeMutablePointer<trap_frame>) {
  KernelLock.acquire()
  trap(frame)
  KernelLock.release()
}

@inline(never)
private func trap(_ frame: UnsafeMutablePointer<trap_frame>) {
  if LinuxThread.running.tracing != nil { LinuxThread.running.enterTrap(frame) }
  let kind = Int(frame.pointee.kind)
  switch kind {
  case Int(TRAP_SYSTEM_CALL):
    let number = Int(truncatingIfNeeded: frame.pointee.rax)
    let site = UInt(frame.pointee.rip)
    frame.pointee.rcx = frame.pointee.rip
    frame.pointee.r11 = frame.pointee.rflags
    let memory = LinuxThread.running.process.addressSpace
    memory.note(after: site)
    // Nobody comes back to the site of execve, exit and exit_group: patching would copy a page for nothing.
    if number != 59, number != 60, number != 231, LinuxThread.running.lender == nil {
      memory.patch(after: site)
    }
    serve(number, frame)
  case Int(TRAP_KICK):
    LinuxThread.running.callNumber = nil
    machine_store(&LinuxThread.running.block.pointee.attention, 1)
  default: fault(kind, frame)
  }
}

/// Faults that only ask for more memory: a stack that grows, a file that has grown since it was mapped.
private func isMended(_ kind: Int, _ frame: UnsafeMutablePointer<trap_frame>, _ process: Process) -> Bool {
  let address = UInt(frame.pointee.address)
  let space = process.addressSpace
  let isStep =
    UInt32(truncatingIfNeeded: LinuxThread.running.block.pointee.trap_detail)
    == UInt32(SignalInformation.trapStep)
  if kind == Int(TRAP_BREAKPOINT), !isStep, let detour = space.detour(at: UInt(frame.pointee.rip) &- 1) {
    frame.pointee.rip = UInt64(detour)
    return true
  }
  let thread = LinuxThread.running
  if kind == Int(TRAP_FAULT), thread.repeatedFaults.isNew(UInt(frame.pointee.rip), address) {
    let access = FaultAccess(rawValue: UInt32(truncatingIfNeeded: thread.block.pointee.trap_detail >> 32))
    if space.mend(address, access) { return true }
  }
  let stack = process.limits[ResourceLimit.stack].soft
  if kind == Int(TRAP_FAULT), process.addressSpace.growDown(to: address, limit: stack) { return true }
  return kind == Int(TRAP_BUS) && process.addressSpace.showGrown(at: address)
}

private func fault(_ kind: Int, _ frame: UnsafeMutablePointer<trap_frame>) {
  let thread = LinuxThread.running
  thread.callNumber = nil
  // The program touches the page again afterwards.
  if kind == Int(TRAP_MEMORY) { return MemoryLimit.waitForMemory() }
  if isMended(kind, frame, thread.process) { return }
  var code = Int32(truncatingIfNeeded: thread.block.pointee.trap_detail)
  if kind == Int(TRAP_BREAKPOINT), code == SignalInformation.trapStep {
    guard thread.endStep(frame) else { return }
    code = Int32(truncatingIfNeeded: thread.block.pointee.trap_detail)
    frame.pointee.address = frame.pointee.rip
  }
  let signal: Int32 =
    switch kind {
    case Int(TRAP_FAULT): Signal.segmentation
    case Int(TRAP_BUS): Signal.bus
    case Int(TRAP_ILLEGAL): Signal.illegal
    case Int(TRAP_ARITHMETIC): Signal.floatingPoint
    default: Signal.trap
    }
  Trace.fault(signal, frame)
  thread.raiseFault(signal: signal, code: code, address: UInt(frame.pointee.address))
  machine_store(&thread.block.pointee.attention, 1)
}

/// How a thread leaves the slow way out.
private enum Way {
  case resume
  case end
  case change(ThreadChange)
}

/// The slow way out: signals, the end of the thread, and what a new thread does before it runs. What does not come back
/// from here (the end, a vfork's change of threads) is done here, where the stack holds no reference: what an abandoned
/// stack holds is never let go.
@c(libos_attention)
public func libosAttention(_ frame: UnsafeMutablePointer<trap_frame>) {
  KernelLock.acquire()
  switch attend(frame) {
  case .resume: KernelLock.release()
  case .end:
    KernelLock.release()
    guard let block = machine_current_block() else { return }
    host.endThread(clearing: &block.pointee.occupied)
  case .change(let change): threadMemory.continue(as: change.to, from: change.from, change.function)
  }
}

@inline(never)
private func attend(_ frame: UnsafeMutablePointer<trap_frame>) -> Way {
  let thread = LinuxThread.running
  switch thread.departure {
  case .none: break
  case .lend, .giveBack:
    // Whatever asks for attention waits until the thread is back.
    return .change(thread.changeThreads())
  case .end: return leave(thread)
  }
  machine_store(&thread.block.pointee.attention, 0)
  if let execution = thread.execution {
    thread.execution = nil
    SystemCall(frame: frame, number: 59).run(execution)
    thread.callNumber = 59
    thread.reportExecution(former: thread.tid)
  }
  if thread.hasVisits { thread.performVisits() }
  if thread.process.addressSpace.hasForkAdvice { thread.process.addressSpace.applyForkAdvice() }
  thread.process.addressSpace.showResized()
  if thread.setChildAddress != 0 {
    let address = thread.setChildAddress
    thread.setChildAddress = 0
    do throws(Errno) { try UserSlice.store(thread.tid, at: address) } catch {}
  }
  if thread.tracing != nil { thread.finishCall(frame) }
  let number = thread.callNumber
  thread.callNumber = nil
  if case .exit = thread.deliverSignals(frame: frame, number: number) { return leave(thread) }
  return .resume
}

/// Ends the calling thread: what programs see of it. The host's thread goes afterwards.
private func leave(_ thread: LinuxThread) -> Way {
  let block = thread.block
  if thread.tracing != nil { thread.stopForExit() }
  thread.exit(code: thread.exitCode)
  ProcessTable.reclaim { (old: LinuxThread) in
    old !== thread
      && (old.block.pointee.thread != Unmanaged<Thread>.passUnretained(old).toOpaque()
        || machine_load(&old.block.pointee.occupied) == 0)
  }
  if thread.isBorrowing {
    thread.depart(.giveBack)
    return .change(thread.changeThreads())
  }
  block.pointee.host_thread = 0
  threadMemory.retire(block, inUse: true)
  return .end
}
