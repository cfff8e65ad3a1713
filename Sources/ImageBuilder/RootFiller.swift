import ABI
import Ext4
import Glibc
import Image

/// Puts the files of an image into its file system.
struct RootFiller {
  private let fileSystem: FileSystem
  private let files: FileCollection

  init(_ fileSystem: FileSystem, _ files: FileCollection) {
    self.fileSystem = fileSystem
    self.files = files
  }

  func run() throws(BuildError) {
    var directories: [Path: DiskInode] = [:]
    var named: [Int: DiskInode] = [:]
    let linked = Set(files.files.compactMap { $0.hardLinkIndex })
    for (index, file) in files.files.enumerated() {
      do throws(Errno) {
        let inode = try add(file, directories, named)
        if file.mode & FileType.mask == FileType.directory { directories[file.path] = inode }
        if linked.contains(index) { named[index] = inode }
        if file.hardLinkIndex == nil {
          try fill(inode, index)
          try finish(inode, file)
        }
      } catch { throw failure(file, error) }
    }
    // Adding files has changed their times.
    for file in files.files where file.mode & FileType.mask == FileType.directory {
      guard let inode = directories[file.path] else { continue }
      do throws(Errno) { try finish(inode, file) } catch { throw failure(file, error) }
    }
    do throws(Errno) { try fileSystem.unmount() } catch {
      throw BuildError("cannot finish the root file system: error \(error.rawValue)")
    }
  }

  private func failure(_ file: PackedFile, _ error: Errno) -> BuildError {
    BuildError("cannot pack /\(file.path.text): \(String(cString: strerror(error.rawValue)))")
  }

  private func add(_ file: PackedFile, _ directories: [Path: DiskInode], _ named: [Int: DiskInode])
    throws(Errno) -> DiskInode
  {
    guard !file.path.isEmpty else { return try fileSystem.inode(FileSystem.rootNumber) }
    guard let parent = directories[file.path.directory] else { throw .noSuchFile }
    let name = file.path.lastComponent
    if let index = file.hardLinkIndex {
      guard let inode = named[index] else { throw .noSuchFile }
      try fileSystem.link(name, in: parent, to: inode)
      return inode
    }
    // mke2fs has made one.
    if file.path == Path("lost+found"), file.mode & FileType.mask == FileType.directory {
      return try fileSystem.inode(try fileSystem.lookup(name, in: parent))
    }
    var new = NewFile(mode: file.mode, user: file.uid, group: file.gid, device: UInt64(file.rdev))
    let index = files.index(of: file.path)
    if file.mode & FileType.mask == FileType.symbolicLink, let index,
      case .bytes(let target) = files.sources[index]
    {
      new.target = target
    }
    return try fileSystem.create(name, in: parent, new)
  }

  private func fill(_ inode: DiskInode, _ index: Int) throws(Errno) {
    let file = files.files[index]
    guard file.mode & FileType.mask == FileType.regular else { return }
    switch files.sources[index] {
    case .none: break
    case .bytes(let bytes): try write(bytes, inode)
    case .file(let name):
      guard let source = try? MappedFile(name), UInt64(source.bytes.count) == file.dataLength,
        let runs = try? DataRuns(name, length: file.dataLength)
      else { throw .stale }
      defer { source.keepAlive() }
      for run in runs.runs {
        try fileSystem.write(
          inode, at: UInt64(run.lowerBound), UnsafeRawBufferPointer(rebasing: source.bytes[run]))
      }
      if inode.size < file.dataLength { try fileSystem.truncate(inode, to: file.dataLength) }
    }
  }

  private func write(_ bytes: [UInt8], _ inode: DiskInode) throws(Errno) {
    let failure: Errno? = bytes.withUnsafeBytes { buffer in
      do throws(Errno) {
        try fileSystem.write(inode, at: 0, buffer)
        return nil
      } catch { return error }
    }
    if let failure { throw failure }
  }

  private func finish(_ inode: DiskInode, _ file: PackedFile) throws(Errno) {
    for (name, value) in file.attributes { try fileSystem.setAttribute(name, value, flags: 0, of: inode) }
    var change = AttributeChange()
    change.mode = file.mode & 0o7777
    change.user = file.uid
    change.group = file.gid
    change.accessed = file.modified
    change.modified = file.modified
    change.changed = file.modified
    try fileSystem.setAttributes(inode, change)
  }
}
