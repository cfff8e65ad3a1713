import ABI
import Processes
import Tasks
import VFS
extension SystemCall {
  func file(_ descriptor: Int32) throws(Errno) -> OpenFile { try process.descriptors.file(descriptor) }
  func openProgram(_ path: [UInt8]) throws(Errno) -> OpenFile { try process.fileSystem.open(path, flags: 0) }
  func dispatchFile() throws(Errno) -> Int? {
    switch number {
    case 0: return try file(int(a)).read(UserSlice(b, Int(c)))
    case 1: return try file(int(a)).write(UserSlice(b, Int(c)))
    default: return nil
    }
  }
  func dispatchSocket() throws(Errno) -> Int? { nil }
  func dispatchProcess() throws(Errno) -> Int? { nil }
}
