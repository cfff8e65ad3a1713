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
  /// Where the size of the user's terminal is kept up to date; nil without one (`run -t`).
  var terminalSize: UnsafePointer<UInt64>?

  /// Boots the image and never returns, unless it cannot start.
  func run(image: Int32, options: LaunchOptions) throws(BuildError) -> Never {
    guard let program = findInPath("qemu-system-x86_64") else {
      throw BuildError(
        "--host=bare needs qemu-system-x86_64, which is not installed; install qemu-system-x86")
    }
    let control = try makeChannel()
    let monitor = try makeChannel()
    let errors = try makeChannel()
    // QEMU opens files by name: these are the descriptors it inherits.
    _ = fcntl(image, F_SETFD, 0)
    var record = options
    let network = networkArguments(&record)
    let disks = diskArguments(record)
    if let terminalSize {
      record.sizeDescriptor = nil
      (record.terminalSize, record.terminalFlags) = (terminalSize[0], terminalSize[1])
    }
    let recordFile = try makeLaunchRecord(record)
    var arguments = ["qemu-system-x86_64", "-M", machineArgument, "-cpu", "max", "-accel", accelerator]
    let megabytes = try machineMegabytes(image)
    arguments += ["-m", "\(megabytes)", "-smp", "\(processors)"]
    arguments += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    arguments += ["-kernel", "/proc/self/fd/\(image)", "-initrd", "/proc/self/fd/\(recordFile)"]
    // What the exokernel itself says is for standard error; the status of a panic comes by the exit port.
    arguments += ["-chardev", "socket,id=errors,fd=\(errors.theirs)"]
    arguments += ["-device", "isa-debugcon,iobase=0xe9,chardev=errors"]
    arguments += ["-device", "isa-debug-exit,iobase=0x501"]
    arguments += ["-chardev", "socket,id=control,fd=\(control.theirs)"]
    arguments += ["-device", "virtio-serial-\(bus)", "-device", "virtconsole,chardev=control"]
    if isMicroVM { arguments += ["-global", "virtio-mmio.force-legacy=false"] }
    arguments += [
      "-chardev", "socket,id=monitor,fd=\(monitor.theirs)", "-mon", "chardev=monitor,mode=control",
    ]
    arguments += ["-device", "virtio-rng-\(bus)", "-device", "virtio-balloon-\(bus)"]
    arguments += network + disks
    // For tests of panics, as on the Linux host.
    if let number = hostVariable("SWIFTLET_TEST_PANIC") {
      arguments += ["-append", "swiftlet.panic=\(number)"]
    }
    let signals = try blockSignals()
    let process = try start(program, arguments)
    close(control.theirs)
    close(monitor.theirs)
    close(errors.theirs)
    Relay(
      channel: control.ours, monitor: monitor.ours, errors: errors.ours, image: image, signals: signals,
      process: process, terminalSize: terminalSize, overhead: (megabytes << 20) - min(memory, megabytes << 20)
    ).run()
  }

  /// Two ends of a connection, of which QEMU inherits one.
  private func makeChannel() throws(BuildError) -> (ours: Int32, theirs: Int32) {
    var ends: [Int32] = [-1, -1]
    guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0 else {
      throw BuildError("cannot create a channel to the virtual machine")
    }
    _ = fcntl(ends[0], F_SETFD, FD_CLOEXEC)
    return (ends[0], ends[1])
  }

  /// What the machine has: the image, its programs' memory, what the exokernel needs to keep account of both, and the first
  /// megabytes of a PC, which the image does not use.
  private func machineMegabytes(_ image: Int32) throws(BuildError) -> UInt64 {
    var status = stat()
    guard fstat(image, &status) == 0 else { throw BuildError("cannot read the image") }
    let bytes = memory + UInt64(status.st_size)
    return (bytes + bytes / 256 + 5 << 20) >> 20
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

  /// A disk for each volume, in their order, and then the file of `--persist`. The descriptors are inherited, and with them
  /// the locks; what QEMU cannot read or write is an error of the machine's, which never stops it.
  private func diskArguments(_ record: LaunchOptions) -> [String] {
    var arguments: [String] = []
    var disks = record.volumes.map { (descriptor: $0.descriptor, isReadOnly: $0.isReadOnly) }
    if let layer = record.layerDescriptor { disks.append((layer, false)) }
    for (number, disk) in disks.enumerated() {
      _ = fcntl(disk.descriptor, F_SETFD, 0)
      let access = disk.isReadOnly ? "readonly=on" : "discard=unmap"
      // Written data waits in this machine's page cache until the image asks for a flush.
      arguments += [
        "-drive",
        "if=none,id=disk\(number),format=raw,cache=writeback,\(access),file.locking=off,"
          + "file=/proc/self/fd/\(disk.descriptor)",
      ]
      // QEMU plugs devices of microvm in from the last transport on, the image looks from the first.
      let place = isMicroVM ? ",bus=virtio-mmio-bus.\(number)" : ""
      arguments += [
        "-device", "virtio-blk-\(bus),drive=disk\(number),werror=report,rerror=report\(place)",
      ]
    }
    return arguments
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
