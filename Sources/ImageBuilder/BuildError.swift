import Glibc

/// A failure of the command: one line for the user and the exit status that podman uses for it.
public struct BuildError: Error, Equatable {
  public let message: String
  /// 125: swiftlet's own; 126: the program cannot be executed; 127: the program was not found.
  public let exitStatus: Int32

  public init(_ message: String, exitStatus: Int32 = 125) {
    self.message = message
    self.exitStatus = exitStatus
  }

  /// A failed system call on `path`; reads errno, so call it first thing.
  static func system(_ action: String, _ path: Path, exitStatus: Int32 = 125) -> BuildError {
    let reason = String(cString: strerror(errno))
    return BuildError("cannot \(action) \(path.text): \(reason)", exitStatus: exitStatus)
  }
}

/// File names are bytes on Linux: a String would change those that are not UTF-8.
public typealias Path = [UInt8]

extension Path {
  public init(_ text: String) { self = Array(text.utf8) }

  /// For messages only.
  public var text: String { String(decoding: self, as: UTF8.self) }

  static let slash = UInt8(ascii: "/")

  var isAbsolute: Bool { first == Path.slash }

  /// Everything before the last slash: "/" for "/name", "" for "name".
  var directory: Path {
    guard let index = lastIndex(of: Path.slash) else { return [] }
    return index == 0 ? [Path.slash] : Array(self[..<index])
  }

  var lastComponent: Path {
    guard let index = lastIndex(of: Path.slash) else { return self }
    return Array(self[(index + 1)...])
  }

  /// `NAME.so` or `NAME.so.VERSION`: loaded by a running program rather than executed.
  var isSharedObjectName: Bool {
    let parts = lastComponent.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
    return parts.dropFirst().contains { $0.elementsEqual("so".utf8) }
  }

  func appending(_ name: some Sequence<UInt8>) -> Path {
    isEmpty || last == Path.slash ? self + name : self + [Path.slash] + name
  }

  var components: [ArraySlice<UInt8>] { split(separator: Path.slash) }

  func withCString<Result>(_ body: (UnsafePointer<CChar>) -> Result) -> Result {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: count + 1) { buffer in
      for index in 0..<count { buffer[index] = CChar(bitPattern: self[index]) }
      buffer[count] = 0
      return body(UnsafePointer(buffer.baseAddress.unsafelyUnwrapped))
    }
  }
}
