/// Finds the shared libraries of programs in the order of ld.so(8): DT_RPATH (unless there is DT_RUNPATH),
/// DT_RUNPATH, the cache, the default directories. LD_LIBRARY_PATH is deliberately left out: an image must
/// not depend on who builds it.
public final class LibraryResolver {
  private let tree: FileTree
  private lazy var cache = readCache()
  private static let defaultDirectories = [
    "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib",
  ].map { Path($0) }

  public init(_ tree: FileTree) { self.tree = tree }

  private func readCache() -> LibraryCache {
    guard let file = try? MappedFile(tree.hostPath(Path("/etc/ld.so.cache"))) else {
      return LibraryCache(UnsafeRawBufferPointer(start: nil, count: 0))
    }
    defer { file.keepAlive() }
    return LibraryCache(file.bytes)
  }

  private struct Pending {
    let path: Path
    /// DT_RPATH of the objects that led here, nearest first.
    let inheritedRpath: [Path]
  }

  /// The files that the ELF file at `path` needs at run time, each once, as paths in the tree that a loader
  /// would open (possibly symbolic links): its interpreter, then libraries in breadth-first order.
  public func dependencies(of path: Path) throws(BuildError) -> [Path] {
    var found: [Path] = []
    var names: Set<Path> = []
    var queue = [Pending(path: path, inheritedRpath: [])]
    var next = 0
    var interpreterName: Path?
    while next < queue.count {
      let object = queue[next]
      next += 1
      let file = try MappedFile(tree.hostPath(object.path))
      defer { file.keepAlive() }
      let elf = try ELFFile(file.bytes, name: object.path)
      if next == 1, let interpreter = elf.interpreter {
        try requireInterpreter(interpreter, of: path)
        interpreterName = interpreter.lastComponent
        found.append(interpreter)
      }
      let rpath = elf.runpath.isEmpty ? expand(elf.rpath, object.path) + object.inheritedRpath : []
      for name in elf.needed where name != interpreterName && names.insert(name).inserted {
        let directories = rpath + expand(elf.runpath, object.path)
        let library = try find(name, in: directories, neededBy: object.path)
        found.append(library)
        queue.append(Pending(path: library, inheritedRpath: rpath))
      }
    }
    return found
  }

  private func requireInterpreter(_ interpreter: Path, of path: Path) throws(BuildError) {
    guard try tree.resolve(interpreter) != nil else {
      throw BuildError("\(path.text) needs the program interpreter \(interpreter.text), which does not exist")
    }
  }

  private func find(_ name: Path, in directories: [Path], neededBy user: Path) throws(BuildError) -> Path {
    if name.contains(Path.slash) {
      if try tree.resolve(name) != nil { return name }
    } else {
      for directory in directories {
        if let path = try usable(directory.appending(name)) { return path }
      }
      if let cached = cache.path(of: name), let path = try usable(cached) { return path }
      for directory in Self.defaultDirectories {
        if let path = try usable(directory.appending(name)) { return path }
      }
    }
    throw BuildError("\(user.text) needs the shared library \(name.text), which was not found")
  }

  /// Like the loader, passes over files for other machines.
  private func usable(_ path: Path) throws(BuildError) -> Path? {
    guard try tree.resolve(path) != nil, let file = try? MappedFile(tree.hostPath(path)) else { return nil }
    defer { file.keepAlive() }
    return (try? ELFFile(file.bytes, name: path)) == nil ? nil : path
  }

  private func expand(_ directories: [Path], _ object: Path) -> [Path] {
    guard !directories.isEmpty else { return [] }
    let origin = ((try? tree.resolve(object)) ?? object).directory
    return directories.map { directory in
      directory.expanding(["ORIGIN": origin, "LIB": Path("lib/x86_64-linux-gnu"), "PLATFORM": Path("x86_64")])
    }
  }
}

extension Path {
  /// Replaces `$NAME` and `${NAME}`, the dynamic string tokens of ld.so(8).
  fileprivate func expanding(_ tokens: [String: Path]) -> Path {
    var result: Path = []
    var rest = self[...]
    scan: while let byte = rest.first {
      for (name, value) in tokens {
        for form in ["${\(name)}", "$\(name)"] where rest.starts(with: form.utf8) {
          result += value
          rest = rest.dropFirst(form.utf8.count)
          continue scan
        }
      }
      result.append(byte)
      rest = rest.dropFirst()
    }
    return result
  }
}
