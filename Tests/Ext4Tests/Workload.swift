import ABI
import Ext4
import Testing

/// Random file operations, done both to a file system and to a model of it in ordinary Swift.
final class Workload {
  final class File {
    var contents: [UInt8] = []
    var attributes: [String: [UInt8]] = [:]
    var isLink = false
    var names = 1
  }

  /// What a power cut must not take away: between two events, a file of this name has one of these contents.
  struct Promise {
    var path: String
    var allowed: [[UInt8]]
    var from: Int
    var to = Int.max
  }

  let fileSystem: FileSystem
  let device: MemoryDevice
  var random: SeededRandom
  var files: [String: File] = [:]
  var directories: [String] = [""]
  private(set) var promises: [Promise] = []
  private var open: [String: Int] = [:]
  var largest = 30_000
  /// How many operations met ENOSPC.
  var refused = 0
  var isSpaceScarce = false

  init(_ fileSystem: FileSystem, _ device: MemoryDevice, seed: UInt64) {
    self.fileSystem = fileSystem
    self.device = device
    random = SeededRandom(seed)
  }

  // MARK: Promises

  /// An operation that changes what `path` holds is about to start.
  private func breakPromise(_ path: String) {
    guard let index = open.removeValue(forKey: path) else { return }
    promises[index].to = device.events.count
  }

  private func promise(_ path: String, _ allowed: [[UInt8]]) {
    breakPromise(path)
    open[path] = promises.count
    promises.append(Promise(path: path, allowed: allowed, from: device.events.count))
  }

  /// All names of a file whose contents change.
  private func breakPromises(_ file: File) {
    for (path, other) in files where other === file { breakPromise(path) }
  }

  // MARK: Operations

  private func name(_ path: String) -> [UInt8] { Array((path.split(separator: "/").last ?? "").utf8) }

  func parent(_ path: String) -> String { path.split(separator: "/").dropLast().joined(separator: "/") }

  private func withParent<R>(_ path: String, _ body: ([UInt8], DiskInode) throws -> R) throws -> R {
    let directory = try fileSystem.find(parent(path))
    defer { fileSystem.release(directory) }
    return try body(name(path), directory)
  }

  private func newPath() -> String {
    let directory = directories[random.below(directories.count)]
    let length = random.below(8) == 0 ? 100 + random.below(100) : random.below(6)
    let name = "f\(random.below(100))" + String(repeating: "n", count: length)
    return directory.isEmpty ? name : directory + "/" + name
  }

  private func anyFile() -> String? {
    guard !files.isEmpty else { return nil }
    return files.keys.sorted()[random.below(files.count)]
  }

  /// One operation; true if the device was full.
  func step() throws {
    do {
      try act()
    } catch let error as Errno where error == .noSpace && isSpaceScarce {
      refused += 1
    }
  }

  private func act() throws {
    switch random.below(20) {
    case 0...3: try create()
    case 4...6: try overwrite(appending: true)
    case 7, 8: try overwrite(appending: false)
    case 9: try truncate()
    case 10, 11: try unlink()
    case 12, 13: try rename()
    case 14: try makeDirectory()
    case 15: try removeDirectory()
    case 16: if random.below(2) == 0 { try symlink() } else { try link() }
    case 17: try allocate()
    case 18: try attribute()
    default: try synchronize()
    }
  }

  private func create() throws {
    let path = newPath()
    guard files[path] == nil, !directories.contains(path) else { return }
    breakPromise(path)
    let contents = random.bytes(random.below(largest) * random.below(4) / 3)
    let inode = try withParent(path) { try fileSystem.create($0, in: $1, NewFile(mode: 0o100644)) }
    defer { fileSystem.release(inode) }
    let file = File()
    files[path] = file
    try write(file, inode, 0, contents)
    if random.below(3) == 0 { try synchronize(path) }
  }

  private func write(_ file: File, _ inode: DiskInode, _ offset: Int, _ contents: [UInt8]) throws {
    breakPromises(file)
    do {
      try fileSystem.write(inode, at: UInt64(offset), contents)
    } catch {
      // Part of it may be there.
      file.contents = try fileSystem.contents(inode)
      throw error
    }
    if file.contents.count < offset + contents.count, !contents.isEmpty {
      file.contents += [UInt8](repeating: 0, count: offset + contents.count - file.contents.count)
    }
    file.contents.replaceSubrange(offset..<offset + contents.count, with: contents)
  }

  private func withFile(_ body: (String, File, DiskInode) throws -> Void) throws {
    guard let path = anyFile(), let file = files[path], !file.isLink else { return }
    let inode = try fileSystem.find(path)
    defer { fileSystem.release(inode) }
    try body(path, file, inode)
  }

  private func overwrite(appending: Bool) throws {
    try withFile { path, file, inode in
      var offset = file.contents.count
      if !appending { offset = random.below(file.contents.count + largest / 2) }
      try write(file, inode, offset, random.bytes(random.below(largest) / 3 + 1))
      if random.below(4) == 0 { try synchronize(path) }
    }
  }

  private func truncate() throws {
    try withFile { _, file, inode in
      let size = random.below(file.contents.count * 3 / 2 + 1)
      breakPromises(file)
      try fileSystem.truncate(inode, to: UInt64(size))
      resize(file, size)
    }
  }

  private func resize(_ file: File, _ size: Int) {
    if size < file.contents.count { file.contents.removeLast(file.contents.count - size) }
    file.contents += [UInt8](repeating: 0, count: size - file.contents.count)
  }

  private func unlink() throws {
    guard let path = anyFile(), let file = files[path] else { return }
    breakPromise(path)
    try withParent(path) { try fileSystem.unlink($0, in: $1, isDirectory: false) }
    file.names -= 1
    files[path] = nil
  }

  private func rename() throws {
    guard let from = anyFile(), let file = files[from] else { return }
    let to = random.below(2) == 0 ? newPath() : anyFile() ?? newPath()
    guard !directories.contains(to), files[to] !== file else { return }
    let exchanges = random.below(6) == 0 && files[to] != nil
    // After the rename the target holds what it did, or what took its place if that was durable.
    var allowed: [[UInt8]]?
    if let old = open[to], let new = open[from], !exchanges {
      allowed = promises[old].allowed + promises[new].allowed
    }
    breakPromise(from)
    breakPromise(to)
    if let allowed { promise(to, allowed) }
    let source = try fileSystem.find(parent(from))
    let target = try fileSystem.find(parent(to))
    defer {
      fileSystem.release(source)
      fileSystem.release(target)
    }
    let names = (name(from), name(to))
    try fileSystem.rename(names.0, in: source, to: names.1, in: target, flags: exchanges ? 2 : 0)
    files[from] = exchanges ? files[to] : nil
    if !exchanges { files[to]?.names -= 1 }
    files[to] = file
  }

  private func makeDirectory() throws {
    guard directories.count < 12 else { return }
    let path = newPath()
    guard files[path] == nil, !directories.contains(path) else { return }
    let inode = try withParent(path) { try fileSystem.create($0, in: $1, NewFile(mode: 0o040755)) }
    fileSystem.release(inode)
    directories.append(path)
  }

  private func removeDirectory() throws {
    guard directories.count > 1 else { return }
    let path = directories[1 + random.below(directories.count - 1)]
    let isUsed =
      files.keys.contains { $0.hasPrefix(path + "/") } || directories.contains { $0.hasPrefix(path + "/") }
    do {
      try withParent(path) { try fileSystem.unlink($0, in: $1, isDirectory: true) }
      #expect(!isUsed)
      directories.removeAll { $0 == path }
    } catch let error as Errno where error == .notEmpty {
      #expect(isUsed)
    }
  }

  private func symlink() throws {
    let path = newPath()
    guard files[path] == nil, !directories.contains(path) else { return }
    let target = [UInt8](repeating: 0x74, count: 1 + random.below(random.below(2) == 0 ? 70 : 900))
    let new = NewFile(mode: 0o120777, target: target)
    let inode = try withParent(path) { try fileSystem.create($0, in: $1, new) }
    fileSystem.release(inode)
    let file = File()
    file.isLink = true
    file.contents = target
    files[path] = file
  }

  private func link() throws {
    let path = newPath()
    guard files[path] == nil, !directories.contains(path) else { return }
    try withFile { _, file, inode in
      try withParent(path) { try fileSystem.link($0, in: $1, to: inode) }
      file.names += 1
      files[path] = file
    }
  }

  private func allocate() throws {
    try withFile { _, file, inode in
      let offset = random.below(file.contents.count + 5000)
      let length = 1 + random.below(largest)
      breakPromises(file)
      // What fails for want of room may have been done in part.
      defer { file.contents = (try? fileSystem.contents(inode)) ?? file.contents }
      let expected = try allocated(file, inode, offset, length)
      #expect(try fileSystem.contents(inode) == expected)
    }
  }

  private func allocated(_ file: File, _ inode: DiskInode, _ offset: Int, _ length: Int) throws -> [UInt8] {
    switch random.below(4) {
    case 0:
      try fileSystem.allocate(
        inode, offset: UInt64(offset), length: UInt64(length), .allocate(keepSize: true))
    case 1:
      try fileSystem.allocate(
        inode, offset: UInt64(offset), length: UInt64(length), .allocate(keepSize: false))
      resize(file, max(file.contents.count, offset + length))
    case 2:
      try fileSystem.allocate(inode, offset: UInt64(offset), length: UInt64(length), .punchHole)
      clear(file, offset, length)
    default:
      try fileSystem.allocate(inode, offset: UInt64(offset), length: UInt64(length), .zero(keepSize: true))
      clear(file, offset, length)
    }
    return file.contents
  }

  private func clear(_ file: File, _ offset: Int, _ length: Int) {
    for i in offset..<max(offset, min(offset + length, file.contents.count)) { file.contents[i] = 0 }
  }

  private func attribute() throws {
    try withFile { _, file, inode in
      let name = ["user.one", "user.two", "security.capability", "trusted.long-name", "user.five"][
        random.below(5)]
      let value = random.below(4) == 0 ? nil : random.bytes(random.below(random.below(2) == 0 ? 40 : 400))
      do {
        try fileSystem.setAttribute(bytes(name), value, flags: 0, of: inode)
        file.attributes[name] = value
      } catch let error as Errno where error == .noData {
        #expect(file.attributes[name] == nil)
      } catch let error as Errno where error == .noSpace {
        // The attributes of one inode have a block at most.
      }
    }
  }

  private func synchronize() throws {
    if random.below(8) == 0 {
      try fileSystem.synchronize()
      for (path, file) in files.sorted(by: { $0.key < $1.key }) where !file.isLink {
        promise(path, [file.contents])
      }
    } else if let path = anyFile(), files[path]?.isLink == false {
      try synchronize(path)
    }
  }

  private func synchronize(_ path: String) throws {
    let inode = try fileSystem.find(path)
    defer { fileSystem.release(inode) }
    try fileSystem.synchronize(inode, dataOnly: random.below(2) == 0)
    if let file = files[path] { promise(path, [file.contents]) }
  }

  // MARK: Comparing

  /// Compares everything with the model.
  func compare(_ other: FileSystem) throws {
    for (path, file) in files {
      let inode = try other.find(path)
      defer { other.release(inode) }
      if file.isLink {
        #expect(try other.readLink(inode) == file.contents, "\(path)")
        continue
      }
      #expect(try other.contents(inode) == file.contents, "\(path)")
      #expect(Int(inode.links) == file.names, "\(path)")
      let names = try other.attributeNames(of: inode).map { String(decoding: $0, as: UTF8.self) }
      #expect(names.sorted() == file.attributes.keys.sorted(), "\(path)")
      for (name, value) in file.attributes { #expect(try other.attribute(bytes(name), of: inode) == value) }
    }
    for path in directories {
      let inode = try other.find(path)
      defer { other.release(inode) }
      let names = try other.list(inode).map { String(decoding: $0.name, as: UTF8.self) }.filter {
        $0 != "lost+found"
      }
      let expected = (Array(files.keys) + directories.filter { $0 != "" }).filter { parent($0) == path }
        .map { String(decoding: name($0), as: UTF8.self) }
      #expect(names.sorted() == expected.sorted(), "\(path)")
    }
  }
}
