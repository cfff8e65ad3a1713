public import ABI
import Tasks

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
    if diskLog >= 0 { log(1, disk, offset, bytes) }
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

  public func flushDisk(_ disk: Int, unlocked: Bool) throws(Errno) {
    let descriptor = disks[disk].descriptor
    // In front: what others write meanwhile is not covered.
    if diskLog >= 0 { log(2, disk, 0, UnsafeRawBufferPointer(start: nil, count: 0)) }
    _ = try LinuxCall.check(
      unlocked ? LinuxHost.flushUnlocked(descriptor) : LinuxHost.flush(descriptor))
  }

  private static func flush(_ descriptor: Int) -> Int {
    var result = -4  // EINTR
    while result == -4 { result = LinuxCall.raw(LinuxCall.fdatasync, descriptor) }
    return result
  }

  /// A flush takes as long as the device does. Without the lock no object may be touched.
  @inline(never)
  private static func flushUnlocked(_ descriptor: Int) -> Int {
    KernelLock.release()
    let result = flush(descriptor)
    KernelLock.acquire()
    return result
  }

  /// A hole in a file, or a block device's own discard (which Linux offers behind the same call): FALLOC_FL_KEEP_SIZE and
  /// FALLOC_FL_PUNCH_HOLE. What cannot do it keeps its blocks.
  public func discardDisk(_ disk: Int, at offset: UInt64, count: UInt64) {
    guard offset <= disks[disk].size, count <= disks[disk].size - offset else { return }
    _ = LinuxCall.raw(LinuxCall.fallocate, disks[disk].descriptor, 3, Int(offset), Int(count))
  }

  /// Tests cut the power after any write or flush: all of them, in order, go to the descriptor of
  /// SWIFTLET_TEST_DISK_LOG as kind, disk, offset, length (64 bits each) and bytes.
  private func log(_ kind: UInt64, _ disk: Int, _ offset: UInt64, _ bytes: UnsafeRawBufferPointer) {
    var header: [4 of UInt64] = [kind, UInt64(disk), offset, UInt64(bytes.count)]
    _ = withUnsafePointer(to: &header) {
      LinuxCall.raw(LinuxCall.write, diskLog, Int(bitPattern: $0), 32)
    }
    var done = 0
    while done < bytes.count {
      let part = LinuxCall.raw(
        LinuxCall.write, diskLog, Int(bitPattern: bytes.baseAddress) + done, bytes.count - done)
      guard part > 0 else { return }
      done += part
    }
  }
}

struct LinuxDisk {
  let descriptor: Int
  let size: UInt64
}
