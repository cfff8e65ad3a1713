import ABI
import CMachine
import Tasks
import Testing

@testable import Processes

/// One serial suite: every test sets up the global tables anew.
@Suite("Processes", .serialized) struct ProcessesTests {}

extension ProcessesTests {
  @Suite("Signals", .serialized) struct SignalTests {
    let world: World
    let child: LinuxThread

    init() throws {
      world = try World()
      child = try world.child(of: world.first)
      world.enter(child)
    }

    @Test("standard signals are remembered once, real-time signals queue in order")
    func queueing() throws {
      child.setMask(SignalSet(rawValue: .max))
      for value in 1...3 {
        var information = SignalInformation(34, code: SignalInformation.queue)
        information.value = UInt64(value)
        try child.process.send(information)
        try child.kill(child.process.pid, 10)
      }
      #expect(child.pendingAndBlocked == [SignalSet(10), SignalSet(34)])
      var taken: [UInt64] = []
      while let information = child.takeSignal(blocked: SignalSet(10)) { taken.append(information.value) }
      #expect(taken == [1, 2, 3])
      #expect(child.takeSignal(blocked: [])?.signal == 10)
      #expect(child.takeSignal(blocked: []) == nil)
    }

    @Test("a full queue answers EAGAIN for queued real-time signals only")
    func limit() {
      child.process.limits[ResourceLimit.pendingSignals].soft = 1
      child.setMask(SignalSet(rawValue: .max))
      let queued = SignalInformation(35, code: SignalInformation.queue)
      #expect(code { () throws(Errno) in try child.process.send(queued) } == 0)
      #expect(code { () throws(Errno) in try child.process.send(queued) } == 11)
      #expect(code { () throws(Errno) in try child.kill(child.process.pid, 12) } == 0)
      #expect(child.process.pending.set.has(12))
    }

    @Test("SIGKILL and SIGSTOP can be neither blocked nor caught")
    func unblockable() {
      child.setMask(SignalSet(rawValue: .max))
      #expect(!child.mask.has(Signal.kill) && !child.mask.has(Signal.stop))
      let action = handler(0x4000)
      #expect(code { () throws(Errno) in _ = try child.signalAction(Signal.kill, new: action) } == 22)
      #expect(code { () throws(Errno) in _ = try child.signalAction(0, new: nil) } == 22)
      #expect(code { () throws(Errno) in _ = try child.signalAction(65, new: nil) } == 22)
    }

    @Test("an unhandled SIGTERM ends every thread and the parent learns of it")
    func termination() throws {
      let other = try world.sibling(of: child)
      try world.first.kill(child.process.pid, Signal.terminate)
      #expect(child.hasPendingInterrupt && other.hasPendingInterrupt)
      #expect(world.safePoint(other))
      #expect(!child.process.isZombie)
      #expect(world.safePoint(child))
      #expect(child.process.isZombie)
      world.enter(world.first)
      let result = try world.first.wait(.any, .exited)
      #expect(result?.pid == child.process.pid)
      #expect(result?.status == Signal.terminate)
      #expect(result?.code == SignalInformation.childKilled)
      #expect(code { () throws(Errno) in _ = try world.first.wait(.any, .exited) } == 10)
    }

    @Test("ignored signals vanish and blocked ones wait")
    func ignored() throws {
      try child.kill(child.process.pid, Signal.child)
      #expect(child.process.pending.set.isEmpty)
      child.setMask(SignalSet(Signal.child))
      try child.kill(child.process.pid, Signal.child)
      #expect(child.process.pending.set.has(Signal.child))
      var ignoring = SignalAction()
      ignoring.handler = SignalAction.ignoreHandler
      _ = try child.signalAction(Signal.child, new: ignoring)
      #expect(child.process.pending.set.isEmpty)
    }

    @Test("pid 1 is protected from inside and ends on a signal from outside")
    func protection() throws {
      let initial = world.first.process
      try child.kill(1, Signal.kill)
      try child.kill(1, Signal.terminate)
      #expect(!initial.isExiting)
      initial.notify(SignalInformation(Signal.terminate, code: SignalInformation.kernel), fromOutside: true)
      #expect(initial.isExiting)
      var status: Int32 = 0
      ProcessTable.initEnded = { status = $0 }
      #expect(world.safePoint(world.first))
      #expect(status == Signal.terminate)
    }

    @Test("a process signal goes to a thread that does not block it, and moves on when that thread blocks it")
    func choice() throws {
      let other = try world.sibling(of: child)
      _ = try child.signalAction(10, new: handler(0x4000))
      child.setMask(SignalSet(10))
      try child.kill(child.process.pid, 10)
      #expect(!child.hasPendingInterrupt && other.hasPendingInterrupt)
      child.setMask([])
      other.setMask(SignalSet(10))
      #expect(child.hasPendingInterrupt && !other.hasPendingInterrupt)
    }

    @Test("stop and continue are reported once each, and SIGKILL ends a stopped process")
    func stopping() throws {
      let group = child.process.pid
      let pid = child.process.pid
      try world.first.process.setProcessGroup(of: pid, to: group)
      try world.first.kill(pid, Signal.stop)
      let first = world.first
      var reports: [Int32] = []
      world.machine.whenParked = [
        {
          let options: WaitOptions = [.stopped, .noHang]
          reports.append(((try? first.wait(.any, options)) ?? nil)?.status ?? -1)
          reports.append(((try? first.wait(.any, options)) ?? nil)?.status ?? -1)
          try? first.kill(pid, Signal.continue)
        }
      ]
      #expect(!world.safePoint(child))
      #expect(reports == [Signal.stop << 8 | 0x7f, -1])
      let continued = try first.wait(.process(pid), [.continued, .noHang])
      #expect(continued?.status == 0xffff)
      try first.kill(pid, Signal.stop)
      world.machine.whenParked = [{ try? first.kill(pid, Signal.kill) }]
      #expect(world.safePoint(child))
      #expect(child.process.exitStatus == Signal.kill)
    }

    @Test("kill checks users, groups and numbers")
    func permissions() throws {
      let other = try world.child(of: world.first)
      child.process.credentials.realUser = 1000
      child.process.credentials.effectiveUser = 1000
      let pid = other.process.pid
      #expect(code { () throws(Errno) in try child.kill(pid, 10) } == 1)
      #expect(code { () throws(Errno) in try child.kill(pid, Signal.continue) } == 0)
      #expect(code { () throws(Errno) in try child.kill(9999, 0) } == 3)
      #expect(code { () throws(Errno) in try child.kill(pid, 65) } == 22)
      #expect(code { () throws(Errno) in try child.kill(.min, 9) } == 3)
      #expect(code { () throws(Errno) in try child.kill(thread: child.tid, in: pid, 0) } == 3)
      #expect(code { () throws(Errno) in try child.kill(thread: 0, in: nil, 0) } == 22)
    }

    @Test("sigtimedwait takes a blocked signal, and times out with EAGAIN")
    func timedWait() throws {
      child.setMask(SignalSet(12))
      try child.kill(child.process.pid, 12)
      #expect(try child.waitForSignal(SignalSet(12), deadline: 0).signal == 12)
      #expect(code { () throws(Errno) in _ = try child.waitForSignal(SignalSet(12), deadline: 0) } == 11)
      #expect(code { () throws(Errno) in _ = try child.waitForSignal(SignalSet(12), deadline: 5000) } == 11)
      let thread = child
      world.machine.whenParked = [{ try? thread.kill(thread.process.pid, 12) }]
      #expect(try child.waitForSignal(SignalSet(12), deadline: .max).signal == 12)
      #expect(child.mask == SignalSet(12) && !child.process.isExiting)
    }

    @Test("interval timers repeat and POSIX timers count overruns")
    func timers() throws {
      child.setMask(SignalSet(rawValue: .max))
      _ = try child.process.setIntervalTimer(0, TimerSetting(value: 100, interval: 50))
      let identifier = try child.process.createTimer(
        clock: .monotonic, notification: 0, signal: 40, value: 7, tid: 0)
      _ = try child.process.setTimer(identifier, TimerSetting(value: 100, interval: 10), isAbsolute: false)
      world.machine.now += 155
      Timers.run(now: world.machine.now)
      #expect(child.pendingAndBlocked.has(Signal.alarm))
      let information = child.takeSignal(blocked: SignalSet(rawValue: ~SignalSet(40).rawValue))
      #expect(information?.value == 7)
      #expect(try child.process.timerOverrun(identifier) == 5)
      #expect(try child.process.intervalTimer(0).value == 45)
      // A signal that is discarded does not silence the timer.
      var ignoring = SignalAction()
      ignoring.handler = SignalAction.ignoreHandler
      Timers.run(now: world.machine.now + 10)
      _ = try child.signalAction(40, new: ignoring)
      #expect(!child.pendingAndBlocked.has(40))
      _ = try child.signalAction(40, new: handler(0x4000))
      Timers.run(now: world.machine.now + 30)
      #expect(child.pendingAndBlocked.has(40))
      try child.process.deleteTimer(identifier)
      #expect(code { () throws(Errno) in try child.process.deleteTimer(identifier) } == 22)
      child.exit()
      #expect(Timers.nextDeadline == .max)
    }

    @Test("timers on processor time stand while nothing is used, and are looked at more seldom then")
    func processorTime() throws {
      child.setMask(SignalSet(rawValue: .max))
      let millisecond: UInt64 = 1_000_000
      world.machine.used = 5 * millisecond
      _ = try child.process.setIntervalTimer(
        2, TimerSetting(value: 10 * millisecond, interval: 10 * millisecond))
      var looks = 0
      let end = world.machine.now + 2000 * millisecond
      while Timers.nextDeadline < end {
        world.machine.now = Timers.nextDeadline
        Timers.run(now: world.machine.now)
        looks += 1
      }
      #expect(!child.pendingAndBlocked.has(Signal.profiling))
      #expect(looks < 40)
      #expect(try child.process.intervalTimer(2).value == 10 * millisecond)
      // Expirations that nobody saw are one signal, and the next is due where it would have been.
      world.machine.used = 37 * millisecond
      world.machine.now = Timers.nextDeadline
      Timers.run(now: world.machine.now)
      #expect(child.takeSignal(blocked: [])?.signal == Signal.profiling)
      #expect(try child.process.intervalTimer(2).value == 8 * millisecond)
      _ = try child.process.setIntervalTimer(2, TimerSetting(value: 0, interval: 0))
      #expect(Timers.nextDeadline == .max)
    }
  }
}
