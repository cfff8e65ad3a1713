// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
public import ABI
public import CMachine
public import Tasks
import VFS

/// Makes and recycles the memory of threads; the host knows their layout.
public protocol ThreadMemory: AnyObject {
  func make() throws(Errno) -> UnsafeMutablePointer<thread_block>
  /// Gives it back once the host thread has gone; `block.occupied` is cleared then.
  func retire(_ block: UnsafeMutablePointer<thread_block>, inUse: Bool)
  /// Makes the calling host thread the thread of `block`, goes on there and never comes back.
  func `continue`(
    as block: UnsafeMutablePointer<thread_block>, from old: UnsafeMutablePointer<thread_block>,
    _ function: @convention(c) () -> Void
  ) -> Never
}

nonisolated(unsafe) public var threadMemory: (any ThreadMemory)! = nil

/// clone(2) flags that matter here.
public struct CloneFlags: OptionSet, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public static var memory: CloneFlags { CloneFlags(rawValue: 0x100) }
  public static var fileSystem: CloneFlags { CloneFlags(rawValue: 0x200) }
  public static var files: CloneFlags { CloneFlags(rawValue: 0x400) }
  public static var signalHandlers: CloneFlags { CloneFlags(rawValue: 0x800) }
  /// CLONE_PTRACE, CLONE_UNTRACED
  public static var traced: CloneFlags { CloneFlags(rawValue: 0x2000) }
  public static var untraced: CloneFlags { CloneFlags(rawValue: 0x80_0000) }
  /// CLONE_PIDFD
  public static var processFile: CloneFlags { CloneFlags(rawValue: 0x1000) }
  public static var vfork: CloneFlags { CloneFlags(rawValue: 0x4000) }
  public static var parent: CloneFlags { CloneFlags(rawValue: 0x8000) }
  public static var thread: CloneFlags { CloneFlags(rawValue: 0x10000) }
  public static var setThreadPointer: CloneFlags { CloneFlags(rawValue: 0x80000) }
  public static var parentSetIdentifier: CloneFlags { CloneFlags(rawValue: 0x0010_0000) }
  public static var childClearIdentifier: CloneFlags { CloneFlags(rawValue: 0x0020_0000) }
  public static var childSetIdentifier: CloneFlags { CloneFlags(rawValue: 0x0100_0000) }
}

/// The arguments of clone(2) and clone3(2).
public struct CloneArguments {
  public var flags: CloneFlags
  public var exitSignal: Int32
  public var stack: UInt
  public var parentIdentifier: UInt
  public var childIdentifier: UInt
  public var threadPointer: UInt
  /// CLONE_PIDFD: where the descriptor's number goes.
  public var processFile: UInt = 0
  public init(
    flags: CloneFlags, exitSignal: Int32, stack: UInt, parentIdentifier: UInt, childIdentifier: UInt,
    threadPointer: UInt
  ) {
    self.flags = flags
    self.exitSignal = exitSignal
    self.stack = stack
    self.parentIdentifier = parentIdentifier
    self.childIdentifier = childIdentifier
    self.threadPointer = threadPointer
  }
}

extension LinuxThread {
  /// clone(2): a thread, a process, or (CLONE_VM without CLONE_THREAD) a process that borrows this thread until it
  /// executes or ends. Gives the new thread's id.
  public func clone(_ arguments: CloneArguments) throws(Errno) -> Int32 {
    let flags = arguments.flags
    // What has been killed must not leave children behind: kill(2) of a process that forks for ever ends it.
    if process.isExiting { throw .interrupted }
    if flags.contains(.setThreadPointer), arguments.threadPointer >= UserSlice.limit { throw .notPermitted }
    if flags.contains(.thread), !flags.contains(.memory) || !flags.contains(.signalHandlers) {
      throw .invalid
    }
    if flags.contains(.signalHandlers), !flags.contains(.memory) { throw .invalid }
    let childBlock = try threadMemory.make()
    let child: LinuxThread
    do throws(Errno) {
      child = try makeThread(arguments, childBlock)
    } catch {
      threadMemory.retire(childBlock, inUse: false)
      throw error
    }
    childBlock.pointee.thread = Unmanaged.passUnretained(child).toOpaque()
    prepareFrame(child, arguments)
    do throws(Errno) { try storeIdentifiers(child, arguments) } catch {
      ProcessTable.discard(child)
      threadMemory.retire(childBlock, inUse: false)
      throw error
    }
    do throws(Errno) { try ProgramSlots.touch(childBlock) } catch {
      ProcessTable.discard(child)
      threadMemory.retire(childBlock, inUse: false)
      throw error
    }
    let event = traceEvent(arguments)
    if event != nil || flags.contains(.traced) { trace(child) }
    if flags.contains(.memory), !flags.contains(.thread) {
      child.lender = self
      borrower = child
      depart(.lend)
      report(event, child: child)
      return child.tid
    }
    do throws(Errno) {
      if flags.contains(.thread) {
        try host.startThread(childBlock)
      } else {
        try host.startProcess(childBlock)
      }
      if child.schedulingPolicy != LinuxThread.running.schedulingPolicy { child.reschedule() }
    } catch {
      ProcessTable.discard(child)
      threadMemory.retire(childBlock, inUse: false)
      throw error
    }
    let tid = child.tid
    report(event, child: child)
    return tid
  }

  private func makeThread(_ arguments: CloneArguments, _ block: UnsafeMutablePointer<thread_block>)
    throws(Errno)
    -> LinuxThread
  {
    if arguments.flags.contains(.thread) { return try ProcessTable.createThread(in: process, block: block) }
    let actions = arguments.flags.contains(.signalHandlers) ? process.actions : nil
    let parent = arguments.flags.contains(.parent) ? process.parent : process
    let child = try ProcessTable.createProcess(parent: parent, block: block, actions: actions)
    // As Linux: a number that is no signal tells nobody.
    child.process.exitSignal = arguments.exitSignal <= Signal.last ? arguments.exitSignal : 0
    child.process.creator = tid
    child.process.inherit(from: process, arguments.flags)
    return child
  }

  private func prepareFrame(_ child: LinuxThread, _ arguments: CloneArguments) {
    let frame = child.block.pointee.frame!
    frame.pointee = block.pointee.frame.pointee
    frame.pointee.rax = 0
    if frame.pointee.kind != 0 { frame.pointee.kind = UInt64(TRAP_RETURN) }
    if arguments.stack != 0 { frame.pointee.rsp = UInt64(arguments.stack) }
    let flags = arguments.flags
    if !flags.contains(.memory), child.process.addressSpace.hasForkAdvice {
      child.block.pointee.attention = 1
    }
    child.inherit(from: self, sharesMemory: flags.contains(.memory) && !flags.contains(.vfork))
    child.threadPointer = flags.contains(.setThreadPointer) ? arguments.threadPointer : threadPointer
    child.block.pointee.fs_base =
      arguments.flags.contains(.setThreadPointer) ? UInt64(arguments.threadPointer) : 0
  }

  private func storeIdentifiers(_ child: LinuxThread, _ arguments: CloneArguments) throws(Errno) {
    let flags = arguments.flags
    if flags.contains(.childClearIdentifier) { child.clearChildAddress = arguments.childIdentifier }
    // The child's copy is made by fork after this store, so that both see it; the parent's word is put back by
    // glibc itself, which stores its own id on fork.
    if flags.contains(.childSetIdentifier) {
      if flags.contains(.memory) {
        try UserSlice.store(child.tid, at: arguments.childIdentifier)
      } else {
        child.setChildAddress = arguments.childIdentifier
        child.block.pointee.attention = 1
      }
    }
    if flags.contains(.processFile) {
      let file = ProcessFile(child.process, flags: 0)
      let descriptor = try process.descriptors.install(file, closesOnExecution: true)
      do throws(Errno) { try UserSlice.store(descriptor, at: arguments.processFile) } catch {
        try process.descriptors.close(descriptor)
        throw error
      }
    }
    if flags.contains(.parentSetIdentifier) { try UserSlice.store(child.tid, at: arguments.parentIdentifier) }
  }

  // MARK: Borrowed threads (vfork)

  /// The host thread changes from this thread to the one that `departure` means: the child of its vfork, which runs in
  /// the parent's address space until it executes or ends, or back to the parent. For the last function on this
  /// thread's stack. The other thread goes on from its frame.
  public func changeThreads() -> ThreadChange {
    let isLent = departure == .lend
    guard let other = isLent ? borrower : lender else { preconditionFailure("nothing is lent") }
    // Kept for when the host thread comes back: attention for what was asked for meanwhile.
    departure = .none
    machine_store(&block.pointee.attention, 1)
    if isLent {
      if other.block.pointee.fs_base != 0 { host.setThreadPointer(UInt(other.block.pointee.fs_base)) }
      return ThreadChange(to: other.block, from: block, function: leaveWithLock)
    }
    lender = nil
    return ThreadChange(to: other.block, from: block, function: resumeLender)
  }
}

/// Arguments of `ThreadMemory.continue`.
public struct ThreadChange {
  public let to: UnsafeMutablePointer<thread_block>
  public let from: UnsafeMutablePointer<thread_block>
  public let function: @convention(c) () -> Void
}

/// On the new thread's stack, kernel lock held: leave.
private func leaveWithLock() { KernelLock.release() }

/// On the parent's stack, kernel lock held.
private func resumeLender() {
  resumeParent()
  KernelLock.release()
}

@inline(never)
private func resumeParent() {
  let parent = LinuxThread.running
  if let child = parent.borrower {
    parent.borrower = nil
    if child.startsProcess {
      do throws(Errno) { try host.startProcess(child.block) } catch {
        child.process.beginGroupExit(status: Signal.kill)
        child.exit()
        threadMemory.retire(child.block, inUse: false)
      }
    } else {
      threadMemory.retire(child.block, inUse: false)
    }
  }
}
