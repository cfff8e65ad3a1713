import ABI
import CLinuxHost
import CMachine
import Tasks

/// The host process that the user started: parent of all the others. It passes the user's signals on, stands in for
/// the poller while every thread runs application code, and ends the unikernel when a host process dies.
public enum Supervisor {
  // SIGHUP, INT, QUIT, USR1, USR2, TERM, CHLD, CONT, TSTP, WINCH
  private static let signals: UInt64 = bits([1, 2, 3, 10, 12, 15, 17, 18, 28])

  private static func bits(_ list: [9 of Int]) -> UInt64 {
    var set: UInt64 = 0
    for i in 0..<9 { set |= 1 << UInt64(list[i] - 1) }
    return set
  }

  /// Starts the first host process: returns in it. The caller stays behind as the supervisor and never returns.
  /// Both hooks are called with the kernel lock held: `deliver` with a signal, `outOfMemory`, again and
  /// again while more is in use than `-m` allows, with the host's id of the process that holds most and its frames.
  public static func fork(
    _ block: UnsafeMutablePointer<thread_block>, deliver: (Int32) -> Void, outOfMemory: (Int, Int) -> Void
  ) {
    var set = signals
    _ = withUnsafePointer(to: &set) {
      LinuxCall.raw(LinuxCall.sigprocmask, 0, Int(bitPattern: $0), 0, 8)
    }
    let own = LinuxCall.raw(LinuxCall.getpid)
    LinuxHost.supervisor = own
    Seal.prepare()
    startMeter()
    // No signal at its end, nor at the end of those that it makes: they inherit that with CLONE_PARENT (clone(2)).
    let child = LinuxCall.raw(LinuxCall.clone, 0)
    if child < 0 { LinuxHost.fail("Linux refused a process (RLIMIT_NPROC?)") }
    if child == 0 {
      _ = withUnsafePointer(to: &set) {
        LinuxCall.raw(LinuxCall.sigprocmask, 1, Int(bitPattern: $0), 0, 8)
      }
      return
    }
    supervise(block, deliver: deliver, outOfMemory: outOfMemory)
  }

  private static func startMeter() {
    do throws(Errno) {
      let meter = LinuxMemoryMeter(page: frames.base + (try frames.allocate(1)))
      neverCount(meter)
      meter.page.pointee.room = frames.freeFrames
      memoryMeter = meter
      LinuxHost.meter = meter
      meter.start()
    } catch { LinuxHost.fail("-m is too small: there is no memory for the first process") }
  }

  /// Says so when more is in use than `-m` allows.
  private static func enforceLimit(_ outOfMemory: (Int, Int) -> Void) {
    let page = LinuxHost.meter.page
    page.pointee.room = frames.freeFrames
    let largest = page.pointee.largestProcess
    guard page.pointee.privateFrames > page.pointee.room, largest != 0, KernelLock.tryAcquire() else {
      return
    }
    endLargest(largest, page.pointee.largestFrames, outOfMemory)
    KernelLock.release()
  }

  @inline(never)
  private static func endLargest(_ process: Int, _ frames: Int, _ outOfMemory: (Int, Int) -> Void) {
    outOfMemory(process, frames)
  }

  private static func supervise(
    _ block: UnsafeMutablePointer<thread_block>, deliver: (Int32) -> Void, outOfMemory: (Int, Int) -> Void
  ) -> Never {
    _ = LinuxCall.raw(LinuxCall.archPrctl, 0x1001, Int(bitPattern: block))
    Seal.install()
    var idle = 0
    var waiting: UInt64 = 0  // the user's signals that are still to be delivered
    while true {
      let isNearLimit = LinuxHost.meter.page.pointee.privateFrames > frames.freeFrames / 2
      let signal = wait(milliseconds: idle < 50 || waiting != 0 || isNearLimit ? 1 : 10)
      enforceLimit(outOfMemory)
      reap()
      if signal > 0, signal != 17 { waiting |= 1 << UInt64(signal) }
      if waiting != 0, KernelLock.tryAcquire() {
        deliverAll(waiting, deliver)
        waiting = 0
        KernelLock.release()
      }
      if Devices.isVacant {
        idle = 0
        Devices.stand()
      } else {
        idle += 1
      }
    }
  }

  @inline(never)
  private static func deliverAll(_ waiting: UInt64, _ deliver: (Int32) -> Void) {
    for number in 1..<32 where waiting & (1 << UInt64(number)) != 0 { deliver(Int32(number)) }
  }

  private static func wait(milliseconds: Int64) -> Int {
    var set = signals
    var time = host_timespec(seconds: 0, nanoseconds: milliseconds * 1_000_000)
    return withUnsafePointer(to: &set) { set in
      withUnsafePointer(to: &time) { time in
        LinuxCall.raw(128, Int(bitPattern: set), 0, Int(bitPattern: time), 8)
      }
    }
  }

  private static func reap() {
    while true {
      var status: Int32 = 0
      let child = withUnsafeMutablePointer(to: &status) {
        LinuxCall.raw(LinuxCall.wait4, -1, Int(bitPattern: $0), 0x4000_0001, 0)  // WNOHANG | __WALL
      }
      if machine_load(&LinuxHost.hasExited) != 0 { end(LinuxHost.exitStatus) }
      if child == -10 { end(LinuxHost.exitStatus) }  // ECHILD: the last one is gone
      if child <= 0 { return }
      if status & 0x7f != 0 {
        say("swiftlet: a host process of the unikernel was killed from outside (signal ")
        sayDecimal(Int(status & 0x7f))
        say("); the unikernel ends\n")
        end(128 + (status & 0x7f))
      }
    }
  }

  private static func end(_ status: Int32) -> Never {
    _ = LinuxCall.raw(LinuxCall.exitGroup, Int(status))
    while true {}
  }
}

public func sayDecimal(_ value: Int) {
  if value < 0 { say("-") }
  let value = abs(value)
  if value >= 10 { sayDecimal(value / 10) }
  var digit = UInt8(0x30 + value % 10)
  _ = withUnsafePointer(to: &digit) { LinuxCall.raw(LinuxCall.write, 2, Int(bitPattern: $0), 1) }
}
