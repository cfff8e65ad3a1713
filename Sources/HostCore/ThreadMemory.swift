public import ABI
import CHostCore
public import CMachine
public import Tasks

/// Thread stacks, used again once their host thread has gone. Kernel lock held.
public final class ThreadStacks {
  private var retired: [UnsafeMutablePointer<thread_block>] = []
  public init() {}

  public func make() throws(Errno) -> UnsafeMutablePointer<thread_block> {
    var i = retired.count - 1
    while i >= 0 {
      let block = retired[i]
      if machine_load(&block.pointee.occupied) == 0 {
        retired.remove(at: i)
        ThreadStack.initialise(block)
        return block
      }
      i -= 1
    }
    return try ThreadStack.make()
  }

  /// `occupied` is 1 until the host thread has left the stack.
  public func retire(_ block: UnsafeMutablePointer<thread_block>, inUse: Bool) {
    machine_store(&block.pointee.occupied, inUse ? 1 : 0)
    retired.append(block)
  }

  /// Makes the calling host thread the thread of `block`: it goes on at its top of stack in `function`, then leaves.
  public func `continue`(
    as block: UnsafeMutablePointer<thread_block>, from old: UnsafeMutablePointer<thread_block>,
    _ function: @convention(c) () -> Void
  ) -> Never {
    block.pointee.host_process = old.pointee.host_process
    block.pointee.host_thread = old.pointee.host_thread
    old.pointee.host_thread = 0
    host.adopt(block)
    continuation = function
    switch_stack(block.pointee.frame, continueAdopted)
  }
}

/// What `ThreadStacks.continue` goes on with. Kernel lock held.
nonisolated(unsafe) private var continuation: (@convention(c) () -> Void)?

/// First on the new stack.
private func continueAdopted() {
  let function = continuation
  host.adopted()
  function?()
}
