import Glibc

/// QEMU's monitor (QMP, qemu-qmp-ref(7)): told what to do, and never listened to.
struct MachineMonitor {
  let descriptor: Int32

  init(descriptor: Int32) {
    self.descriptor = descriptor
    say("{\"execute\":\"qmp_capabilities\"}")
  }

  /// The machine is to do with so many bytes of memory.
  func setMemory(_ bytes: UInt64) { say("{\"execute\":\"balloon\",\"arguments\":{\"value\":\(bytes)}}") }

  private func say(_ text: String) {
    let line = Array((text + "\n").utf8)
    _ = Glibc.send(descriptor, line, line.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
  }

  /// Drops what it says, so that it can go on; false at its end.
  func drain() -> Bool {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = read(descriptor, &buffer, buffer.count)
    return count > 0 || count < 0 && errno == EINTR
  }
}
