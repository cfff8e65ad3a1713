import ABI
import CMachine
import Processes
import Syscalls
import Tasks

/// What Linux's OOM killer is to Linux: when more memory is in use than `-m` allows, the process that holds most ends.
enum OutOfMemory {
  /// Kernel lock held; called by the supervisor, which is no thread of a program.
  static func end(hostProcess: UInt64, frames held: Int) {
    for process in ProcessTable.processes.values where !process.isExiting {
      guard process.threads.contains(where: { $0.block.pointee.host_process == hostProcess }) else {
        continue
      }
      var line = TraceLine()
      line.text("swiftlet: out of memory: killed process ")
      line.number(Int(process.pid))
      line.text(" (")
      line.bytes(process.name)
      line.text("), which had ")
      line.number(held >> 8)
      line.text(" MiB of its own; -m is ")
      line.number(Tasks.frames.totalFrames >> 8)
      line.text("M")
      line.end()
      process.beginGroupExit(status: Signal.kill)
      return
    }
  }
}
