import ABI
import Processes
import Tasks
import VFS

/// /proc/PID/mem: a process reads and writes its own memory; another's cannot be reached from here (EIO).
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

  /// The part of `count` bytes at `offset` that lies in mapped pages. Accesses go through the page protections.
  private func mapped(_ count: Int, at offset: Int64) throws(Errno) -> UserSlice {
    try memory.subject.check()
    guard offset >= 0 else { throw .invalid }
    let process = memory.subject.process
    guard process.addressSpace === LinuxThread.running.process.addressSpace else { throw .inputOutput }
    let address = UInt(offset)
    guard let area = process.addressSpace.area(at: address), area.protection.contains(.read) else {
      throw .inputOutput
    }
    return try UserSlice(address, min(count, Int(area.end - address)))
  }

  override func read(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    var source = try mapped(slice.count, at: offset)
    var target = slice
    let total = source.count
    while source.count > 0 {
      let part: [UInt8]
      do throws(Errno) { part = try source.prefix(4096 - Int(source.address & 4095)).bytes() } catch {
        if source.count < total { break }
        throw .inputOutput
      }
      try target.store(part)
      source.advance(part.count)
      target.advance(part.count)
    }
    return total - source.count
  }

  override func write(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    let target = try mapped(slice.count, at: offset).prefix(4096)
    let part = try slice.prefix(target.count).bytes()
    do throws(Errno) { try target.store(part) } catch { throw .inputOutput }
    return part.count
  }

  override func read(_ slice: UserSlice) throws(Errno) -> Int {
    let count = try read(slice, at: offset)
    offset += Int64(count)
    return count
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
