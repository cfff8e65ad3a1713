public import ABI
import Tasks

/// A process's descriptors (open(2)). Kernel lock held.
public final class FileDescriptorTable {
  private var files: [OpenFile?] = []
  private var closesOnExecution: [Bool] = []
  private var lowestFree = 0
  /// RLIMIT_NOFILE.
  public var limit = 1024
  /// Processes that share the table (CLONE_FILES).
  public var users = 1

  public init() {}

  /// EBADF.
  @inline(__always)
  public func file(_ descriptor: Int32) throws(Errno) -> OpenFile {
    guard descriptor >= 0, Int(descriptor) < files.count, let file = files[Int(descriptor)] else {
      throw .badFileDescriptor
    }
    return file
  }

  public func find(_ descriptor: Int32) -> OpenFile? {
    descriptor >= 0 && Int(descriptor) < files.count ? files[Int(descriptor)] : nil
  }

  /// Puts the file at the lowest free descriptor from `minimum` on. EMFILE, EINVAL (minimum past the limit).
  public func install(_ file: OpenFile, closesOnExecution closes: Bool, minimum: Int = 0) throws(Errno)
    -> Int32
  {
    guard minimum < limit || minimum == 0 else { throw .invalid }
    var place = max(minimum, lowestFree)
    while place < files.count, files[place] != nil { place += 1 }
    guard place < limit else { throw .tooManyFiles }
    put(file, at: place, closes)
    if minimum <= lowestFree { lowestFree = place + 1 }
    return Int32(place)
  }

  private func put(_ file: OpenFile, at place: Int, _ closes: Bool) {
    while files.count <= place {
      files.append(nil)
      closesOnExecution.append(false)
    }
    file.references += 1
    files[place] = file
    closesOnExecution[place] = closes
  }

  /// dup2(2): closes what was at `descriptor`. EBADF past the limit.
  public func replace(_ descriptor: Int32, _ file: OpenFile, closesOnExecution closes: Bool) throws(Errno) {
    guard descriptor >= 0, Int(descriptor) < limit else { throw .badFileDescriptor }
    let old = find(descriptor)
    put(file, at: Int(descriptor), closes)
    if let old { forget(old) }
  }

  public func close(_ descriptor: Int32) throws(Errno) {
    let file = try file(descriptor)
    files[Int(descriptor)] = nil
    lowestFree = min(lowestFree, Int(descriptor))
    forget(file)
  }

  /// Record locks of the process on a file end when it closes any descriptor of that file (fcntl(2)).
  private func forget(_ file: OpenFile) {
    file.inode.recordLocks?.release(ObjectIdentifier(self))
    FileDescriptorTable.drop(file)
  }

  /// The end of a process: what only it has open is closed.
  public func leave() {
    users -= 1
    if users == 0 { closeAll() }
  }

  public func closesOnExecution(_ descriptor: Int32) throws(Errno) -> Bool {
    _ = try file(descriptor)
    return closesOnExecution[Int(descriptor)]
  }

  public func setClosesOnExecution(_ descriptor: Int32, _ closes: Bool) throws(Errno) {
    _ = try file(descriptor)
    closesOnExecution[Int(descriptor)] = closes
  }

  /// A copy for fork: the same open files.
  public func copy() -> FileDescriptorTable {
    let copy = FileDescriptorTable()
    copy.files = files
    copy.closesOnExecution = closesOnExecution
    copy.lowestFree = lowestFree
    copy.limit = limit
    for file in files { file?.references += 1 }
    return copy
  }

  /// execve(2).
  public func closeForExecution() {
    for place in files.indices where closesOnExecution[place] && files[place] != nil {
      do throws(Errno) { try close(Int32(place)) } catch {}
    }
  }

  public func closeAll() { closeRange(0, Int32.max) }

  /// close_range(2), both ends included.
  public func closeRange(_ first: Int32, _ last: Int32) {
    for place in files.indices where place >= Int(first) && place <= Int(last) && files[place] != nil {
      do throws(Errno) { try close(Int32(place)) } catch {}
    }
  }

  /// Open descriptors in order, for /proc/PID/fd.
  public var open: [(Int32, OpenFile)] {
    var result: [(Int32, OpenFile)] = []
    for place in files.indices { if let file = files[place] { result.append((Int32(place), file)) } }
    return result
  }

  /// One reference less; the last one releases the file.
  public static func drop(_ file: OpenFile) {
    file.references -= 1
    if file.references == 0 {
      Epoll.forget(file)
      file.inode.recordLocks?.release(ObjectIdentifier(file))
      file.inode.fileLocks?.release(ObjectIdentifier(file))
      file.released()
    }
  }
}
