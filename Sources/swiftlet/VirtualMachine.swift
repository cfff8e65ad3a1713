import CHostCommand
import Glibc
import Image
import ImageBuilder

/// An image in a QEMU of its own: this process stays beside it, passes input, output and signals over the control
/// channel, and ends as the image does.
struct VirtualMachine {
  var machine: String
  var processors: Int
  var memory: UInt64
  var isInteractive: Bool

  /// Boots the image and never returns, unless it cannot start.
  func run(image: Int32, options: LaunchOptions) throws(BuildError) -> Never {
    guard let program = findInPath("qemu-system-x86_64") else {
      throw BuildError(
        "--host=bare needs qemu-system-x86_64, which is not installed; install qemu-system-x86")
    }
    var ends: [Int32] = [-1, -1]
    guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0 else {
      throw BuildError("cannot create the control channel")
    }
    _ = fcntl(ends[0], F_SETFD, FD_CLOEXEC)
    // QEMU opens files by name: these are the descriptors it inherits.
    _ = fcntl(image, F_SETFD, 0)
    var record = options
    let network = networkArguments(&record)
    let recordFile = try makeLaunchRecord(record)
    var arguments = ["qemu-system-x86_64", "-M", machineArgument, "-cpu", "max", "-accel", accelerator]
    arguments += ["-m", "\(try machineMegabytes(image))", "-smp", "\(processors)"]
    arguments += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    arguments += ["-kernel", "/proc/self/fd/\(image)", "-initrd", "/proc/self/fd/\(recordFile)"]
    // What the exokernel itself says goes to standard error; the status of a panic comes by the exit port.
    arguments += ["-chardev", "file,id=errors,path=/proc/self/fd/2,append=on"]
    arguments += ["-device", "isa-debugcon,iobase=0xe9,chardev=errors"]
    arguments += ["-device", "isa-debug-exit,iobase=0x501"]
    arguments += ["-chardev", "socket,id=control,fd=\(ends[1])"]
    arguments += ["-device", "virtio-serial-\(bus)", "-device", "virtconsole,chardev=control"]
    if isMicroVM { arguments += ["-global", "virtio-mmio.force-legacy=false"] }
    arguments += network
    let signals = try blockSignals()
    let process = try start(program, arguments)
    close(ends[1])
    Relay(channel: ends[0], signals: signals, process: process).run()
  }

  /// What the machine has: the image, its programs' memory, and what the exokernel needs to keep account of both.
  private func machineMegabytes(_ image: Int32) throws(BuildError) -> UInt64 {
    var status = stat()
    guard fstat(image, &status) == 0 else { throw BuildError("cannot read the image") }
    let bytes = memory + UInt64(status.st_size)
    return (bytes + bytes / 256 + 2 << 20) >> 20
  }

  private var isMicroVM: Bool { machine == "microvm" }
  private var bus: String { isMicroVM ? "device" : "pci" }

  private var machineArgument: String {
    isMicroVM ? "microvm,auto-kernel-cmdline=off,rtc=on,pit=off,pic=off" : machine
  }

  private var accelerator: String { kvm_usable() != 0 ? "kvm" : "tcg,thread=multi" }

  /// The device for the network, and the record without what concerns the descriptor: in the image it is a virtio
  /// device.
  private func networkArguments(_ record: inout LaunchOptions) -> [String] {
    guard let descriptor = record.networkDescriptor, record.network != .none else { return [] }
    var mac = ""
    for byte in record.hardwareAddress ?? [] {
      let digits = String(byte, radix: 16)
      mac += (mac.isEmpty ? ",mac=" : ":") + (digits.utf8.count == 1 ? "0" : "") + digits
    }
    var arguments = ["-netdev"]
    if record.network == .stream {
      arguments.append("stream,id=net,server=off,addr.type=fd,addr.str=\(descriptor)")
      record.networkMTU = record.networkMTU ?? 65520
    } else {
      arguments.append("tap,id=net,fd=\(descriptor)")
    }
    record.network = .tap
    record.networkDescriptor = 0
    return arguments + ["-device", "virtio-net-\(bus),netdev=net\(mac)"]
  }

  private func start(_ program: String, _ arguments: [String]) throws(BuildError) -> pid_t {
    var vector: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    defer { for pointer in vector { free(pointer) } }
    let process = start_companion(program, &vector)
    guard process > 0 else {
      throw BuildError("cannot start \(program): \(String(cString: strerror(errno)))")
    }
    return process
  }

  /// The user's signals, and the end of QEMU, arrive on a descriptor from now on.
  private func blockSignals() throws(BuildError) -> Int32 {
    var set = sigset_t()
    sigemptyset(&set)
    for number in Relay.signals + [SIGCHLD] { sigaddset(&set, number) }
    sigprocmask(SIG_BLOCK, &set, nil)
    signal(SIGPIPE, SIG_IGN)
    let descriptor = signal_descriptor(&set)
    guard descriptor >= 0 else { throw BuildError("cannot watch signals") }
    return descriptor
  }
}

func findInPath(_ name: String) -> String? {
  for directory in hostSearchPath() {
    let path = directory.text + "/" + name
    if access(path, X_OK) == 0 { return path }
  }
  return nil
}
