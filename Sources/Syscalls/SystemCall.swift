public import ABI
public import CMachine
public import Processes
import Tasks

/// One system call of a program: its arguments as the program's registers have them, and who makes it.
///
/// The families (one file each) extend it with a method a call, named as Linux names it: decode, check, one call
/// into the libOS, copy out. Kernel lock held. Interrupted waits throw `.interrupted`; the dispatcher decides on
/// restarting (signal(7)).
public struct SystemCall {
  public let frame: UnsafeMutablePointer<trap_frame>
  public let number: Int

  public init(frame: UnsafeMutablePointer<trap_frame>, number: Int) {
    self.frame = frame
    self.number = number
  }

  @inline(__always) var a: UInt { UInt(frame.pointee.rdi) }
  @inline(__always) var b: UInt { UInt(frame.pointee.rsi) }
  @inline(__always) var c: UInt { UInt(frame.pointee.rdx) }
  @inline(__always) var d: UInt { UInt(frame.pointee.r10) }
  @inline(__always) var e: UInt { UInt(frame.pointee.r8) }
  @inline(__always) var f: UInt { UInt(frame.pointee.r9) }

  /// An argument as C's `int`.
  @inline(__always) func int(_ value: UInt) -> Int32 { Int32(truncatingIfNeeded: value) }
  @inline(__always) func unsigned(_ value: UInt) -> UInt32 { UInt32(truncatingIfNeeded: value) }

  @inline(__always) var thread: LinuxThread { LinuxThread.running }
  @inline(__always) var process: Process { LinuxThread.running.process }
}
