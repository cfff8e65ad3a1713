import Image

/// What a file is, from its bytes alone.
public enum FileKind {
  case image, truncatedImage, other
}

/// Tells images from other files. An image without its trailer is still a libOS followed by an archive.
public func classify(_ bytes: UnsafeRawBufferPointer) -> FileKind {
  if bytes.count >= 64, bytes[(bytes.count - 64)...].starts(with: "SWIFTLET".utf8) { return .image }
  if ArchiveSegment.exists(in: bytes) { return .truncatedImage }
  guard ELFFile.hasMagic(bytes), let elf = try? ELFFile(bytes, name: []) else { return .other }
  let end = (Int(elf.length) + ImageFormat.pageSize - 1) / ImageFormat.pageSize * ImageFormat.pageSize
  guard end < bytes.count, bytes[end...].starts(with: "SWLTARCH".utf8) else { return .other }
  return .truncatedImage
}

extension ImageReader {
  /// The content of the regular file at `path`, given without leading slash; nil if there is none.
  public func data(of path: String) -> [UInt8]? {
    for index in 0..<entryCount {
      let found = entry(index)
      guard found.path.elementsEqual(path.utf8), found.fileType == FileType.regular else { continue }
      return Array(entry(found.hardLinkIndex ?? index).data)
    }
    return nil
  }

  public var userDatabase: UserDatabase {
    UserDatabase(passwd: data(of: "etc/passwd") ?? [], group: data(of: "etc/group") ?? [])
  }
}

extension ProgramPacker {
  /// Checks that the program at `path` and its libraries are in the tree, without adding anything.
  public func checkProgram(_ path: Path) throws(BuildError) {
    var next = path
    for _ in 0..<5 {
      guard let interpreter = try scriptInterpreter(of: next, in: tree) else {
        _ = try resolver.dependencies(of: next)
        return
      }
      guard try tree.resolve(interpreter.program) != nil else {
        throw BuildError("\(next.text) needs \(interpreter.program.text), which does not exist")
      }
      next = interpreter.program
    }
    throw BuildError("\(path.text): too many levels of script interpreters", exitStatus: 126)
  }
}
