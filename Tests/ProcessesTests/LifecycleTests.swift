import ABI
import CMachine
import Tasks
import Testing

@testable import Processes

extension ProcessesTests {
  @Suite("Life of processes", .serialized) struct LifecycleTests {
    let world: World

    init() throws { world = try World() }

    @Test("an ignored SIGCHLD reaps at once, and wait then says ECHILD")
    func reaping() throws {
      let child = try world.child(of: world.first)
      var ignoring = SignalAction()
      ignoring.handler = SignalAction.ignoreHandler
      _ = try world.first.signalAction(Signal.child, new: ignoring)
      world.enter(child)
      child.exit(code: 3)
      #expect(ProcessTable.process(child.process.pid) == nil)
      #expect(code { () throws(Errno) in _ = try world.first.wait(.any, .exited) } == 10)
    }

    @Test("wait leaves the zombie with WNOWAIT, and chooses by pid, group and clone signal")
    func selection() throws {
      let child = try world.child(of: world.first)
      let clone = try world.child(of: world.first)
      clone.process.exitSignal = 0
      let pid = child.process.pid
      #expect(try world.first.wait(.any, [.exited, .noHang]) == nil)
      #expect(code { () throws(Errno) in _ = try world.first.wait(.process(77), .exited) } == 10)
      #expect(code { () throws(Errno) in _ = try world.first.wait(.any, .noHang) } == 22)
      child.exit(code: 5)
      clone.exit(code: 6)
      #expect(try world.first.wait(.group(1), [.exited, .noWait])?.status == 5 << 8)
      #expect(try world.first.wait(.process(pid), .exited)?.detail == 5)
      #expect(code { () throws(Errno) in _ = try world.first.wait(.any, .exited) } == 10)
      #expect(try world.first.wait(.any, [.exited, .clone])?.pid == clone.process.pid)
    }

    @Test("a sleeping wait is woken by the child's end")
    func sleepingWait() throws {
      let child = try world.child(of: world.first)
      world.machine.whenParked = [{ child.exit(code: 1) }]
      #expect(try world.first.wait(.any, .exited)?.status == 256)
    }

    @Test("children of the dead go to the nearest subreaper, else to pid 1")
    func reparenting() throws {
      let reaper = try world.child(of: world.first)
      let middle = try world.child(of: reaper)
      let leaf = try world.child(of: middle)
      reaper.process.isChildSubreaper = true
      middle.exit()
      #expect(leaf.process.parent === reaper.process)
      reaper.exit()
      #expect(leaf.process.parent === world.first.process)
      #expect(world.first.process.children.contains { $0 === middle.process })
    }

    @Test("a group orphaned with stopped members gets SIGHUP and SIGCONT")
    func orphans() throws {
      let shell = try world.child(of: world.first)
      _ = try shell.process.startSession()
      let job = try world.child(of: shell)
      try shell.process.setProcessGroup(of: job.process.pid, to: 0)
      try shell.kill(job.process.pid, Signal.stop)
      world.machine.whenParked = [{ shell.exit() }]
      #expect(world.safePoint(job))
      #expect(job.process.exitStatus == Signal.hangup)
    }

    @Test("setpgid and setsid keep POSIX's rules")
    func groups() throws {
      let parent = world.first.process
      let child = try world.child(of: world.first).process
      let grandchild = try ProcessTable.createProcess(parent: child, block: World.block()).process
      func set(_ pid: Int32, _ group: Int32) -> Int32 {
        code { () throws(Errno) in try parent.setProcessGroup(of: pid, to: group) }
      }
      #expect(set(child.pid, -1) == 22)
      #expect(set(grandchild.pid, 0) == 3)
      #expect(set(0, 0) == 1)
      #expect(set(child.pid, 4242) == 1)
      #expect(set(child.pid, 0) == 0)
      #expect(code { () throws(Errno) in _ = try child.startSession() } == 1)
      child.hasExecuted = true
      #expect(set(child.pid, 1) == 13)
      #expect(try grandchild.startSession() == grandchild.pid)
      #expect(try parent.session(of: grandchild.pid) == grandchild.pid)
    }

    @Test("numbers wrap, skip what is in use, and end with EAGAIN")
    func numbers() throws {
      ProcessTable.maximumIdentifier = 4
      let second = try world.child(of: world.first)
      let third = try world.sibling(of: second)
      _ = try world.child(of: world.first)
      #expect(
        code { () throws(Errno) in _ = try ProcessTable.createThread(in: second.process, block: World.block())
        } == 11)
      third.exit()
      #expect(try world.sibling(of: second).tid == third.tid)
    }

    @Test("execve ends the other threads, takes the leader's number and resets handlers")
    func execution() throws {
      let leader = try world.child(of: world.first)
      let other = try world.sibling(of: leader)
      world.enter(other)
      _ = try other.signalAction(10, new: handler(0x4000))
      let world = world
      world.machine.whenParked = [
        {
          world.safePoint(leader)
          world.enter(other)
        }
      ]
      try other.process.endOtherThreads(other)
      other.prepareForExecution()
      #expect(leader.hasExited && other.tid == other.process.pid)
      #expect(ProcessTable.thread(other.tid) === other && other.process.threads.count == 1)
      #expect(other.process.actions[10].handler == SignalAction.defaultHandler)
      #expect(!other.process.isExiting && !other.hasPendingInterrupt)
    }

    @Test("futexes wake by count and bits, and requeue the rest")
    func futexes() throws {
      let word = UnsafeMutablePointer<UInt32>.allocate(capacity: 2)
      word.initialize(repeating: 0, count: 2)
      let address = UInt(bitPattern: word)
      let thread = world.first
      func wait(_ value: UInt32, _ deadline: UInt64?) -> Int32 {
        code { () throws(Errno) in
          try Futex.wait(address, value: value, deadline: deadline, isShared: false, thread: thread)
        }
      }
      #expect(wait(1, nil) == 11)
      #expect(wait(0, 2000) == 110)
      let key = try Futex.key(address, isShared: false, thread: thread)
      for bits: UInt32 in [1, 2, 1, 1, 1] {
        Futex.enqueue(Futex.FutexWaiter(key: key, bits: bits, thread: thread))
      }
      #expect(try Futex.wake(address, count: 9, bits: 2, isShared: false, thread: thread) == 1)
      let result = try Futex.requeue(
        address, to: address + 4, count: 1, moved: 2, expected: 0, isShared: false, thread: thread)
      #expect(result.woken == 1 && result.moved == 2)
      #expect(try Futex.wake(address, count: 9, isShared: false, thread: thread) == 1)
      // FUTEX_OP_ADD 1, compared with FUTEX_OP_CMP_EQ 0.
      let operation: UInt32 = 1 << 28 | 1 << 12
      let woken = try Futex.wakeOperation(
        address, address + 4, count: 1, secondCount: 9, operation: operation, isShared: false, thread: thread)
      #expect(woken == 2 && word[1] == 1)
      #expect(
        code { () throws(Errno) in
          _ = try Futex.wake(address + 1, count: 1, isShared: false, thread: thread)
        } == 22)
    }

    @Test("an owner's death marks its robust locks, and a broken list ends the walk")
    func robust() throws {
      let memory = UnsafeMutablePointer<UInt>.allocate(capacity: 8)
      memory.initialize(repeating: 0, count: 8)
      let child = try world.child(of: world.first)
      let base = UInt(bitPattern: memory)
      // Head: first entry, offset of the word, pending operation. The entry points nowhere.
      memory[0] = base + 32
      memory[1] = 8
      memory[4] = UserSlice.limit
      memory[5] = UInt(child.tid) | 0x8000_0000
      memory[6] = 99
      child.robustList = base
      child.clearChildAddress = base + 48
      world.enter(child)
      child.exit()
      #expect(memory[5] == 0xc000_0000)
      #expect(memory[6] == 0)
    }

    @Test("a lock with an owner is handed over")
    func ownedLocks() throws {
      let word = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)
      word.initialize(to: 0)
      let address = UInt(bitPattern: word)
      let first = world.first
      let second = try world.sibling(of: first)
      func lock(_ thread: LinuxThread, tries: Bool) -> Int32 {
        code { () throws(Errno) in
          try Futex.lock(address, deadline: nil, tries: tries, isShared: false, thread: thread)
        }
      }
      #expect(lock(first, tries: false) == 0 && word.pointee == UInt32(first.tid))
      #expect(lock(first, tries: false) == 35)
      #expect(lock(second, tries: true) == 11)
      #expect(code { () throws(Errno) in try Futex.unlock(address, isShared: false, thread: second) } == 1)
      world.machine.whenParked = [{ try? Futex.unlock(address, isShared: false, thread: first) }]
      world.enter(second)
      #expect(lock(second, tries: false) == 0 && word.pointee == UInt32(second.tid))
    }
  }
}
