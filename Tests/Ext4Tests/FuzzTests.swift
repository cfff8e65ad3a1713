import ABI
import Ext4
import Foundation
import Testing

/// A device over one image that puts every change back.
final class RestoringDevice: BlockDevice {
  let image: MemoryDevice
  private var saved: [(offset: Int, bytes: [UInt8])] = []
  var calls = 0
  let isReadOnly = false
  var size: UInt64 { image.size }

  init(_ image: MemoryDevice) { self.image = image }

  /// More calls than any honest image needs: somebody goes round in circles.
  private func count() throws(Errno) {
    calls += 1
    precondition(calls < 200_000, "the file system hangs")
  }

  func read(_ bytes: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(Errno) {
    try count()
    try image.read(bytes, at: offset)
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(Errno) {
    try count()
    guard offset <= size, UInt64(bytes.count) <= size - offset else { throw .inputOutput }
    change(Array(bytes), Int(offset))
  }

  func change(_ bytes: [UInt8], _ offset: Int) {
    saved.append((offset, Array(image.bytes[offset..<offset + bytes.count])))
    bytes.withUnsafeBytes { image.apply($0, offset) }
  }

  func flush() throws(Errno) {}

  func restore() {
    for part in saved.reversed() { part.bytes.withUnsafeBytes { image.apply($0, part.offset) } }
    saved = []
    calls = 0
  }
}

@Suite(.serialized) struct FuzzTests {
  static let shapes: [[String]] = [
    ["-b", "1024", "-O", "^metadata_csum,^uninit_bg", "-J", "size=1"],
    ["-b", "1024", "-O", "^metadata_csum,^uninit_bg,^has_journal,^64bit"],
    ["-b", "1024", "-J", "size=1"],
    ["-b", "4096", "-O", "^metadata_csum,^uninit_bg,^has_journal,^extent,^64bit"],
    // An image's root, which grows when it is mounted.
    [
      "-b", "1024", "-g", "512", "-E", "num_backup_sb=0", "-O",
      "none,extent,dir_index,filetype,meta_bg,sparse_super2,large_file,huge_file,extra_isize,uninit_bg,64bit",
    ],
  ]

  @Test("A damaged image gives errors, never a trap or a hang", arguments: shapes)
  func damaged(options: [String]) throws {
    let tools = try HostTools()
    defer { tools.remove() }
    let small = try prepare(tools, options)
    let image = MemoryDevice(size: small.bytes.count + 1 << 20)
    image.apply(UnsafeRawBufferPointer(small.bytes), 0)
    let device = RestoringDevice(image)
    let metadata = interestingBlocks(image)
    var random = SeededRandom(UInt64(firstSeed))
    var mounted = 0
    let count = Int(ProcessInfo.processInfo.environment["EXT4_IMAGES"] ?? "") ?? (isLong ? 300_000 : 400)
    for _ in 0..<count {
      for _ in 0..<(1 + random.below(4)) { mutate(device, metadata, &random) }
      if exercise(device, &random) { mounted += 1 }
      device.restore()
    }
    print("fuzz: \(count) images, \(mounted) mounted, \(options)")
  }

  /// An image with something of everything, and a journal that waits to be replayed.
  private func prepare(_ tools: HostTools, _ options: [String]) throws -> MemoryDevice {
    let tree = tools.directory.appendingPathComponent("tree")
    try FileManager.default.createDirectory(at: tree, withIntermediateDirectories: true)
    for i in 0..<20 { try Data(count: 3000 * i).write(to: tree.appendingPathComponent("f\(i)")) }
    let device = try tools.make("3M", options + ["-N", "256", "-d", tree.path])
    let fileSystem = try FileSystem.mount(device, clock: TestClock())
    if options.joined().contains("^extent") {
      try fileSystem.unmount()
      return device
    }
    let root = try fileSystem.inode(FileSystem.rootNumber)
    let directory = try fileSystem.makeDirectory("directory", in: root)
    for i in 0..<80 {
      fileSystem.release(try fileSystem.makeFile("some-longer-name-of-a-file-\(i)", in: directory))
    }
    let sparse = try fileSystem.makeFile("sparse", in: root)
    for i in 0..<120 { try fileSystem.write(sparse, at: UInt64(i) * 8192, [1, 2, 3]) }
    try fileSystem.setAttribute(bytes("user.one"), [UInt8](repeating: 1, count: 500), flags: 0, of: sparse)
    try fileSystem.setAttribute(bytes("user.two"), [1, 2], flags: 0, of: sparse)
    let link = NewFile(mode: 0o120777, target: [UInt8](repeating: 0x61, count: 300))
    _ = try fileSystem.create(bytes("link"), in: root, link)
    try fileSystem.unlink(bytes("f3"), in: root, isDirectory: false)
    try fileSystem.synchronize()
    return device
  }

  /// Blocks that are neither zeros nor large files' data.
  private func interestingBlocks(_ image: MemoryDevice) -> [Int] {
    stride(from: 0, to: image.bytes.count, by: 1024).filter { start in
      image.bytes[start..<start + 1024].contains { $0 != 0 }
    }
  }

  private func mutate(_ device: RestoringDevice, _ blocks: [Int], _ random: inout SeededRandom) {
    let block = random.below(6) == 0 ? 1024 : blocks[random.below(blocks.count)]
    // Fields are mostly near the start, and where something is.
    var place = block + random.below(random.below(2) == 0 ? 128 : 1024)
    for _ in 0..<8 where device.image.bytes[place] == 0 { place = block + random.below(1024) }
    switch random.below(5) {
    case 0: device.change([device.image.bytes[place] ^ UInt8(1 << random.below(8))], place)
    case 1: device.change(random.bytes(1), place)
    case 2:
      let aligned = place & ~3
      let value: UInt32 = [0, 1, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x8000_0000, 2, 8, 12, 3000][random.below(9)]
      device.change((0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }, aligned)
    case 3: device.change([0xFF, 0xFF], place & ~1)
    default:
      // A block in another's place.
      let other = blocks[random.below(blocks.count)]
      if random.below(8) == 0 { device.change(Array(device.image.bytes[other..<other + 1024]), block) }
    }
  }

  /// Mounts, looks at everything, changes things; whether it could be mounted.
  private func exercise(_ device: RestoringDevice, _ random: inout SeededRandom) -> Bool {
    guard let fileSystem = try? FileSystem.mount(device, clock: TestClock()) else { return false }
    guard let root = try? fileSystem.inode(FileSystem.rootNumber) else { return true }
    try? fileSystem.grow(to: device.size / UInt64(fileSystem.blockSize))
    var budget = 150
    walk(fileSystem, root, &budget, 0)
    for i in 0..<6 {
      if let file = try? fileSystem.makeFile("new\(i)", in: root, random.bytes(3000)) {
        fileSystem.release(file)
      }
    }
    for name in ["f5", "directory", "sparse", "link", "f7"] {
      if let inode = try? fileSystem.find(name) {
        try? fileSystem.write(inode, at: UInt64(random.below(40)) * 1024, random.bytes(5000))
        try? fileSystem.setAttribute(bytes("user.three"), random.bytes(100), flags: 0, of: inode)
        try? fileSystem.allocate(inode, offset: 5000, length: 9000, .punchHole)
        try? fileSystem.allocate(inode, offset: 5000, length: 9000, .allocate(keepSize: false))
        if inode.isDirectory { _ = try? fileSystem.makeFile("inside-\(random.below(100))", in: inode) }
        try? fileSystem.truncate(inode, to: UInt64(random.below(9000)))
        fileSystem.release(inode)
      }
      try? fileSystem.rename(bytes(name), in: root, to: bytes("renamed"), in: root, flags: 0)
    }
    try? fileSystem.unlink(bytes("renamed"), in: root, isDirectory: false)
    try? fileSystem.synchronize()
    fileSystem.release(root)
    try? fileSystem.unmount()
    return true
  }

  private func walk(_ fileSystem: FileSystem, _ directory: DiskInode, _ budget: inout Int, _ depth: Int) {
    guard depth < 4 else { return }
    var cookie: UInt64 = 0
    while budget > 0, let entries = try? fileSystem.entries(of: directory, after: cookie),
      let last = entries.last
    {
      for entry in entries where budget > 0 {
        budget -= 1
        guard let inode = try? fileSystem.inode(entry.inode) else { continue }
        look(fileSystem, inode)
        if inode.isDirectory { walk(fileSystem, inode, &budget, depth + 1) }
        fileSystem.release(inode)
      }
      guard last.cookie > cookie else { return }
      cookie = last.cookie
    }
  }

  private func look(_ fileSystem: FileSystem, _ inode: DiskInode) {
    _ = try? fileSystem.readLink(inode)
    for name in (try? fileSystem.attributeNames(of: inode)) ?? [] {
      _ = try? fileSystem.attribute(name, of: inode)
    }
    var part = [UInt8](repeating: 0, count: 2000)
    for offset in [0, 5000, inode.size / 2, inode.size &- 100] {
      _ = try? part.withUnsafeMutableBytes { try fileSystem.read(inode, at: offset, into: $0) }
    }
  }
}
