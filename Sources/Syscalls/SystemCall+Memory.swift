import ABI
import Processes
import Tasks
import VFS

/// mmap(2) and its relatives.
extension SystemCall {
  private func protection(_ value: UInt) -> Protection {
    Protection(rawValue: UInt32(truncatingIfNeeded: value & 7))
  }

  private func pages(_ length: UInt) throws(Errno) -> UInt {
    guard length > 0, length < 1 << 47 else { throw length == 0 ? .invalid : .noMemory }
    return (length + 4095) & ~4095
  }

  func mmap() throws(Errno) -> Int {
    let length = try pages(b)
    let flags = d
    let space = process.addressSpace
    let isShared = flags & 3 != 2
    guard flags & 3 != 0, f & 4095 == 0 else { throw .invalid }
    var address = a & ~4095
    if flags & 0x10 != 0 || flags & 0x10_0000 != 0 {  // MAP_FIXED, MAP_FIXED_NOREPLACE
      guard a & 4095 == 0 else { throw .invalid }
      try AddressSpace.check(address, length)
      if flags & 0x10_0000 != 0, !space.isFree(address, length) { throw .fileExists }
    } else if address == 0 || (try? AddressSpace.check(address, length)) == nil
      || !space.isFree(address, length)
    {
      address = try space.findFree(length)
    }
    var area = VirtualMemoryArea(
      start: address, end: address + length, protection: protection(c), isShared: isShared, inode: nil,
      offset: 0,
      path: nil, frames: nil)
    if flags & 0x20 != 0 {
      if isShared { area.frames = try SharedFrames(count: Int(length >> 12)) }
    } else {
      try show(descriptor: int(e), offset: f, in: &area)
    }
    try space.map(area)
    return Int(address)
  }

  private func show(descriptor: Int32, offset: UInt, in area: inout VirtualMemoryArea) throws(Errno) {
    let file = try file(descriptor)
    guard file.isReadable else { throw .accessDenied }
    if area.isShared, area.protection.contains(.write), !file.isWritable { throw .accessDenied }
    if file.inode.type == 0o020000 { return }  // /dev/zero
    guard file.inode.isRegular else { throw .operationNotOnDevice }
    area.inode = file.inode
    area.offset = Int64(offset)
    area.path = file.path
  }

  func munmap() throws(Errno) -> Int {
    let length = try pages(b)
    guard a & 4095 == 0 else { throw .invalid }
    guard (try? AddressSpace.check(a, length)) != nil else { throw .invalid }
    try process.addressSpace.unmap(a, a + length)
    return 0
  }

  func mprotect() throws(Errno) -> Int {
    guard a & 4095 == 0 else { throw .invalid }
    if b == 0 { return 0 }
    let length = try pages(b)
    try AddressSpace.check(a, length)
    try process.addressSpace.protect(a, a + length, protection(c))
    return 0
  }

  func mremap() throws(Errno) -> Int {
    guard a & 4095 == 0, d & ~3 == 0 else { throw .invalid }
    let oldLength = try pages(b)
    let newLength = try pages(c)
    try AddressSpace.check(a, oldLength)
    return Int(
      try process.addressSpace.remap(
        a, oldLength, newLength, mayMove: d & 1 != 0, fixed: d & 2 != 0 ? e : nil))
  }

  func brk() throws(Errno) -> Int { Int(process.addressSpace.setHeapEnd(a)) }

  func madvise() throws(Errno) -> Int {
    guard a & 4095 == 0 else { throw .invalid }
    if b == 0 { return 0 }
    let length = try pages(b)
    try AddressSpace.check(a, length)
    guard !process.addressSpace.isFree(a, length) else { throw .noMemory }
    switch int(c) {
    case 4:  // MADV_DONTNEED
      try host.discard(address: a, length: length)
      return 0
    case 0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21: return 0
    default: throw .invalid
    }
  }

  func msync() throws(Errno) -> Int {
    guard a & 4095 == 0 else { throw .invalid }
    return 0  // shared mappings are the page cache itself
  }

  func mlock() throws(Errno) -> Int { 0 }

  func mincore() throws(Errno) -> Int {
    let length = try pages(b)
    try UserSlice(c, Int(length >> 12)).store([UInt8](repeating: 1, count: Int(length >> 12)))
    return 0
  }

  func archPrctl() throws(Errno) -> Int {
    switch int(a) {
    case 0x1002:  // ARCH_SET_FS
      guard b < UserSlice.limit else { throw .notPermitted }
      thread.threadPointer = b
      host.setThreadPointer(b)
      return 0
    case 0x1003:
      try UserSlice.store(thread.threadPointer, at: b)
      return 0
    default: throw .invalid  // GS is the libOS's
    }
  }
}
