import ABI
import Ext4
import Foundation
import Testing

/// Geometries that mke2fs makes: block sizes, with and without checksums, 64-bit and flexible groups.
let geometries: [[String]] = [
  ["-b", "4096"],
  ["-b", "1024"],
  ["-b", "2048", "-O", "^flex_bg"],
  ["-b", "1024", "-O", "^metadata_csum,uninit_bg"],
  ["-b", "4096", "-O", "^64bit,^metadata_csum"],
  ["-b", "1024", "-I", "128", "-O", "^64bit"],
  ["-b", "4096", "-O", "metadata_csum_seed,^resize_inode,meta_bg"],
  ["-b", "4096", "-O", "^has_journal,sparse_super2"],
]

@Suite(.serialized) struct Ext4Tests {
  @Test("A tree that mke2fs copied in is read as it was", arguments: geometries)
  func readsTree(options: [String]) throws {
    let tools = try HostTools()
    defer { tools.remove() }
    let source = tools.directory.appendingPathComponent("tree")
    var random = SeededRandom(1)
    var files: [String: [UInt8]] = [:]
    try FileManager.default.createDirectory(
      at: source.appendingPathComponent("many"), withIntermediateDirectories: true)
    for i in 0..<700 {
      let name = "many/file-\(i)-" + String(repeating: "x", count: random.below(100))
      files[name] = random.bytes(random.below(300))
    }
    files["big"] = random.bytes(3_000_000)
    files["empty"] = []
    for (name, contents) in files {
      try Data(contents).write(to: source.appendingPathComponent(name))
    }
    let long = String(repeating: "l", count: 200)
    try FileManager.default.createSymbolicLink(
      atPath: source.appendingPathComponent("short").path, withDestinationPath: "many")
    try FileManager.default.createSymbolicLink(
      atPath: source.appendingPathComponent("long").path, withDestinationPath: long)
    let device = try tools.make("24M", options + ["-d", source.path])
    device.isReadOnly = true
    let fileSystem = try FileSystem.mount(device, clock: TestClock())
    for (name, contents) in files {
      #expect(try fileSystem.contents(fileSystem.find(name)) == contents, "\(name)")
    }
    #expect(try fileSystem.list(fileSystem.find("many")).count == 700)
    #expect(try fileSystem.readLink(fileSystem.find("short")) == bytes("many"))
    #expect(try fileSystem.readLink(fileSystem.find("long")) == bytes(long))
    #expect(throws: Errno.noSuchFile) { try fileSystem.find("many/no") }
    #expect(throws: Errno.readOnlyFileSystem) {
      try fileSystem.makeFile("new", in: fileSystem.inode(FileSystem.rootNumber))
    }
  }

  @Test("Mounting and unmounting leaves a clean file system", arguments: geometries)
  func mounts(options: [String]) throws {
    let tools = try HostTools()
    defer { tools.remove() }
    let device = try tools.make("24M", options)
    let fileSystem = try FileSystem.mount(device, clock: TestClock())
    try fileSystem.unmount()
    #expect(try tools.check(device) == "")
  }

  @Test("Unknown incompatible features refuse the mount by name")
  func refusesFeatures() throws {
    let tools = try HostTools()
    defer { tools.remove() }
    for (option, name) in [("inline_data", "inline_data"), ("encrypt", "encrypt"), ("mmp", "mmp")] {
      let device = try tools.make("24M", ["-O", option])
      do {
        _ = try FileSystem.mount(device, clock: TestClock())
        Issue.record("mounted with \(option)")
      } catch {
        #expect("\(error.reason)" == name)
      }
    }
  }
}
