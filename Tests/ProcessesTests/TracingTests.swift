import ABI
import CMachine
import Tasks
import Testing

@testable import Processes

extension ProcessesTests {
  @Suite("Tracing", .serialized) struct TracingTests {
    let world: World
    let child: LinuxThread

    init() throws {
      world = try World()
      child = try world.child(of: world.first)
      world.enter(child)
      try child.askForTracing()
    }

    /// The tracer's turn, when the tracee has stopped.
    private func whenStopped(_ body: @escaping (Tracing) throws -> Void) {
      world.machine.whenParked.append {
        world.enter(world.first)
        #expect(throws: Never.self) { try body(try world.first.stoppedTracee(child.tid)) }
        world.enter(child)
      }
    }

    @Test("a signal is the tracer's to pass on, change or drop")
    func signals() throws {
      for signal: Int32 in [Signal.terminate, Signal.child] {
        child.process.notify(SignalInformation(signal, code: SignalInformation.user))
        whenStopped {
          let result = try world.first.wait(.any, [.noHang, .exited])
          #expect(result?.pid == child.tid && result?.status == signal << 8 | 0x7f)
          try $0.resume(.run, signal: 0)
        }
        #expect(!world.safePoint(child))
      }
      child.process.notify(SignalInformation(Signal.child, code: SignalInformation.user))
      whenStopped { try $0.resume(.run, signal: UInt(Signal.terminate)) }
      #expect(world.safePoint(child))
      #expect(child.process.exitStatus == Signal.terminate)
    }

    @Test("a tracer hears of the end before the parent, and a tracee outlives its tracer")
    func ends() throws {
      let other = try world.child(of: world.first)
      world.enter(other)
      let grandchild = try world.child(of: child)
      try other.trace(grandchild, isSeized: true, options: [])
      grandchild.process.beginGroupExit(status: Signal.kill)
      #expect(world.safePoint(grandchild))
      world.enter(child)
      #expect(try child.wait(.any, [.noHang, .exited]) == nil)
      world.enter(other)
      #expect(try other.wait(.any, [.noHang, .exited])?.pid == grandchild.tid)
      world.enter(child)
      #expect(try child.wait(.any, [.noHang, .exited])?.pid == grandchild.tid)
      world.enter(world.first)
      world.first.releaseTracees()
      #expect(child.tracing == nil && !child.process.isExiting)
    }

    @Test("registers that a program cannot have are refused")
    func registers() throws {
      let frame = UnsafeMutablePointer<trap_frame>.allocate(capacity: 1)
      frame.initialize(to: trap_frame())
      child.block.pointee.frame = frame
      let words = child.userRegisters
      for (index, value) in [
        (16, UInt64(UserSlice.reserved.lowerBound)), (16, .max), (17, 0), (19, 1 << 63), (20, 0),
        (21, 1 << 63),
        (22, 1), (24, 8),
      ] {
        var changed = words
        changed[index] = value
        #expect(code { () throws(Errno) in try child.setUserRegisters(changed) } == 5)
      }
      var changed = words
      changed[18] = .max
      try child.setUserRegisters(changed)
      #expect(frame.pointee.rflags == trap_frame.settableFlags && child.callNumber == nil)
    }

    @Test("watchpoints of reads are refused")
    func watchpoints() {
      var watchpoints = Watchpoints()
      #expect(code { () throws(Errno) in try watchpoints.set(7, 0x3_0001) } == 22)
      #expect(code { () throws(Errno) in try watchpoints.set(4, 0) } == 5)
      #expect(code { () throws(Errno) in try watchpoints.set(0, .max) } == 22)
      #expect(!watchpoints.areSet)
      #expect(code { () throws(Errno) in try watchpoints.set(7, 0xd_0001) } == 0)
      #expect(watchpoints.areSet)
    }
  }
}
