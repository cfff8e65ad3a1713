import Ext4
import Foundation
import Testing

/// e2fsprogs, the oracle: what they make we must read, what we write they must find clean.
struct HostTools {
  let directory: URL

  init() throws {
    let memory = URL(fileURLWithPath: "/dev/shm")
    let base =
      FileManager.default.isWritableFile(atPath: memory.path)
      ? memory : FileManager.default.temporaryDirectory
    directory = base.appendingPathComponent("ext4-tests-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
  }

  func remove() { try? FileManager.default.removeItem(at: directory) }

  var image: URL { directory.appendingPathComponent("image") }

  struct Result {
    var status: Int32
    var output: String
  }

  func run(_ program: String, _ arguments: [String]) throws -> Result {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/sbin/\(program)")
    process.arguments = arguments
    process.environment = ["PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "E2FSPROGS_FAKE_TIME": "1700000000"]
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = pipe
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let data = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return Result(status: process.terminationStatus, output: String(decoding: data, as: UTF8.self))
  }

  /// A file system made by mke2fs, in memory.
  func make(_ size: String, _ options: [String] = []) throws -> MemoryDevice {
    try? FileManager.default.removeItem(at: image)
    let result = try run("mke2fs", ["-q", "-t", "ext4"] + options + [image.path, size])
    try #require(result.status == 0, "\(result.output)")
    return try load()
  }

  func load() throws -> MemoryDevice {
    let data = try Data(contentsOf: image, options: .alwaysMapped)
    return data.withUnsafeBytes { MemoryDevice($0) }
  }

  func save(_ device: MemoryDevice) throws {
    let data = Data(
      bytesNoCopy: try #require(device.bytes.baseAddress), count: device.bytes.count, deallocator: .none)
    try data.write(to: image)
  }

  /// What e2fsck has to say; empty when the file system is clean.
  func check(_ device: MemoryDevice) throws -> String {
    try save(device)
    let result = try run("e2fsck", ["-fn", image.path])
    return result.status == 0 ? "" : result.output
  }

  func debugfs(_ commands: [String], writing: Bool = false) throws -> String {
    let script = directory.appendingPathComponent("script")
    try commands.joined(separator: "\n").write(to: script, atomically: true, encoding: .utf8)
    return try run("debugfs", (writing ? ["-w"] : []) + ["-f", script.path, image.path]).output
  }
}

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

extension FileSystem {
  func find(_ path: String) throws -> DiskInode {
    var inode = try inode(FileSystem.rootNumber)
    for part in path.split(separator: "/") {
      let number = try lookup(Array(part.utf8), in: inode)
      release(inode)
      inode = try self.inode(number)
    }
    return inode
  }

  func contents(_ inode: DiskInode) throws -> [UInt8] {
    var result = [UInt8](repeating: 0xAA, count: Int(inode.size))
    let count = try result.withUnsafeMutableBytes { try read(inode, at: 0, into: $0) }
    #expect(count == result.count)
    return result
  }

  func write(_ inode: DiskInode, at offset: UInt64, _ bytes: [UInt8]) throws {
    try bytes.withUnsafeBytes { try write(inode, at: offset, $0) }
  }

  func list(_ directory: DiskInode) throws -> [DirectoryEntry] {
    var result: [DirectoryEntry] = []
    var cookie: UInt64 = 0
    while true {
      let part = try entries(of: directory, after: cookie)
      guard let last = part.last else { return result }
      result += part
      cookie = last.cookie
    }
  }

  func makeFile(_ name: String, in directory: DiskInode, _ contents: [UInt8] = []) throws -> DiskInode {
    let inode = try create(bytes(name), in: directory, NewFile(mode: 0o100644))
    if !contents.isEmpty { try write(inode, at: 0, contents) }
    return inode
  }

  func makeDirectory(_ name: String, in directory: DiskInode) throws -> DiskInode {
    try create(bytes(name), in: directory, NewFile(mode: 0o040755))
  }
}
