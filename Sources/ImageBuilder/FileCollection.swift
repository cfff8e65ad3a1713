import Glibc
import Image

/// The files that go into an image, parents before children, and where their bytes come from.
public struct FileCollection {
  public enum Source: Equatable {
    case none
    case bytes([UInt8])
    /// A file of the host.
    case file(Path)
  }

  public private(set) var files: [PackedFile] = []
  public private(set) var sources: [Source] = []
  /// Called after each file added, with their number.
  public var onProgress: ((Int) -> Void)?
  /// Regular files with the x permission or a shared object's name, in order: candidates for library resolution.
  public private(set) var executables: [(path: Path, source: Path)] = []

  private var indices: [Path: Int] = [:]
  /// By device and inode: the first name of a file with several.
  private var firstNames: [[UInt64]: Int] = [:]

  public init() {
    append(PackedFile(path: [], mode: FileType.directory | 0o755), .none)
  }

  public func contains(_ path: Path) -> Bool { indices[relative(path)] != nil }

  /// Where in `files` the one of this path is, given as it is there.
  func index(of path: Path) -> Int? { indices[path] }

  public func data(of path: Path) throws(BuildError) -> [UInt8]? {
    guard let index = indices[relative(path)] else { return nil }
    switch sources[index] {
    case .none: return nil
    case .bytes(let bytes): return bytes
    case .file(let source): return try MappedFile(source).copy()
    }
  }

  /// Adds a file made up by the builder, unless the path is taken.
  public mutating func addMissing(_ path: String, mode: UInt32, _ content: String = "") {
    // A chain of links without end is left for the program to meet.
    let name = relative(Path(path))
    let path = (try? placeBelowLinks(name, followLast: false)) ?? name
    guard indices[path] == nil else { return }
    addMissingParents(of: path)
    let bytes = Path(content)
    append(
      PackedFile(path: path, mode: mode, dataLength: UInt64(bytes.count)),
      bytes.isEmpty ? .none : .bytes(bytes))
  }

  /// Adds the file that `path` leads to in `tree` at the same path, with every symbolic link and directory on
  /// the way.
  mutating func addWithWay(_ path: Path, from tree: FileTree) throws(BuildError) {
    guard let steps = try tree.walk(path) else {
      throw BuildError("\(path.text): no such file", exitStatus: 127)
    }
    for step in steps {
      var status = step.status
      // A directory on the way changes with files that are none of the image's: its times would make every image another.
      if status.st_mode & S_IFMT == S_IFDIR { status.st_mtim = timespec() }
      try addOne(tree.hostPath(step.path), at: step.path, status)
    }
  }

  /// Adds a host file or directory tree at `destination`. Directories that exist already are merged.
  public mutating func addTree(_ source: Path, at destination: Path) throws(BuildError) {
    guard let status = linkStatus(source) else { throw .system("add", source) }
    let isDirectory = status.st_mode & S_IFMT == S_IFDIR
    let target = try placeBelowLinks(relative(destination), followLast: isDirectory)
    try addOne(source, at: target, status)
    guard isDirectory else { return }
    for name in try directoryNames(source) {
      try addTree(source.appending(name), at: target.appending(name))
    }
  }

  /// A destination below a packed symbolic link (such as /lib -> usr/lib) belongs where the link points.
  private func placeBelowLinks(_ path: Path, followLast: Bool) throws(BuildError) -> Path {
    var pending = Array(path.components.reversed())
    var current: Path = []
    var links = 0
    while let name = pending.popLast() {
      if name.elementsEqual(Path(".")) { continue }
      if name.elementsEqual(Path("..")) {
        current = current.directory
        continue
      }
      let next = current.appending(name)
      let isLink = indices[next].map { files[$0].mode & FileType.mask == FileType.symbolicLink } ?? false
      guard isLink, followLast || !pending.isEmpty, let index = indices[next],
        case .bytes(let target) = sources[index]
      else {
        current = next
        continue
      }
      links += 1
      guard links <= 40 else { throw BuildError("too many symbolic links in \(path.text)") }
      pending += target.components.reversed()
      if target.isAbsolute { current = [] }
    }
    return current
  }

  private mutating func addOne(_ source: Path, at destination: Path, _ status: stat) throws(BuildError) {
    let path = relative(destination)
    if let index = indices[path] {
      try merge(source, status, into: index, destination)
      return
    }
    addMissingParents(of: path)
    var file = PackedFile(path: path, mode: status.st_mode)
    file.uid = status.st_uid
    file.gid = status.st_gid
    file.modified = UInt64(max(0, status.st_mtim.tv_sec)) * 1_000_000_000 + UInt64(status.st_mtim.tv_nsec)
    file.attributes = extendedAttributes(source)
    var content = Source.none
    switch status.st_mode & S_IFMT {
    case S_IFREG:
      if status.st_nlink > 1 {
        let identity = [UInt64(status.st_dev), UInt64(status.st_ino)]
        if let first = firstNames[identity] {
          file.hardLinkIndex = first
        } else {
          firstNames[identity] = files.count
        }
      }
      if file.hardLinkIndex == nil, status.st_size > 0 {
        file.dataLength = UInt64(status.st_size)
        content = .file(source)
      }
      if status.st_mode & 0o111 != 0 || destination.isSharedObjectName {
        executables.append((destination, source))
      }
    case S_IFLNK:
      let target = try readLink(source)
      file.dataLength = UInt64(target.count)
      content = .bytes(target)
    case S_IFCHR, S_IFBLK: file.rdev = UInt32(truncatingIfNeeded: status.st_rdev)
    default: break
    }
    append(file, content)
  }

  /// The same path twice: directories merge, and of two different files the later one wins.
  private mutating func merge(
    _ source: Path, _ status: stat, into index: Int, _ path: Path
  ) throws(BuildError) {
    guard files[index].mode & FileType.mask == status.st_mode & S_IFMT else {
      throw BuildError("\(path.text) is added twice, as different types of file")
    }
    switch status.st_mode & S_IFMT {
    case S_IFREG where files[index].hardLinkIndex == nil:
      files[index].mode = status.st_mode
      files[index].dataLength = UInt64(status.st_size)
      sources[index] = status.st_size > 0 ? .file(source) : .none
    case S_IFLNK:
      let target = try readLink(source)
      files[index].dataLength = UInt64(target.count)
      sources[index] = .bytes(target)
    case S_IFDIR:
      files[index].mode = status.st_mode
      files[index].uid = status.st_uid
      files[index].gid = status.st_gid
    default: break
    }
  }

  private mutating func addMissingParents(of path: Path) {
    let parent = path.directory
    guard indices[parent] == nil else { return }
    addMissingParents(of: parent)
    append(PackedFile(path: parent, mode: FileType.directory | 0o755), .none)
  }

  private mutating func append(_ file: PackedFile, _ source: Source) {
    indices[file.path] = files.count
    files.append(file)
    sources.append(source)
    onProgress?(files.count)
  }

  private func relative(_ path: Path) -> Path {
    var path = path[...]
    while path.first == Path.slash { path = path.dropFirst() }
    while path.last == Path.slash { path = path.dropLast() }
    return Path(path)
  }
}
