import ABI
import Ext4
import Foundation
import Testing

@Suite("Growing, and getting a journal: what an image's root needs")
struct GrowthTests {
  private func options(_ blockSize: Int, _ perGroup: Int) -> [String] {
    [
      "-b", "\(blockSize)", "-g", "\(perGroup)", "-N", "64", "-m", "0", "-E",
      "num_backup_sb=0,lazy_itable_init=1", "-O",
      "none,extent,dir_index,filetype,meta_bg,sparse_super2,large_file,huge_file,dir_nlink,extra_isize"
        + ",metadata_csum,metadata_csum_seed,64bit",
    ]
  }

  /// A small file system on a device with room behind it.
  private func make(_ tools: HostTools, _ blockSize: Int, _ perGroup: Int, _ size: String, room: Int) throws
    -> MemoryDevice
  {
    let small = try tools.make(size, options(blockSize, perGroup))
    let device = MemoryDevice(size: room)
    device.apply(UnsafeRawBufferPointer(small.bytes), 0)
    return device
  }

  @Test(
    "A file system grows by groups, some of them with descriptors of their own, and stays clean",
    arguments: [(1024, 256, "200k", 12 << 20), (1024, 256, "700k", 2 << 20), (4096, 512, "1000k", 70 << 20)])
  func grow(blockSize: Int, perGroup: Int, size: String, room: Int) throws {
    let tools = try HostTools()
    defer { tools.remove() }
    let device = try make(tools, blockSize, perGroup, size, room: room)
    var fileSystem = try FileSystem.mount(device, clock: TestClock())
    let before = fileSystem.statistics
    var root = try fileSystem.inode(FileSystem.rootNumber)
    _ = try fileSystem.makeFile("before", in: root, bytes("still here"))
    try fileSystem.grow(to: UInt64(room / blockSize))
    // Block 0 belongs to no group where blocks are of 1024 bytes.
    let first = blockSize == 1024 ? 1 : 0
    #expect(fileSystem.blockCount == UInt64((room / blockSize - first) / perGroup * perGroup + first))
    #expect(fileSystem.statistics.freeBlocks > before.freeBlocks)
    #expect(fileSystem.statistics.freeInodes > before.freeInodes)
    var random = SeededRandom(7)
    var contents: [String: [UInt8]] = [:]
    for index in 0..<200 {
      let name = "file \(index)"
      contents[name] = random.bytes(random.below(room / 800))
      do { _ = try fileSystem.makeFile(name, in: root, contents[name] ?? []) } catch {
        #expect(error as? Errno == .noSpace)
        contents[name] = nil
        break
      }
    }
    #expect(contents.count > 20)
    try fileSystem.unmount()
    #expect(try tools.check(device) == "")
    fileSystem = try FileSystem.mount(device, clock: TestClock())
    root = try fileSystem.inode(FileSystem.rootNumber)
    for (name, content) in contents { #expect(try fileSystem.contents(try fileSystem.find(name)) == content) }
    #expect(try fileSystem.contents(try fileSystem.find("before")) == bytes("still here"))
    // As large as it gets: nothing more happens.
    try fileSystem.grow(to: UInt64(room / blockSize))
  }

  @Test("A journal that was added is used from the next mount on, by us and by e2fsck")
  func journal() throws {
    let tools = try HostTools()
    defer { tools.remove() }
    let device = try make(tools, 4096, 8192, "1000k", room: 96 << 20)
    var fileSystem = try FileSystem.mount(device, clock: TestClock())
    #expect(!fileSystem.hasJournal)
    try fileSystem.grow(to: 96 << 8)
    try fileSystem.addJournal(blocks: 4096)
    #expect(throws: Errno.invalid) { try fileSystem.addJournal(blocks: 4096) }
    try fileSystem.unmount()
    #expect(try tools.check(device) == "")
    fileSystem = try FileSystem.mount(device, clock: TestClock())
    #expect(fileSystem.hasJournal)
    let root = try fileSystem.inode(FileSystem.rootNumber)
    _ = try fileSystem.makeFile("file", in: root, bytes("in the journal"))
    try fileSystem.synchronize()
    // A crash: e2fsck replays what was committed.
    try tools.save(device)
    #expect(try tools.run("e2fsck", ["-fy", tools.image.path]).status <= 1)
    #expect(try tools.debugfs(["cat file"]).contains("in the journal"))
    #expect(throws: Errno.notSupported) { try fileSystem.grow(to: 96 << 8) }
  }

  @Test("Another UUID leaves all checksums right")
  func identity() throws {
    let tools = try HostTools()
    defer { tools.remove() }
    let device = try make(tools, 4096, 8192, "1000k", room: 1000 << 10)
    try FileSystem.setIdentity(Array(1...16), on: device)
    #expect(try tools.check(device) == "")
    #expect(try FileSystem.mount(device, clock: TestClock(), readOnly: true).identity == Array(1...16))
    let other = try tools.make("1000k", ["-b", "4096", "-O", "^metadata_csum_seed,^has_journal"])
    #expect(throws: MountError.self) { try FileSystem.setIdentity(Array(1...16), on: other) }
  }

  @Test("A file without a name goes with its last user, or gets a name; after a crash it is gone")
  func unnamed() throws {
    let tools = try HostTools()
    defer { tools.remove() }
    let device = try tools.make("8M")
    let fileSystem = try FileSystem.mount(device, clock: TestClock())
    let root = try fileSystem.inode(FileSystem.rootNumber)
    let free = fileSystem.statistics.freeInodes
    let first = try fileSystem.createUnnamed(in: root, NewFile(mode: 0o100600))
    try fileSystem.write(first, at: 0, bytes("gone"))
    let second = try fileSystem.createUnnamed(in: root, NewFile(mode: 0o100600))
    try fileSystem.write(second, at: 0, bytes("kept"))
    let third = try fileSystem.createUnnamed(in: root, NewFile(mode: 0o100600))
    try fileSystem.link(bytes("name"), in: root, to: second)
    fileSystem.release(first)
    fileSystem.release(second)
    try fileSystem.synchronize()
    // `third` is in use when the machine stops.
    let after = MemoryDevice(UnsafeRawBufferPointer(device.bytes))
    let recovered = try FileSystem.mount(after, clock: TestClock())
    #expect(recovered.statistics.freeInodes == free - 1)
    #expect(try recovered.contents(try recovered.find("name")) == bytes("kept"))
    try recovered.unmount()
    #expect(try tools.check(after) == "")
    fileSystem.release(third)
  }
}
