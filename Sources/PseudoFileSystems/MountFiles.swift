import ABI
import Processes
import Tasks
import VFS

/// Mounts and descriptors as /proc/PID tells them (proc(5)).
enum MountFiles {
  /// ST_ flags as options.
  private static func options(_ mount: MountTable.Mount) -> [UInt8] {
    var text = bytes(mount.flags & 1 != 0 ? "ro" : "rw")
    if mount.flags & 2 != 0 { text += bytes(",nosuid") }
    if mount.flags & 4 != 0 { text += bytes(",nodev") }
    if mount.flags & 8 != 0 { text += bytes(",noexec") }
    if mount.flags & 1024 != 0 { text += bytes(",noatime") }
    if mount.flags & 2048 != 0 { text += bytes(",nodiratime") }
    if mount.flags & 0x2000 != 0 { text += bytes(",nosymfollow") }
    if mount.flags & 0x1400 == 0x1000 || mount.flags == 0 { text += bytes(",relatime") }
    return text
  }

  static func mounts(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    var text = Text()
    for mount in MountTable.mounts {
      text.add(mount.source)
      text.add(" ")
      text.add(mount.place)
      text.add(" ")
      text.add(mount.type)
      text.add(" ")
      text.add(options(mount))
      text.add(" 0 0\n")
    }
    return text.bytes
  }

  static func mountInformation(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    var text = Text()
    for mount in MountTable.mounts {
      text.add(mount.identifier)
      text.add(" ")
      text.add(MountTable.parent(of: mount)?.identifier ?? 1)
      text.add(" ")
      text.add(mount.device >> 8)
      text.add(":")
      text.add(mount.device & 0xff)
      text.add(" / ")
      text.add(mount.place)
      text.add(" ")
      text.add(options(mount))
      text.add(" - ")
      text.add(mount.type)
      text.add(" ")
      text.add(mount.source)
      text.add(mount.flags & 1 != 0 ? " ro\n" : " rw\n")
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
    let mount = file.path.flatMap { MountTable.mount(of: $0) }
    text.add("\nmnt_id:\t")
    text.add(mount?.identifier ?? 0)
    text.add("\nino:\t")
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
    } else if let instance = file as? Inotify {
      add(instance, to: &text)
    }
    return text.bytes
  }

  /// A line a watch (inotify(7)).
  private static func add(_ instance: Inotify, to text: inout Text) {
    for watch in instance.listing {
      text.add("inotify wd:")
      text.addHexadecimal(UInt64(watch.descriptor))
      text.add(" ino:")
      text.addHexadecimal(watch.inode)
      text.add(" sdev:")
      text.addHexadecimal(watch.device)
      text.add(" mask:")
      text.addHexadecimal(UInt64(watch.mask))
      text.add(" ignored_mask:0\n")
    }
  }
}
