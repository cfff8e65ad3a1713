import ABI
import Foundation
import Tasks
import Testing
import VFS

@Suite("Pipes, epoll, poll, eventfd, timerfd", .serialized) struct PipeEpollTests {
  let nonblocking: UInt32 = 0o4000

  @Test func `A pipe carries bytes in order through wraps of its ring`() throws {
    try IPCFakeHost.run { (_) throws in
      let pipe = Pipe.make(flags: nonblocking)
      var random = SystemLike(state: 42)
      var sent: UInt8 = 0
      var received: UInt8 = 0
      for _ in 0..<2000 {
        let chunk = (0..<Int(random.next() % 3000)).map { _ -> UInt8 in
          sent &+= 1
          return sent &- 1
        }
        let taken: Int
        do { taken = try chunk.isEmpty ? 0 : pipe.writer.put(chunk) } catch { taken = 0 }
        sent &-= UInt8(truncatingIfNeeded: chunk.count - taken)
        do {
          for byte in try pipe.reader.get(Int(random.next() % 3000) + 1) {
            #expect(byte == received)
            received &+= 1
          }
        } catch { #expect(error as? Errno == .again) }
      }
    }
  }

  @Test func `Small writes to a nearly full pipe are all or nothing`() throws {
    try IPCFakeHost.run { (_) throws in
      let pipe = Pipe.make(flags: nonblocking)
      #expect(try pipe.writer.put([UInt8](repeating: 1, count: 70000)) == 65536)
      #expect(!pipe.writer.readiness().contains(.writable))
      #expect(try pipe.reader.get(100).count == 100)
      #expect(errno { _ = try pipe.writer.put([UInt8](repeating: 1, count: 101)) } == .again)
      #expect(try pipe.writer.put([UInt8](repeating: 1, count: 5000)) == 100)
      #expect(errno { _ = try pipe.writer.setCapacity(4096) } == .busy)
      #expect(try pipe.writer.setCapacity(100_000) == 131_072)
      #expect(pipe.writer.readiness().contains(.writable))
    }
  }

  @Test func `The ends of a pipe see each other go`() throws {
    try IPCFakeHost.run { (_) throws in
      let pipe = Pipe.make(flags: nonblocking)
      #expect(try pipe.writer.put("x") == 1)
      pipe.writer.released()
      #expect(pipe.reader.readiness() == [.readable, .hangup])
      #expect(try pipe.reader.text() == "x")
      #expect(try pipe.reader.text() == "")
      let other = Pipe.make(flags: nonblocking)
      other.reader.released()
      #expect(other.writer.readiness().contains(.error))
      #expect(errno { _ = try other.writer.put("x") } == .brokenPipe)
    }
  }

  @Test func `A FIFO without a reader refuses a writer that does not wait`() throws {
    try IPCFakeHost.run { (_) throws in
      let fifo = VFS.Pipe()
      let inode = PipeInodes.anonymous(mode: 0o010600)
      #expect(errno { _ = try fifo.openFIFO(inode: inode, flags: 0o4001) } == .noSuchDevice)
      let reader = try fifo.openFIFO(inode: inode, flags: 0o4000)
      #expect(reader.readiness() == [])
      let writer = try fifo.openFIFO(inode: inode, flags: 0o4001)
      #expect(try writer.put("hi") == 2)
      writer.released()
      #expect(reader.readiness() == [.readable, .hangup])
    }
  }

  @Test func `A blocked reader is woken by a writer on another thread`() throws {
    try IPCFakeHost.run { (_) throws in
      let pipe = Pipe.make()
      nonisolated(unsafe) let writer = pipe.writer
      let other = Foundation.Thread {
        usleep(2000)
        IPCFakeHost.asThread { _ = try? writer.put("late") }
      }
      other.start()
      #expect(try pipe.reader.text() == "late")
    }
  }

  @Test func `Level, edge and one-shot items report as epoll says`() throws {
    try IPCFakeHost.run { (_) throws in
      let epoll = Epoll()
      let pipes = (0..<3).map { _ in Pipe.make(flags: nonblocking) }
      try epoll.add(1, pipes[0].reader, events: 1, data: 10)
      try epoll.add(2, pipes[1].reader, events: 1 | 1 << 31, data: 20)
      try epoll.add(3, pipes[2].reader, events: 1 | 1 << 30, data: 30)
      #expect(try epoll.poll().isEmpty)
      for pipe in pipes { _ = try pipe.writer.put("ab") }
      #expect(try epoll.poll().map(\.data) == [10, 20, 30])
      #expect(try epoll.poll().map(\.data) == [10])
      for pipe in pipes { _ = try pipe.writer.put("ab") }
      #expect(try epoll.poll().map(\.data).sorted() == [10, 20])
      try epoll.modify(3, pipes[2].reader, events: 1 | 1 << 30, data: 31)
      #expect(try epoll.poll().map(\.data).sorted() == [10, 31])
      _ = try pipes[0].reader.get()
      #expect(try epoll.poll().isEmpty)
      pipes[0].writer.released()
      #expect(try epoll.poll().map(\.events) == [0x10])
      Epoll.forget(pipes[0].reader)
      #expect(try epoll.poll().isEmpty)
      epoll.released()
    }
  }

  @Test func `Epoll takes turns when there is room for few events`() throws {
    try IPCFakeHost.run { (_) throws in
      let epoll = Epoll()
      var seen: Set<UInt64> = []
      let events = (0..<5).map { _ in EventFile(initial: 1, flags: 0) }
      for (index, file) in events.enumerated() {
        try epoll.add(Int32(index), file, events: 1, data: UInt64(index))
      }
      for _ in 0..<3 { for found in try epoll.poll(2) { seen.insert(found.data) } }
      #expect(seen.count == 5)
      epoll.released()
    }
  }

  @Test func `Epoll refuses what it must`() throws {
    try IPCFakeHost.run { (_) throws in
      let (a, b) = (Epoll(), Epoll())
      let file = EventFile(initial: 1, flags: 0)
      try a.add(3, file, events: 1, data: 0)
      #expect(errno { try a.add(3, file, events: 1, data: 0) } == .fileExists)
      #expect(errno { try a.remove(4, file) } == .noSuchFile)
      #expect(errno { try a.add(5, a, events: 1, data: 0) } == .invalid)
      try b.add(6, a, events: 1, data: 7)
      #expect(errno { try a.add(7, b, events: 1, data: 0) } == .tooManySymlinks)
      #expect(try b.poll().map(\.data) == [7])
      a.released()
      b.released()
    }
  }

  @Test func `An epoll wait ends at its deadline, and early when a timer fires`() throws {
    try IPCFakeHost.run { (fake) throws in
      let epoll = Epoll()
      let timer = try TimerFile(clock: 1, flags: nonblocking)
      try epoll.add(1, timer, events: 1, data: 5)
      #expect(try epoll.poll(deadline: fake.monotonicNanoseconds + 1_000_000).isEmpty)
      timer.set(value: 1_000_000, interval: 1_000_000, isAbsolute: false)
      #expect(try epoll.poll(deadline: fake.monotonicNanoseconds + 2_000_000_000).map(\.data) == [5])
      fake.skipped = 10_000_000
      Timers.run(now: fake.monotonicNanoseconds)
      epoll.released()
      timer.released()
    }
  }

  @Test func `Poll and select report ready descriptors and bad ones`() throws {
    try IPCFakeHost.run { (_) throws in
      let pipe = Pipe.make(flags: nonblocking)
      _ = try pipe.writer.put("x")
      var entries = [PollEntry(file: pipe.reader, events: 1), PollEntry(file: pipe.writer, events: 1)]
      #expect(try Poll.wait(&entries, deadline: 0) == 1)
      #expect(entries.map(\.results) == [1, 0])
      var polled: [UInt8] = [3, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0]
      let found = try polled.withUnsafeMutableBytes {
        try Poll.poll(UserSlice(kernel: $0), deadline: 0) { $0 == 3 ? pipe.reader : nil }
      }
      #expect(found == 2)
      #expect(polled[6] == 1 && polled[14] == 0x20)
      var readSet: UInt64 = 1 << 3
      var writeSet: UInt64 = 1 << 4
      let selected = try withUnsafeMutablePointer(to: &readSet) { read in
        try withUnsafeMutablePointer(to: &writeSet) { write in
          try Poll.select(
            count: 5, read: UInt(bitPattern: read), write: UInt(bitPattern: write), except: 0, deadline: 0
          ) { $0 == 3 ? pipe.reader : $0 == 4 ? pipe.writer : nil }
        }
      }
      #expect(selected == 2 && readSet == 8 && writeSet == 16)
    }
  }

  @Test func `An event file counts, and counts down as a semaphore`() throws {
    try IPCFakeHost.run { (_) throws in
      let event = EventFile(initial: 3, flags: nonblocking)
      var value: UInt64 = 4
      try withUnsafeMutableBytes(of: &value) { _ = try event.write(UserSlice(kernel: $0)) }
      #expect(try event.get(8)[0] == 7)
      #expect(errno { _ = try event.get(8) } == .again)
      let semaphore = EventFile(initial: 2, flags: 1 | nonblocking)
      #expect(try semaphore.get(8)[0] == 1)
      #expect(try semaphore.get(8)[0] == 1)
      #expect(semaphore.readiness() == .writable)
    }
  }
}

/// A small seeded generator.
struct SystemLike {
  var state: UInt64
  mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return state >> 33
  }
}
