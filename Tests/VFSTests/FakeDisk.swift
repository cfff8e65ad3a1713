import ABI
import Ext4
import Foundation
import Tasks

/// A disk in memory that records what is written, and fails on demand.
final class FakeDisk: BlockDevice {
  enum Event {
    case write(offset: Int, bytes: [UInt8])
    case flush
  }

  var bytes: [UInt8]
  var events: [Event] = []
  var isReadOnly = false
  var failsReads = false
  var failsWrites = false
  var size: UInt64 { UInt64(bytes.count) }

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  func read(_ target: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(Errno) {
    guard !failsReads, Int(offset) + target.count <= bytes.count else { throw .inputOutput }
    target.copyBytes(from: bytes[Int(offset)..<Int(offset) + target.count])
  }

  func write(_ source: UnsafeRawBufferPointer, at offset: UInt64) throws(Errno) {
    guard !failsWrites, Int(offset) + source.count <= bytes.count else { throw .inputOutput }
    events.append(.write(offset: Int(offset), bytes: Array(source)))
    bytes.replaceSubrange(Int(offset)..<Int(offset) + source.count, with: source)
  }

  var discarded: UInt64 = 0

  /// What is discarded reads as anything.
  func discard(at offset: UInt64, count: UInt64) {
    discarded += count
    for place in Int(offset)..<Int(offset + count) { bytes[place] = 0xdd }
  }

  func flush() throws(Errno) {
    guard !failsWrites else { throw .inputOutput }
    events.append(.flush)
  }
}

/// Frames of ordinary memory; what is not given back is missing from `freeFrames`.
final class TestFrames: FrameAllocator {
  private let memory: UnsafeMutableRawPointer
  private var used: [Bool]
  let base: UInt
  let totalFrames: Int
  private(set) var freeFrames: Int

  init(_ count: Int) {
    memory = .allocate(byteCount: count << 12, alignment: 4096)
    base = UInt(bitPattern: memory)
    used = [Bool](repeating: false, count: count)
    totalFrames = count
    // The libOS's own data begins at offset 0 of an arena: no file has that frame.
    used[0] = true
    freeFrames = count - 1
  }

  deinit { memory.deallocate() }

  func allocate(_ count: Int) throws(Errno) -> UInt {
    var run = 0
    for index in 0..<used.count {
      run = used[index] ? 0 : run + 1
      guard run == count else { continue }
      let first = index + 1 - count
      for frame in first...index { used[frame] = true }
      freeFrames -= count
      (memory + first << 12).initializeMemory(as: UInt8.self, repeating: 0, count: count << 12)
      return UInt(first) << 12
    }
    throw .noMemory
  }

  func free(_ offset: UInt, _ count: Int) {
    for frame in Int(offset >> 12)..<Int(offset >> 12) + count {
      precondition(used[frame], "a frame is freed twice")
      used[frame] = false
    }
    freeFrames += count
  }
}

struct SeededRandom {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }
  mutating func next() -> UInt64 {
    state ^= state >> 12
    state ^= state << 25
    state ^= state >> 27
    return state &* 0x2545_F491_4F6C_DD1D
  }
  mutating func below(_ limit: Int) -> Int { Int(next() >> 33) % limit }
  mutating func bytes(_ count: Int) -> [UInt8] {
    let first = next()
    return (0..<count).map { UInt8(truncatingIfNeeded: first &+ UInt64($0 &* 7 &+ $0 >> 6)) }
  }
}

/// mke2fs and e2fsck.
enum FileSystemTools {
  static func run(_ program: String, _ arguments: [String]) throws -> (status: Int32, output: String) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/sbin/\(program)")
    process.arguments = arguments
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = pipe
    try process.run()
    let data = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: data, as: UTF8.self))
  }

  private static func temporary() -> URL {
    FileManager.default.temporaryDirectory.appendingPathComponent("volume-tests-\(UUID().uuidString)")
  }

  /// A file system of `size` with `files` in it, as mke2fs makes it.
  static func make(_ size: String, _ options: [String], _ files: [String: [UInt8]]) throws -> [UInt8] {
    let directory = temporary()
    defer { try? FileManager.default.removeItem(at: directory) }
    let tree = directory.appendingPathComponent("tree")
    try FileManager.default.createDirectory(at: tree, withIntermediateDirectories: true)
    for (name, content) in files { try Data(content).write(to: tree.appendingPathComponent(name)) }
    let image = directory.appendingPathComponent("image").path
    let result = try run("mke2fs", ["-q", "-t", "ext4"] + options + ["-d", tree.path, image, size])
    guard result.status == 0 else { throw CocoaError(.fileWriteUnknown) }
    return Array(try Data(contentsOf: URL(fileURLWithPath: image)))
  }

  /// The options of an image's root (RootFileSystem).
  static let rootOptions = [
    "-b", "4096", "-g", "2048", "-N", "128", "-m", "0", "-E", "num_backup_sb=0,lazy_itable_init=1", "-O",
    "none,extent,dir_index,filetype,meta_bg,sparse_super2,large_file,huge_file,dir_nlink,extra_isize"
      + ",metadata_csum,metadata_csum_seed,64bit",
  ]

  /// What e2fsck has to say; empty when the file system is clean.
  static func check(_ bytes: [UInt8]) throws -> String {
    let image = temporary()
    defer { try? FileManager.default.removeItem(at: image) }
    try Data(bytes).write(to: image)
    let result = try run("e2fsck", ["-fn", image.path])
    return result.status == 0 ? "" : result.output
  }
}
