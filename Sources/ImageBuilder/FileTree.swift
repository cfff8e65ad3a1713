import Glibc

/// A directory seen as the root of a file system: symbolic links resolve inside it, as after chroot(2).
public struct FileTree {
  /// Host path of the root directory, without a trailing slash: empty for the machine itself.
  public let root: Path

  public init(root: Path = []) {
    var trimmed = root
    while trimmed.last == Path.slash { trimmed.removeLast() }
    self.root = trimmed
  }

  public func hostPath(_ path: Path) -> Path { path == [Path.slash] && !root.isEmpty ? root : root + path }

  /// One file met on the way to another.
  struct Step {
    /// Absolute path in the tree, free of symbolic links except perhaps in the last component.
    let path: Path
    let status: stat
    let linkTarget: Path?
  }

  /// Every file on the way to `path`, symbolic links included, the final file last; nil if there is none.
  func walk(_ path: Path) throws(BuildError) -> [Step]? {
    var pending = Array(path.components.reversed())
    var current: Path = [Path.slash]
    var steps: [Step] = []
    var links = 0
    while let name = pending.popLast() {
      if name.elementsEqual(Path(".")) { continue }
      if name.elementsEqual(Path("..")) {
        current = current.directory
        continue
      }
      let next = current.appending(name)
      guard let status = linkStatus(hostPath(next)) else { return nil }
      guard status.st_mode & S_IFMT == S_IFLNK else {
        steps.append(Step(path: next, status: status, linkTarget: nil))
        current = next
        continue
      }
      links += 1
      // The limit of Linux (path_resolution(7)).
      guard links <= 40 else { throw BuildError("too many symbolic links in \(path.text)") }
      let target = try readLink(hostPath(next))
      steps.append(Step(path: next, status: status, linkTarget: target))
      pending += target.components.reversed()
      if target.isAbsolute { current = [Path.slash] }
    }
    return steps
  }

  /// The path of the file that `path` leads to, free of symbolic links; nil if there is none.
  func resolve(_ path: Path) throws(BuildError) -> Path? {
    guard let steps = try walk(path) else { return nil }
    return steps.last?.path ?? [Path.slash]
  }

  /// Finds a program the way execvp(3) does.
  public func findProgram(_ name: Path, searching directories: [Path]) throws(BuildError) -> Path {
    if name.contains(Path.slash) {
      guard try walk(name) != nil else {
        throw BuildError("\(hostPath(name).text): no such file", exitStatus: 127)
      }
      return name
    }
    for directory in directories where directory.isAbsolute {
      let candidate = directory.appending(name)
      guard let final = try walk(candidate)?.last, final.status.st_mode & S_IFMT == S_IFREG,
        final.status.st_mode & 0o111 != 0
      else { continue }
      return candidate
    }
    throw BuildError("\(name.text): not found in PATH", exitStatus: 127)
  }
}
