import ABI
import Ext4
import Testing

@Suite(.serialized) struct WritingTests {
  @Test("A random workload leaves what the model says, and e2fsck finds it clean", arguments: geometries)
  func workload(options: [String]) throws {
    let tools = try HostTools()
    defer { tools.remove() }
    for seed in 1...(isLong ? 20 : 1) {
      let device = try tools.make("24M", options)
      let clock = TestClock()
      let fileSystem = try FileSystem.mount(device, clock: clock)
      let workload = Workload(fileSystem, device, seed: UInt64(seed))
      for _ in 0..<(isLong ? 600 : 300) { try workload.step() }
      try workload.compare(fileSystem)
      try fileSystem.unmount()
      try #require(try tools.check(device) == "", "seed \(seed)")
      let again = try FileSystem.mount(device, clock: clock)
      try workload.compare(again)
      try again.unmount()
    }
  }

  @Test("A full device gives ENOSPC and stays consistent", arguments: [geometries[0], geometries[1]])
  func full(options: [String]) throws {
    let tools = try HostTools()
    defer { tools.remove() }
    let device = try tools.make("6M", options + ["-N", "100"])
    let fileSystem = try FileSystem.mount(device, clock: TestClock())
    let workload = Workload(fileSystem, device, seed: 7)
    workload.largest = 200_000
    workload.isSpaceScarce = true
    for _ in 0..<1500 { try workload.step() }
    #expect(workload.refused > 50)
    try workload.compare(fileSystem)
    try fileSystem.unmount()
    #expect(try tools.check(device) == "")
  }

  @Test(
    "A directory of many names is found, listed, checked and emptied",
    arguments: [geometries[0], geometries[1]])
  func largeDirectory(options: [String]) throws {
    let tools = try HostTools()
    defer { tools.remove() }
    let count = isLong ? 50_000 : 4000
    let device = try tools.make("64M", options + ["-N", "51000"])
    let fileSystem = try FileSystem.mount(device, clock: TestClock())
    let root = try fileSystem.inode(FileSystem.rootNumber)
    let directory = try fileSystem.makeDirectory("large", in: root)
    for i in 0..<count { fileSystem.release(try fileSystem.makeFile("entry-\(i)", in: directory)) }
    for i in stride(from: 0, to: count, by: 97) {
      _ = try fileSystem.lookup(bytes("entry-\(i)"), in: directory)
    }
    #expect(Set(try fileSystem.list(directory).map { $0.name }).count == count)
    try fileSystem.synchronize()
    try fileSystem.unmount()
    try #require(try tools.check(device) == "")
    let listed = try tools.debugfs(["stat large/entry-\(count - 1)", "htree_dump large"])
    #expect(listed.contains("Type: regular"))
    let again = try FileSystem.mount(device, clock: TestClock())
    let same = try again.find("large")
    for i in 0..<count { try again.unlink(bytes("entry-\(i)"), in: same, isDirectory: false) }
    #expect(try again.list(same).isEmpty)
    again.release(same)
    try again.unlink(bytes("large"), in: again.find(""), isDirectory: true)
    try again.unmount()
    #expect(try tools.check(device) == "")
  }

  @Test("Deep extent trees grow and shrink")
  func deepTree() throws {
    let tools = try HostTools()
    defer { tools.remove() }
    let device = try tools.make("32M", ["-b", "1024"])
    let fileSystem = try FileSystem.mount(device, clock: TestClock())
    let root = try fileSystem.inode(FileSystem.rootNumber)
    let file = try fileSystem.makeFile("sparse", in: root)
    var random = SeededRandom(5)
    var model: [UInt64: [UInt8]] = [:]
    for _ in 0..<(isLong ? 9000 : 2000) {
      let place = UInt64(random.below(4_000_000)) * 1024
      let part = random.bytes(1024)
      model[place] = part
      try fileSystem.write(file, at: place, part)
    }
    for (place, part) in model {
      var found = [UInt8](repeating: 0, count: 1024)
      _ = try found.withUnsafeMutableBytes { try fileSystem.read(file, at: place, into: $0) }
      #expect(found == part)
    }
    fileSystem.release(file)
    try fileSystem.unmount()
    try #require(try tools.check(device) == "")
    let again = try FileSystem.mount(device, clock: TestClock())
    let same = try again.find("sparse")
    try again.allocate(same, offset: 1 << 20, length: 1 << 31, .punchHole)
    try again.synchronize()
    try again.truncate(same, to: 3 << 30)
    again.release(same)
    try again.unlink(bytes("sparse"), in: again.find(""), isDirectory: false)
    try again.unmount()
    #expect(try tools.check(device) == "")
  }
}
