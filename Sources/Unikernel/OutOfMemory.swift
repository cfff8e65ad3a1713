import ABI
import CMachine
import Processes
import Syscalls
import Tasks

/// What Linux's OOM killer is to Linux: when more memory is in use than there may be, the process that holds most ends.
enum OutOfMemory {
  /// Kernel lock held; called by the supervisor, which is no thread of a program, until there is room.
  static func end(hostProcess: UInt64, frames held: Int) {
    var victim: Process?
    var youngest: Process?
    for process in ProcessTable.processes.values where !process.isZombie {
      // Somebody is on the way out: what that gives back is not known yet.
      if process.isExiting { return }
      if process.threads.contains(where: { $0.block.pointee.host_process == hostProcess }) {
        victim = process
      }
      if process.startTime >= youngest?.startTime ?? 0 { youngest = process }
    }
    // The whole unikernel ends with pid 1: not for what many others hold together.
    if let first = victim, first.isInit, held < (memoryMeter?.privateFrames ?? 0) / 2 { victim = youngest }
    if let victim { end(victim, held) }
  }

  /// The same where a process can be asked what it holds. Of processes about as big the youngest ends.
  static func end(_ held: (UnsafeMutablePointer<thread_block>) -> Int) {
    var victim: (process: Process, frames: Int)?
    var others = 0
    var initial: (process: Process, frames: Int)?
    for process in ProcessTable.processes.values where !process.isZombie {
      if process.isExiting { return }
      guard let thread = process.threads.first(where: { $0.block.pointee.host_thread != 0 }) else { continue }
      let count = held(thread.block)
      if process.isInit {
        initial = (process, count)
        continue
      }
      others += count
      let most = victim?.frames ?? 0
      let isYounger = process.startTime >= victim?.process.startTime ?? 0
      if count > most + most / 8 || isYounger && count + count / 8 >= most { victim = (process, count) }
    }
    // The whole unikernel ends with pid 1: not for what many others hold together.
    if let first = initial, first.frames > others + others / 8 { victim = first }
    if let victim { end(victim.process, victim.frames) }
  }

  private static func end(_ process: Process, _ held: Int) {
    var line = TraceLine()
    line.text("swiftlet: out of memory: killed process ")
    line.number(Int(process.pid))
    line.text(" (")
    line.bytes(process.name)
    line.text("), which had ")
    line.number(held >> 8)
    line.text(" MiB of its own; -m is ")
    line.number(MemoryLimit.total >> 8)
    line.text("M")
    line.end()
    process.beginGroupExit(status: Signal.kill)
  }
}
