import ABI
import CMachine
import Tasks
import Testing

@testable import Processes

extension ProcessesTests {
  @Suite("Signal frames", .serialized) struct SignalFrameTests {
    let world: World
    let thread: LinuxThread
    let stack = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 64)

    init() throws {
      world = try World()
      thread = try world.child(of: world.first)
      world.enter(thread)
      stack.initializeMemory(as: UInt8.self, repeating: 0)
    }

    private func sampleFrame() -> trap_frame {
      var frame = trap_frame()
      withUnsafeMutableBytes(of: &frame) { bytes in
        for index in bytes.indices { bytes[index] = UInt8(truncatingIfNeeded: index &* 7) }
      }
      frame.rip = 0x40_1000
      frame.rsp = UInt64(UInt(bitPattern: stack.baseAddress)) + 60000
      frame.rflags = 0x246
      frame.kind = 0
      frame.address = 0
      return frame
    }

    private func bytes(_ frame: trap_frame) -> [UInt8] { withUnsafeBytes(of: frame) { [UInt8]($0) } }

    @Test("a handler's frame brings back every register, the mask and the vector state")
    func roundTrip() throws {
      var vectors = [UInt8](repeating: 0, count: 832)
      for index in 0..<464 { vectors[index] = UInt8(truncatingIfNeeded: index) }
      vectors.setField(24, UInt32(0x1f80))
      vectors[512] = 7
      vectors[800] = 0xaa
      VectorState.restore(vectors)
      _ = try thread.signalAction(10, new: handler(0x4000, flags: SignalAction.information, mask: 0xf0))
      thread.setMask(SignalSet(5))
      try thread.kill(thread.process.pid, 10)
      var frame = sampleFrame()
      let original = frame
      _ = thread.deliverSignals(frame: &frame, number: nil)
      #expect(frame.rip == 0x4000 && frame.rdi == 10 && frame.rsp % 16 == 8)
      #expect(thread.mask == SignalSet(rawValue: 0xf0 | 1 << 9 | 1 << 4))
      #expect(try UserSlice.load(UInt(frame.rsi), Int32(0)) == 10)
      #expect(try UserSlice.load(UInt(frame.rsp), UInt64(0)) == 0x5000)
      let vectorAddress = try UserSlice.load(UInt(frame.rsp) + 232, UInt(0))
      #expect(vectorAddress % 64 == 0)
      #expect(try UserSlice.load(vectorAddress + 464, UInt32(0)) == VectorState.magic1)
      #expect(try UserSlice.load(vectorAddress + 832, UInt32(0)) == VectorState.magic2)

      VectorState.restore([UInt8](repeating: 0, count: 832))
      frame.rsp += 8
      frame.rax = 15
      #expect(thread.returnFromSignal(frame: &frame))
      #expect(bytes(frame) == bytes(original))
      #expect(thread.mask == SignalSet(5))
      let back = VectorState.save()
      #expect(Array(back[0..<464]) == Array(vectors[0..<464]) && back[800] == 0xaa && back[512] == 7)
    }

    @Test("a call restarts after a handler only if the handler and the call allow it")
    func restart() throws {
      let results: [(Int64, UInt64, Bool)] = [
        (-512, 0, false), (-512, SignalAction.restart, true), (-513, 0, true),
        (-514, SignalAction.restart, false), (-516, SignalAction.restart, false),
      ]
      for (result, flags, restarts) in results {
        _ = try thread.signalAction(10, new: handler(0x4000, flags: flags))
        try thread.kill(thread.process.pid, 10)
        var frame = sampleFrame()
        frame.rax = UInt64(bitPattern: result)
        _ = thread.deliverSignals(frame: &frame, number: 61)
        frame.rsp += 8
        #expect(thread.returnFromSignal(frame: &frame))
        #expect(frame.rip == (restarts ? 0x40_0ffe : 0x40_1000))
        #expect(frame.rax == (restarts ? 61 : UInt64(bitPattern: -4)))
      }
      for result: Int64 in [-512, -513, -514, -516] {
        var frame = sampleFrame()
        frame.rax = UInt64(bitPattern: result)
        _ = thread.deliverSignals(frame: &frame, number: 61)
        // restart_syscall(2) for what has a deadline.
        #expect(frame.rip == 0x40_0ffe && frame.rax == (result == -516 ? 219 : 61))
      }
    }

    @Test("handlers run on the alternate stack, are reset and leave their signal open when asked to")
    func flags() throws {
      var alternate = AlternateStack()
      alternate.address = UInt(bitPattern: stack.baseAddress)
      alternate.size = 16384
      alternate.flags = 0
      try thread.setAlternateStack(alternate, stackPointer: 0)
      let flags = SignalAction.onStack | SignalAction.resetHandler | SignalAction.noDefer
      _ = try thread.signalAction(10, new: handler(0x4000, flags: flags))
      try thread.kill(thread.process.pid, 10)
      var frame = sampleFrame()
      _ = thread.deliverSignals(frame: &frame, number: nil)
      #expect(alternate.contains(UInt(frame.rsp)))
      #expect(thread.process.actions[10].handler == SignalAction.defaultHandler)
      #expect(!thread.mask.has(10))
      let refused = code { () throws(Errno) in
        try thread.setAlternateStack(alternate, stackPointer: UInt(frame.rsp))
      }
      #expect(refused == 1)
    }

    @Test("a stack outside user space and a blocked fault end the process with SIGSEGV")
    func badStack() throws {
      _ = try thread.signalAction(10, new: handler(0x4000))
      try thread.kill(thread.process.pid, 10)
      var frame = sampleFrame()
      frame.rsp = 0x1000_0000_1000
      guard case .exit = thread.deliverSignals(frame: &frame, number: nil) else {
        Issue.record("the process goes on")
        return
      }
      #expect(thread.process.exitStatus == Signal.segmentation)
      let other = try world.child(of: world.first)
      _ = try other.signalAction(Signal.segmentation, new: handler(0x4000))
      other.setMask(SignalSet(Signal.segmentation))
      other.raiseFault(signal: Signal.segmentation, code: 1, address: 0x10)
      #expect(world.safePoint(other))
    }

    @Test("random frames never trap rt_sigreturn and never give addresses outside user space")
    func fuzz() throws {
      var generator = SeededGenerator(state: 42)
      let base = UInt64(UInt(bitPattern: stack.baseAddress))
      for round in 0..<400 {
        for index in 30000..<32000 { stack[index] = UInt8.random(in: 0...255, using: &generator) }
        func put(_ offset: Int, _ value: UInt64) {
          stack.storeBytes(of: value, toByteOffset: 30000 + offset, as: UInt64.self)
        }
        // Hosted copies do not fault, so the pointer stays inside the buffer or outside user space.
        let pointers: [UInt64] = [0, base + 31000, 0x1000_0000_0000, .max - UInt64(round)]
        put(SignalFrameLayout.vectorPointer, pointers[round % 4])
        if round % 3 != 0 {
          put(SignalFrameLayout.registers + 128, UInt64.random(in: 0...0xffff_ffff, using: &generator))
          put(SignalFrameLayout.registers + 120, UInt64.random(in: 0...0xffff_ffff, using: &generator))
        }
        var frame = trap_frame()
        frame.rflags = 0x202
        frame.rsp = base + 30008
        let isGood = thread.returnFromSignal(frame: &frame)
        if isGood {
          #expect(trap_frame.isProgramAddress(frame.rip))
          #expect(frame.rflags & ~trap_frame.settableFlags == 0x202)
        }
        #expect(isGood == (round % 3 != 0 && round % 4 < 2))
        #expect(!thread.mask.has(Signal.kill))
        _ = thread.takeSignal(blocked: [])
      }
      var frame = trap_frame()
      for stackPointer: UInt64 in [0, 7, .max, 0x7fff_ffff_f000, 0x1000_0000_0010] {
        if stackPointer == 0 || stackPointer == 7 { continue }
        frame.rsp = stackPointer
        #expect(!thread.returnFromSignal(frame: &frame))
      }
    }
  }
}
