import ABI
import CLinuxHost
import CMachine
import Tasks

/// The host process that the user started: parent of all the others. It passes the user's signals on, stands in for
/// the poller while every thread runs application code, and ends the unikernel when a host process dies.
public enum Supervisor {
  // SIGHUP, INT, QUIT, USR1, USR2, TERM, CHLD, CONT, WINCH, and the limit of memory
  private static let signals: UInt64 = bits([1, 2, 3, 10, 12, 15, 17, 18, 28, memoryLimit])
  /// SIGRTMIN+1 as glibc counts, with a value (sigqueue(3)): the unikernel's memory from now on in MiB, and above bit
  /// 24 how many seconds programs have to give the rest back; 0 for the usual.
  private static let memoryLimit = 35

  private static func bits(_ list: [10 of Int]) -> UInt64 {
    var set: UInt64 = 0
    for i in 0..<10 { set |= 1 << UInt64(list[i] - 1) }
    return set
  }

  /// Starts the first host process: returns in it. The caller stays behind as the supervisor and never returns.
  /// `deliver` is called with a signal, the kernel lock held.
  public static func fork(_ block: UnsafeMutablePointer<thread_block>, deliver: (Int32) -> Void) {
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
    supervise(block, deliver: deliver)
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

  /// Ends the process that holds most while more is in use than there may be: again and again, until there is room.
  private static func enforceLimit() {
    let page = LinuxHost.meter.page
    page.pointee.room = frames.freeFrames - Revocation.enforced
    guard page.pointee.privateFrames > page.pointee.room, page.pointee.largestProcess != 0,
      KernelLock.tryAcquire()
    else { return }
    endLargest()
    KernelLock.release()
  }

  @inline(never)
  private static func endLargest() { MemoryLimit.relieve?() }

  private static func supervise(
    _ block: UnsafeMutablePointer<thread_block>, deliver: (Int32) -> Void
  ) -> Never {
    _ = LinuxCall.raw(LinuxCall.archPrctl, 0x1001, Int(bitPattern: block))
    Seal.install()
    var idle = 0
    var waiting: UInt64 = 0  // the user's signals that are still to be delivered
    var limit: Int?
    while true {
      let page = LinuxHost.meter.page
      let isNearLimit = page.pointee.privateFrames > page.pointee.room / 2
      let (signal, value) = wait(
        milliseconds: idle < 50 || waiting != 0 || limit != nil || isNearLimit ? 1 : 10)
      enforceLimit()
      reap()
      if signal == memoryLimit {
        limit = value
      } else if signal > 0, signal != 17 {
        waiting |= 1 << UInt64(signal)
      }
      if waiting != 0 || limit != nil, KernelLock.tryAcquire() {
        deliverAll(waiting, deliver)
        if let limit { changeLimit(limit) }
        waiting = 0
        limit = nil
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
  private static func changeLimit(_ value: Int) {
    let seconds = UInt64(value >> 24 & 0x7f)
    Revocation.limit(
      frames: (value & 0xff_ffff) << 8, grace: seconds == 0 ? Revocation.usualGrace : seconds * 1_000_000_000)
  }

  @inline(never)
  private static func deliverAll(_ waiting: UInt64, _ deliver: (Int32) -> Void) {
    for number in 1..<32 where waiting & (1 << UInt64(number)) != 0 { deliver(Int32(number)) }
  }

  /// The next signal, 0 or less without one in time, and the value that came with it.
  private static func wait(milliseconds: Int64) -> (signal: Int, value: Int) {
    var set = signals
    var time = host_timespec(seconds: 0, nanoseconds: milliseconds * 1_000_000)
    var information: [16 of UInt64] = .init(repeating: 0)  // siginfo_t; si_value is at 24
    let signal = withUnsafePointer(to: &set) { set in
      withUnsafePointer(to: &time) { time in
        withUnsafeMutablePointer(to: &information) {
          LinuxCall.raw(128, Int(bitPattern: set), Int(bitPattern: $0), Int(bitPattern: time), 8)
        }
      }
    }
    return (signal, Int(UInt32(truncatingIfNeeded: information[3])))
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
