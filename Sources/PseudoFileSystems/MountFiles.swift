import ABI
import Processes
import Tasks
import VFS

/// Mounts and descriptors as /proc/PID tells them (proc(5)).
enum MountFiles {
  private static func source(_ mount: MountTable.Mount) -> [UInt8] { bytes(mount.type) }

  static func mounts(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    var text = Text()
    for mount in MountTable.mounts {
      text.add(source(mount))
      text.add(" ")
      text.add(mount.place)
      text.add(" ")
      text.add(mount.type)
      text.add(" rw,relatime 0 0\n")
    }
    return text.bytes
  }

  static func mountInformation(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    var text = Text()
    for (index, mount) in MountTable.mounts.enumerated() {
      text.add(20 + index)
      text.add(index == 0 ? " 1 " : " 20 ")
      text.add(mount.device >> 8)
      text.add(":")
      text.add(mount.device & 0xff)
      text.add(" / ")
      text.add(mount.place)
      text.add(" rw,relatime - ")
      text.add(mount.type)
      text.add(" ")
      text.add(source(mount))
      text.add(" rw\n")
    }
    return text.bytes
  }

  /// /proc/PID/fdinfo/N.
  static func descriptorInformation(_ process: Process, _ descriptor: Int32) throws(Errno) -> [UInt8] {
    guard !process.isZombie, let file = process.descriptors.find(descriptor) else { throw .noSuchFile }
    var text = Text()
    text.add("pos:\t")
    text.add(Int(file.offset))
    text.add("\nflags:\t0")
    let closes = (try? process.descriptors.closesOnExecution(descriptor)) ?? false
    text.addOctal(file.flags | (closes ? 0o2000000 : 0) | (file.flags & 0o10000000 == 0 ? 0o100000 : 0))
    text.add("\nmnt_id:\t20\nino:\t")
    text.add(file.inode.status.inode)
    text.endLine()
    if let signals = file as? SignalFile {
      text.add("sigmask:\t")
      text.addHexadecimal(signals.mask.rawValue, width: 16)
      text.endLine()
    } else if let other = file as? ProcessFile {
      text.add("Pid:\t")
      text.add(other.process.isZombie ? -1 : other.process.pid)
      text.endLine()
    }
    return text.bytes
  }
}
