import CMachine
public import Tasks

// Processor time (time(7)). The host measures it; what ended processes have used is kept here.

extension Process {
  /// What all threads of the process have used, ended ones too, in nanoseconds.
  public var processorNanoseconds: UInt64 {
    guard let thread = threads.first(where: { !$0.isBorrowing }) else { return endedProcessorNanoseconds }
    return endedProcessorNanoseconds &+ host.processorNanoseconds(thread.block, wholeProcess: true)
  }

  /// The last thread goes: its host process and what that knows end with it. A borrowed thread's time is its lender's.
  func keepProcessorTime(of last: LinuxThread) {
    guard !last.isBorrowing else { return }
    let used = host.processorNanoseconds(last.block, wholeProcess: true)
    endedProcessorNanoseconds &+= used
    ProcessTable.endedProcessorNanoseconds &+= used
  }

  /// A child has been waited for: its time counts among its parent's children's.
  func addProcessorTime(ofChild child: Process) {
    childrenProcessorNanoseconds &+= child.endedProcessorNanoseconds &+ child.childrenProcessorNanoseconds
  }
}

extension LinuxThread {
  /// What this thread has used, in nanoseconds; 0 for a thread of another process.
  public var processorNanoseconds: UInt64 { host.processorNanoseconds(block, wholeProcess: false) }
}
