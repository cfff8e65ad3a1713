import ABI
import Sockets
import Tasks
import Testing
import VFS

@Suite("Unix sockets", .serialized) struct UnixSocketTests {
  let nonblocking: UInt32 = 0o4000

  private func receive(_ socket: Socket, _ count: Int, _ flags: MessageFlags = []) throws -> (
    String, SocketMessage
  ) {
    var bytes = [UInt8](repeating: 0, count: count)
    let message = try bytes.withUnsafeMutableBytes {
      try socket.receive([UserSlice(kernel: $0)], flags: flags)
    }
    return (String(decoding: bytes[..<min(message.count, count)], as: UTF8.self), message)
  }

  private func send(_ socket: Socket, _ text: String, to: [UInt8]? = nil, files: [OpenFile] = []) throws
    -> Int
  {
    var control = SocketControl()
    control.files = files
    return try Array(text.utf8).withUnsafeBytes {
      try socket.send([UserSlice(kernel: $0)], flags: [], destination: to, control: control)
    }
  }

  @Test func `A stream pair carries bytes and tells of the end`() throws {
    try IPCFakeHost.run { (_) throws in
      let (a, b) = try UnixSocket.pair(type: 1, flags: nonblocking)
      #expect(errno { _ = try b.text() } == .again)
      #expect(try a.put("hello") == 5)
      #expect(try receive(b, 3, .peek).0 == "hel")
      #expect(try b.text() == "hello")
      try a.shutdown(1)
      #expect(try b.text() == "")
      #expect(b.readiness() == [.readable, .writable, .readHangup])
      #expect(errno { _ = try a.put("x") } == .brokenPipe)
      b.released()
      #expect(a.readiness().contains(.hangup))
    }
  }

  @Test func `A stream listener accepts in order and refuses once closed`() throws {
    try IPCFakeHost.run { (_) throws in
      let name: [UInt8] = [1, 0, 0, 0x61]
      let listener = try UnixSocket(type: 1, flags: nonblocking)
      try listener.bind(name)
      try listener.listen(backlog: 1)
      let client = try UnixSocket(type: 1, flags: nonblocking)
      #expect(errno { _ = try listener.accept(flags: 0) } == .again)
      try client.connect(name)
      #expect(listener.readiness() == .readable)
      #expect(try client.put("early") == 5)
      let server = try listener.accept(flags: nonblocking)
      #expect(try server.text() == "early")
      #expect(try client.peerName() == name)
      #expect(errno { try client.connect(name) } == .isConnected)
      let other = try UnixSocket(type: 1)
      #expect(errno { try other.bind(name) } == .addressInUse)
      #expect(errno { try UnixSocket(type: 2).connect(name) } == .wrongProtocolType)
      listener.released()
      #expect(errno { try UnixSocket(type: 1).connect(name) } == .connectionRefused)
    }
  }

  @Test(arguments: [Int32(2), Int32(5)]) func `Messages keep their boundaries`(type: Int32) throws {
    try IPCFakeHost.run { (_) throws in
      let (a, b) = try UnixSocket.pair(type: type, flags: nonblocking)
      _ = try send(a, "first")
      _ = try send(a, "")
      _ = try send(a, "third")
      let (text, message) = try receive(b, 2, .truncated)
      #expect(text == "fi" && message.count == 5 && message.flags.contains(.truncated))
      #expect(try receive(b, 9).0 == "")
      #expect(try receive(b, 9).0 == "third")
      #expect(errno { _ = try receive(b, 9) } == .again)
      while errno({ _ = try send(a, "fill") }) == nil {}
      #expect(!a.readiness().contains(.writable))
      _ = try receive(b, 9)
      #expect(a.readiness().contains(.writable))
    }
  }

  @Test func `A datagram tells its sender's address`() throws {
    try IPCFakeHost.run { (_) throws in
      let server = try UnixSocket(type: 2, flags: nonblocking)
      try server.bind([1, 0, 0, 0x73])
      let client = try UnixSocket(type: 2, flags: nonblocking)
      try client.bind([1, 0])
      _ = try send(client, "ping", to: [1, 0, 0, 0x73])
      let (text, message) = try receive(server, 9)
      #expect(text == "ping")
      #expect(message.address.count == 8)
      let clientName = try client.name()
      #expect(message.address == clientName)
      server.released()
      client.released()
    }
  }

  @Test(arguments: [Int32(1), Int32(2)]) func `Descriptors travel with their bytes`(type: Int32) throws {
    try IPCFakeHost.run { (_) throws in
      let (a, b) = try UnixSocket.pair(type: type, flags: nonblocking)
      let pipe = Pipe.make(flags: nonblocking)
      pipe.writer.references = 1
      _ = try send(a, "xx")
      _ = try send(a, "yy", files: [pipe.writer])
      #expect(pipe.writer.references == 2)
      #expect(try receive(b, 2).1.control.files.isEmpty)
      let (text, message) = try receive(b, 9)
      #expect(text == "yy" && message.control.files.count == 1)
      message.control.discard()
      #expect(pipe.writer.references == 1)
      // In flight when the receiver goes: the last reference goes with it.
      _ = try send(a, "zz", files: [pipe.writer])
      pipe.writer.references -= 1
      b.released()
      #expect(pipe.reader.readiness().contains(.hangup))
    }
  }
}
