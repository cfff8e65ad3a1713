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

  /// Flags of mmap(2), asm-generic/mman.h.
  private static var fixed: UInt { 0x10 }
  private static var anonymous: UInt { 0x20 }
  private static var below2GiB: UInt { 0x40 }
  private static var growsDown: UInt { 0x100 }
  private static var noReserve: UInt { 0x4000 }
  private static var stack: UInt { 0x2_0000 }
  private static var fixedNoReplace: UInt { 0x10_0000 }
  /// What MAP_SHARED_VALIDATE knows.
  private static var known: UInt { 0x11_fff3 | 0x2_0000 | 0x4_0000 }

  func mmap() throws(Errno) -> Int {
    guard f & 4095 == 0, d & 3 != 0 else { throw .invalid }
    let length = try pages(b)
    if d & 3 == 3, d & ~SystemCall.known != 0 { throw .notSupported }
    var area = VirtualMemoryArea(start: 0, end: length, protection: protection(c), isShared: d & 3 != 2)
    area.growsDown = d & SystemCall.growsDown != 0
    if area.growsDown, area.isShared { throw .invalid }
    area.isReservation = d & (SystemCall.noReserve | SystemCall.growsDown | SystemCall.stack) != 0
    if d & SystemCall.anonymous == 0 { try show(descriptor: int(e), offset: f, in: &area) }
    let address = try place(length, isShared: area.isShared)
    area.start = address
    area.end = address + length
    try checkLimits(adding: length, isData: area.isCharged)
    if area.isCharged { try MemoryLimit.grant(bytes: length) }
    if d & SystemCall.anonymous != 0, area.isShared {
      area.frames = try SharedFrames(count: Int(length >> 12))
    }
    try process.addressSpace.map(area)
    return Int(address)
  }

  /// Where a new mapping goes. EEXIST, EINVAL, ENOMEM.
  private func place(_ length: UInt, isShared: Bool) throws(Errno) -> UInt {
    let space = process.addressSpace
    if d & (SystemCall.fixed | SystemCall.fixedNoReplace) != 0 {
      guard a & 4095 == 0 else { throw .invalid }
      try AddressSpace.check(a, length)
      if d & SystemCall.fixedNoReplace != 0, !space.isFree(a, length) { throw .fileExists }
      return a
    }
    let hint = a & ~4095
    if hint != 0, (try? AddressSpace.check(hint, length)) != nil, space.isFree(hint, length),
      d & SystemCall.below2GiB == 0 || hint + length <= 0x8000_0000
    {
      return hint
    }
    // As Linux: the second GiB.
    if d & SystemCall.below2GiB != 0 {
      return try space.findFree(length, below: 0x8000_0000, above: 0x4000_0000)
    }
    return try space.findFree(length)
  }

  /// RLIMIT_AS and RLIMIT_DATA (setrlimit(2)).
  private func checkLimits(adding length: UInt, isData: Bool) throws(Errno) {
    let (whole, data) = (
      process.limits[ResourceLimit.addressSpace].soft, process.limits[ResourceLimit.data].soft
    )
    let space = process.addressSpace
    if whole != .max, UInt64(space.bytes(in: 0, .max) { _ in true } + length) > whole { throw .noMemory }
    if isData, data != .max, UInt64(space.bytes(in: 0, .max) { $0.isCharged } + length) > data {
      throw .noMemory
    }
  }

  private func show(descriptor: Int32, offset: UInt, in area: inout VirtualMemoryArea) throws(Errno) {
    let file = try file(descriptor)
    guard file.isReadable else { throw .accessDenied }
    if area.isShared {
      area.neverWritable = !file.isWritable
      if area.protection.contains(.write), area.neverWritable { throw .accessDenied }
    }
    if file.inode.type == 0o020000 {  // /dev/zero
      if area.isShared { area.frames = try SharedFrames(count: Int((area.end - area.start) >> 12)) }
      return
    }
    guard file.inode.isRegular else { throw .operationNotOnDevice }
    guard offset < 1 << 62 else { throw .overflow }
    if let inode = file.inode as? TemporaryFile, inode.seals & 0x18 != 0, area.isShared {
      if area.protection.contains(.write) { throw .notPermitted }
      area.neverWritable = true
    }
    area.inode = file.inode
    area.offset = Int64(offset)
    area.path = file.path
  }

  func munmap() throws(Errno) -> Int {
    guard a & 4095 == 0, b > 0, b < 1 << 47 else { throw .invalid }
    let length = try pages(b)
    // Linux's own limit is below ours: nothing can be mapped there, and nothing need be unmapped.
    guard a < UserSlice.limit, length <= UserSlice.limit - a else { throw .invalid }
    guard (try? AddressSpace.check(a, length)) != nil else { throw .invalid }
    try process.addressSpace.unmap(a, a + length)
    return 0
  }

  func mprotect() throws(Errno) -> Int {
    // PROT_SEM, and PROT_GROWSDOWN or PROT_GROWSUP but not both.
    let extra = c & ~0xf
    guard a & 4095 == 0, extra == 0 || extra == 0x100_0000 || extra == 0x200_0000 else { throw .invalid }
    if b == 0 { return 0 }
    let length = try pages(b)
    try AddressSpace.check(a, length)
    try process.addressSpace.protect(a, a + length, protection(c))
    return 0
  }

  func mremap() throws(Errno) -> Int {
    guard a & 4095 == 0, d & ~7 == 0, c > 0 else { throw .invalid }
    let (mayMove, isFixed, keepsOld) = (d & 1 != 0, d & 2 != 0, d & 4 != 0)
    if isFixed || keepsOld, !mayMove { throw .invalid }
    let oldLength = b == 0 ? 0 : try pages(b)
    let newLength = try pages(c)
    try AddressSpace.check(a, oldLength)
    if keepsOld, oldLength != newLength { throw .invalid }
    if isFixed {
      guard e & 4095 == 0, (try? AddressSpace.check(e, newLength)) != nil else { throw .invalid }
      guard e >= a + oldLength || e + newLength <= a else { throw .invalid }
    }
    if newLength > oldLength { try checkLimits(adding: newLength - oldLength, isData: false) }
    return Int(
      try process.addressSpace.remap(
        AddressSpace.Remapping(
          old: a, oldLength: oldLength, newLength: newLength, mayMove: mayMove, target: isFixed ? e : nil,
          keepsOld: keepsOld)))
  }

  func brk() throws(Errno) -> Int {
    let whole = process.limits[ResourceLimit.addressSpace].soft
    if whole != .max, a > process.addressSpace.heapEnd,
      (try? checkLimits(adding: a - process.addressSpace.heapEnd, isData: false)) == nil
    {
      return Int(process.addressSpace.heapEnd)
    }
    return Int(process.addressSpace.setHeapEnd(a, limit: process.limits[ResourceLimit.data].soft))
  }

  /// The page-aligned range of madvise(2) and its like; nil for an empty one. EINVAL, ENOMEM.
  private func pageRange() throws(Errno) -> Range<UInt>? {
    guard a & 4095 == 0 else { throw .invalid }
    if b == 0 { return nil }
    let length = try pages(b)
    try AddressSpace.check(a, length)
    return a..<a + length
  }

  func madvise() throws(Errno) -> Int {
    let advice = int(c)
    // MADV_NORMAL to MADV_DONTNEED, MADV_FREE to MADV_POPULATE_WRITE, MADV_COLLAPSE.
    guard (0...4).contains(advice) || (8...23).contains(advice) || advice == 25 else { throw .invalid }
    guard let range = try pageRange() else { return 0 }
    let space = process.addressSpace
    switch advice {
    case 4, 8:
      MemoryLimit.noteShrinkage()
      // MADV_DONTNEED; MADV_FREE may take effect at once
      for area in space.areas where area.start < range.upperBound && area.end > range.lowerBound {
        if advice == 8, area.isShared || area.inode != nil { throw .invalid }
        let start = max(area.start, range.lowerBound)
        let end = min(area.end, range.upperBound)
        if !area.isShared {
          try space.withdrawExecution(start, end)
          try host.discard(address: start, length: end - start)
        }
      }
    case 9: try removePages(range)
    case 10: try setForkAdvice(range, .drop)
    case 11: try setForkAdvice(range, .copy)
    case 18: try setForkAdvice(range, .wipe)
    case 19: try setForkAdvice(range, .copy)
    default: break
    }
    guard space.covers(range.lowerBound, range.upperBound) else { throw .noMemory }
    return 0
  }

  /// MADV_REMOVE: a hole in the file behind a shared mapping.
  private func removePages(_ range: Range<UInt>) throws(Errno) {
    guard let area = process.addressSpace.area(at: range.lowerBound), area.end >= range.upperBound,
      area.isShared, let inode = area.inode as? TemporaryFile
    else { throw .invalid }
    try inode.allocate(
      mode: 3, offset: area.offset + Int64(range.lowerBound - area.start), length: Int64(range.count))
  }

  private func setForkAdvice(_ range: Range<UInt>, _ advice: ForkAdvice) throws(Errno) {
    if advice == .wipe,
      process.addressSpace.bytes(in: range.lowerBound, range.upperBound, { $0.isShared || $0.inode != nil })
        > 0
    {
      throw .invalid
    }
    try process.addressSpace.setForkAdvice(range.lowerBound, range.upperBound, advice)
  }

  /// Shared mappings are the files' frames themselves; MS_SYNC writes back those of volumes. MS_ASYNC, MS_INVALIDATE.
  func msync() throws(Errno) -> Int {
    guard c & ~7 == 0, c & 5 != 5 else { throw .invalid }
    guard let range = try pageRange() else { return 0 }
    guard process.addressSpace.covers(range.lowerBound, range.upperBound) else { throw .noMemory }
    if c & 4 != 0 {
      for inode in process.addressSpace.sharedFiles(in: range.lowerBound, range.upperBound) {
        try inode.synchronizeContents()
      }
    }
    return 0
  }

  /// mlock(2), munlock(2), mlockall(2), munlockall(2), mlock2(2): arguments are checked, nothing is ever swapped.
  func mlock() throws(Errno) -> Int {
    if number == 152 { return 0 }
    let limit = process.limits[ResourceLimit.lockedMemory].soft
    let isPrivileged = process.credentials.isPrivileged
    if number == 151 {
      guard a != 0, a & ~7 == 0, a != 4 else { throw .invalid }
      if !isPrivileged, limit == 0 { throw .notPermitted }
      if !isPrivileged, a & 1 != 0, UInt64(process.addressSpace.bytes(in: 0, .max) { _ in true }) > limit {
        throw .noMemory
      }
      return 0
    }
    if number == 325, c & ~1 != 0 { throw .invalid }
    let start = a & ~4095
    let (sum, overflow) = b.addingReportingOverflow(a & 4095)
    guard !overflow, sum < 1 << 47 else { throw .invalid }
    let length = (sum + 4095) & ~4095
    if number != 150, !isPrivileged {
      if limit == 0 { throw .notPermitted }
      if UInt64(length) > limit { throw .noMemory }
    }
    if length == 0 { return 0 }
    try AddressSpace.check(start, length)
    guard process.addressSpace.covers(start, start + length) else { throw .noMemory }
    return 0
  }

  /// Whether a page is resident is the host's business: all mapped ones are said to be.
  func mincore() throws(Errno) -> Int {
    guard let range = try pageRange() else { return 0 }
    guard process.addressSpace.covers(range.lowerBound, range.upperBound) else { throw .noMemory }
    var left = range.count >> 12
    var target = c
    let ones = [UInt8](repeating: 1, count: min(left, 4096))
    while left > 0 {
      let count = min(left, ones.count)
      try UserSlice(target, count).store(count == ones.count ? ones : Array(ones[..<count]))
      target += UInt(count)
      left -= count
    }
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
