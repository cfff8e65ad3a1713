import ABI
import Foundation
import Tasks
import Testing
import VFS

@Suite("inotify, mounts, record locks", .serialized) struct NotificationTests {
  private func context() -> FileSystemContext {
    FileSystemContext(
      root: Path(inode: TemporaryFileSystem.makeRoot(), name: [], parent: nil),
      credentials: Credentials(user: 0, group: 0, groups: []))
  }

  /// Masks and names of the events that wait.
  private func events(_ instance: Inotify) throws -> [(mask: UInt32, name: String)] {
    guard !instance.readiness().isEmpty else { return [] }
    let raw = try instance.get(4096)
    var result: [(mask: UInt32, name: String)] = []
    var at = 0
    while at + 16 <= raw.count {
      func word(_ offset: Int) -> UInt32 {
        (0..<4).reduce(0) { $0 | UInt32(raw[at + offset + $1]) << UInt32(8 * $1) }
      }
      let length = Int(word(12))
      let name = raw[(at + 16)..<(at + 16 + length)].prefix { $0 != 0 }
      result.append((word(4), String(decoding: name, as: UTF8.self)))
      at += 16 + length
    }
    return result
  }

  @Test func `A directory's watcher hears of names that come, change and go`() throws {
    try IPCFakeHost.run { (_) throws in
      let files = context()
      let instance = try Inotify(flags: 0o4000)
      defer { instance.released() }
      _ = try instance.add(files.root.inode, mask: FileEvent.all.rawValue)
      try files.makeDirectory(bytes("d"), mode: 0o755)
      try files.makeNode(bytes("f"), mode: 0o100644, device: 0)
      try files.rename(bytes("f"), to: bytes("g"), flags: 0)
      try files.changeMode(try files.resolve(bytes("g")), 0o600)
      try files.unlink(bytes("g"), directory: false)
      let heard = try events(instance)
      #expect(heard.map(\.mask) == [0x4000_0100, 0x100, 0x40, 0x80, 0x4, 0x200])
      #expect(heard.map(\.name) == ["d", "f", "f", "g", "g", "g"])
    }
  }

  @Test func `A watched file that goes ends its watch`() throws {
    try IPCFakeHost.run { (_) throws in
      let files = context()
      let instance = try Inotify(flags: 0o4000)
      defer { instance.released() }
      let inode = try files.makeNode(bytes("f"), mode: 0o100644, device: 0)
      let watch = try instance.add(inode, mask: FileEvent.all.rawValue)
      #expect(errno { _ = try instance.add(inode, mask: 0x1000_0fff) } == .fileExists)
      try files.unlink(bytes("f"), directory: false)
      #expect(try events(instance).map(\.mask) == [0x4, 0x400, 0x8000])
      #expect(errno { try instance.remove(watch) } == .invalid)
    }
  }

  @Test func `A read-only mount refuses what its own root allows`() throws {
    try IPCFakeHost.run { (_) throws in
      let files = context()
      try files.makeDirectory(bytes("m"), mode: 0o755)
      let place = try files.resolve(bytes("m"))
      let root = TemporaryFileSystem.makeFileSystem(mode: 0o755, user: 0, group: 0)
      MountTable.mount(root, on: place.inode, place: bytes("/m"))
      try files.makeDirectory(bytes("m/d"), mode: 0o755)
      let mount = try #require(MountTable.mount(at: try files.resolve(bytes("m"))))
      mount.flags = 1
      MountTable.update()
      #expect(errno { try files.makeDirectory(bytes("m/e"), mode: 0o755) } == .readOnlyFileSystem)
      #expect(errno { try files.makeDirectory(bytes("m/d"), mode: 0o755) } == .fileExists)
      #expect(errno { try files.unlink(bytes("m/none"), directory: false) } == .readOnlyFileSystem)
      #expect(errno { try files.rename(bytes("m/d"), to: bytes("d"), flags: 0) } == .crossDevice)
      #expect(errno { try files.changeMode(try files.resolve(bytes("m/d")), 0) } == .readOnlyFileSystem)
      try MountTable.unmount(mount)
      #expect(errno { _ = try files.resolve(bytes("m/d")) } == .noSuchFile)
    }
  }

  @Test func `A directory may be mounted over itself`() throws {
    try IPCFakeHost.run { (_) throws in
      let files = context()
      try files.makeDirectory(bytes("s"), mode: 0o755)
      let place = try files.resolve(bytes("s"))
      MountTable.mount(place.inode, on: place.inode, place: bytes("/s"))
      try files.makeDirectory(bytes("s/d"), mode: 0o755)
      try MountTable.unmount(try #require(MountTable.mount(at: place)))
      #expect(try files.resolve(bytes("s/d")).inode.isDirectory)
    }
  }

  @Test func `The first lock in the way is told, whatever the order they came in`() throws {
    try IPCFakeHost.run { (_) throws in
      let locks = RecordLocks()
      let (one, other) = (VFS.Pipe(), VFS.Pipe())
      func lock(_ owner: VFS.Pipe, _ start: Int64, _ end: Int64) -> RecordLock {
        RecordLock(owner: ObjectIdentifier(owner), process: 7, isExclusive: true, start: start, end: end)
      }
      for start in [Int64(40), 0, 20] { try locks.take(lock(one, start, start + 10), waits: false) }
      #expect(locks.conflict(lock(other, 0, .max))?.start == 0)
      #expect(locks.conflict(lock(other, 15, .max))?.start == 20)
      #expect(errno { try locks.take(lock(other, 45, 46), waits: false) } == .again)
    }
  }
}
