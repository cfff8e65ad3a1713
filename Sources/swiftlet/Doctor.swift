import ArgumentParser
import CHostCommand
import Glibc
import ImageBuilder

struct Doctor: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Check what this machine offers to images.")

  func run() {
    let flags = cpuFlags()
    report(
      "protection keys", flags.contains("pku") && flags.contains("ospke"),
      "--isolation=mpk works: the libOS is closed to its programs",
      "this CPU or kernel has none: no --isolation=mpk; --isolation=paging works with --host=bare")
    report(
      "seccomp", access("/proc/sys/kernel/seccomp/actions_avail", R_OK) == 0,
      "images seal themselves against the host", "the kernel needs CONFIG_SECCOMP_FILTER")
    report(
      "KVM", kvm_usable() != 0, "images can run as virtual machines at full speed",
      "load kvm_intel or kvm_amd and join the group kvm; images as processes do not need it")
    report(
      "user namespaces", userNamespaces(), "unprivileged users can set up networks",
      "set user.max_user_namespaces above 0; needed only for networks without root")
    report(
      "passt", findPasst() != nil, "--net user and -p work without privileges", "install the package passt")
    report(
      "tap", canOpen("/dev/net/tun"), "--net tap:NAME works",
      "load the module tun, or join a group that may use it")
    report(
      "QEMU", findProgram("qemu-system-x86_64"), "images can be tried in an emulator",
      "install the package qemu-system-x86")
    let libOS = try? libOSPath()
    report("libOS", libOS != nil, "swiftlet build and swiftlet run work", "build it with: make build")
  }

  private func report(_ name: String, _ isPresent: Bool, _ meaning: String, _ advice: String) {
    let blanks = String(repeating: " ", count: max(1, 17 - name.utf8.count))
    writeLine(
      "\(name)\(blanks)\(isPresent ? "yes" : "no ")  \(isPresent ? meaning : advice)", to: STDOUT_FILENO)
  }

  private func cpuFlags() -> Set<String> {
    guard let line = firstLine("/proc/cpuinfo", beginning: "flags") else { return [] }
    return Set(line.split(separator: " ").map { String($0) })
  }

  private func userNamespaces() -> Bool {
    guard let text = firstLine("/proc/sys/user/max_user_namespaces", beginning: "") else { return false }
    return text != "0"
  }

  private func firstLine(_ path: String, beginning: String) -> String? {
    guard let stream = fopen(path, "re") else { return nil }
    defer { fclose(stream) }
    var line: UnsafeMutablePointer<CChar>?
    var capacity = 0
    defer { free(line) }
    while getline(&line, &capacity, stream) > 0 {
      guard let line else { return nil }
      let text = String(cString: line)
      if text.hasPrefix(beginning) { return String(text.dropLast(text.hasSuffix("\n") ? 1 : 0)) }
    }
    return nil
  }

  private func canOpen(_ path: String) -> Bool {
    let descriptor = open(path, O_RDWR | O_CLOEXEC)
    if descriptor >= 0 { close(descriptor) }
    return descriptor >= 0
  }

  private func findProgram(_ name: String) -> Bool {
    hostSearchPath().contains { access($0.text + "/" + name, X_OK) == 0 }
  }
}
