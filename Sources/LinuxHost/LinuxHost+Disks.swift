public import ABI

/// Disks: files or block devices that the command opened.
extension LinuxHost {
  /// Adds the next disk, over a descriptor. EINVAL if it has no size.
  public func addDisk(descriptor: Int) throws(Errno) {
    let size = try LinuxCall.check(LinuxCall.raw(LinuxCall.lseek, descriptor, 0, 2))  // SEEK_END
    guard size > 0 else { throw .invalid }
    disks.append(LinuxDisk(descriptor: descriptor, size: UInt64(size)))
  }

  public var diskCount: Int { disks.count }
  public func diskSize(_ disk: Int) -> UInt64 { disks[disk].size }

  public func readDisk(_ disk: Int, at offset: UInt64, _ bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
    try transfer(LinuxCall.pread, disk, offset, Int(bitPattern: bytes.baseAddress), bytes.count)
  }

  public func writeDisk(_ disk: Int, at offset: UInt64, _ bytes: UnsafeRawBufferPointer) throws(Errno) {
    try transfer(LinuxCall.pwrite, disk, offset, Int(bitPattern: bytes.baseAddress), bytes.count)
  }

  private func transfer(_ call: Int, _ disk: Int, _ offset: UInt64, _ address: Int, _ count: Int)
    throws(Errno)
  {
    guard offset <= disks[disk].size, UInt64(count) <= disks[disk].size - offset else { throw .inputOutput }
    var done = 0
    while done < count {
      let part = LinuxCall.raw(
        call, disks[disk].descriptor, address + done, count - done, Int(offset) + done)
      if part == -4 { continue }  // EINTR
      guard part > 0 else { throw part < 0 ? Errno(rawValue: Int32(-part)) : .inputOutput }
      done += part
    }
  }

  public func flushDisk(_ disk: Int) throws(Errno) {
    var result = -4  // EINTR
    while result == -4 { result = LinuxCall.raw(LinuxCall.fdatasync, disks[disk].descriptor) }
    _ = try LinuxCall.check(result)
  }
}

struct LinuxDisk {
  let descriptor: Int
  let size: UInt64
}
