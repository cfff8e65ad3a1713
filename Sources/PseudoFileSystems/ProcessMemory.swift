import ABI
import Processes
import Tasks
import VFS

/// /proc/PID/mem: the memory of a process, as a debugger sees it: page protections do not hold it back.
final class ProcessMemory: Inode {
  let subject: ProcessSubject

  init(_ subject: ProcessSubject, status: FileStatus) {
    self.subject = subject
    super.init(status: status)
  }

  override func open(flags: UInt32) throws(Errno) -> OpenFile {
    try subject.check()
    try subject.checkInspection()
    return OpenProcessMemory(self, flags: flags)
  }
  override func truncate(_ size: Int64) throws(Errno) {}
}

/// Mapped addresses are offsets; the rest of the file is not there.
private final class OpenProcessMemory: OpenFile {
  private let memory: ProcessMemory

  init(_ memory: ProcessMemory, flags: UInt32) {
    self.memory = memory
    super.init(inode: memory, flags: flags)
  }

  private func subject(at offset: Int64) throws(Errno) -> Process {
    try memory.subject.check()
    guard offset >= 0 else { throw .invalid }
    return memory.subject.process
  }

  override func read(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    let process = try subject(at: offset)
    var target = slice
    while target.count > 0 {
      let done = slice.count - target.count
      let part: [UInt8]
      do throws(Errno) {
        part = try process.readMemory(at: UInt(offset) &+ UInt(done), count: target.count, isForced: true)
      } catch {
        if done > 0 { return done }
        throw error == .badAddress ? .inputOutput : error
      }
      try target.store(part)
      target.advance(part.count)
    }
    return slice.count
  }

  override func write(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    let process = try subject(at: offset)
    let part = try slice.prefix(Process.longestVisit).bytes()
    do throws(Errno) {
      return try process.writeMemory(part, at: UInt(offset), isForced: true)
    } catch { throw error == .badAddress ? .inputOutput : error }
  }

  override func read(_ slice: UserSlice) throws(Errno) -> Int {
    advance(by: try read(slice, at: offset))
  }

  override func write(_ slice: UserSlice) throws(Errno) -> Int {
    let count = try write(slice, at: offset)
    offset += Int64(count)
    return count
  }

  override func seek(_ offset: Int64, whence: Int32) throws(Errno) -> Int64 {
    guard whence == 0 || whence == 1 else { throw .invalid }
    let (place, overflow) = (whence == 0 ? 0 : self.offset).addingReportingOverflow(offset)
    guard !overflow else { throw .overflow }
    self.offset = place
    return place
  }
}
