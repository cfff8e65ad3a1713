public import ABI
public import Tasks
public import VFS

/// brk(2), mremap(2), growth at faults, and files that change their size under a mapping.
extension AddressSpace {
  /// brk(2): the new end, or the old one if it cannot be. `limit` is RLIMIT_DATA.
  public func setHeapEnd(_ address: UInt, limit: UInt64) -> UInt {
    guard address >= heapStart, address < heapStart + (64 << 30), UInt64(address - heapStart) <= limit else {
      return heapEnd
    }
    let old = (heapEnd + 4095) & ~4095
    let new = (address + 4095) & ~4095
    do throws(Errno) {
      if new > old {
        guard isFree(old, new - old) else { return heapEnd }
        try MemoryLimit.grant(bytes: new - old)
        try map(
          VirtualMemoryArea(
            start: old, end: new, protection: [.read, .write], isShared: false, isHeap: true))
      } else if new < old {
        try unmap(new, old)
      }
    } catch { return heapEnd }
    heapEnd = address
    return address
  }

  /// What mremap(2) is asked for; lengths are multiples of the page size.
  public struct Remapping {
    public var old: UInt
    public var oldLength: UInt
    public var newLength: UInt
    public var mayMove: Bool
    /// MREMAP_FIXED
    public var target: UInt?
    /// MREMAP_DONTUNMAP
    public var keepsOld: Bool
    public init(
      old: UInt, oldLength: UInt, newLength: UInt, mayMove: Bool, target: UInt?, keepsOld: Bool
    ) {
      self.old = old
      self.oldLength = oldLength
      self.newLength = newLength
      self.mayMove = mayMove
      self.target = target
      self.keepsOld = keepsOld
    }
  }

  /// mremap(2). EFAULT when the old range is not of one area, ENOMEM, EINVAL.
  public func remap(_ wanted: Remapping) throws(Errno) -> UInt {
    let (old, oldLength, newLength) = (wanted.old, wanted.oldLength, wanted.newLength)
    guard let area = area(at: old), area.end >= old + oldLength else { throw .badAddress }
    if oldLength == 0 { return try duplicate(area, wanted) }
    if newLength > oldLength, area.isCharged { try MemoryLimit.grant(bytes: newLength - oldLength) }
    if wanted.target == nil, !wanted.keepsOld {
      if newLength <= oldLength {
        if newLength < oldLength { try unmap(old + newLength, old + oldLength) }
        return old
      }
      var grown = area
      grown.start = old + oldLength
      grown.end = old + newLength
      grown.offset += Int64(old + oldLength - area.start)
      if area.end == old + oldLength, (try? AddressSpace.check(old, newLength)) != nil,
        isFree(grown.start, grown.end - grown.start)
      {
        try map(grown)
        return old
      }
    }
    guard wanted.mayMove else { throw .noMemory }
    let target: UInt
    if let fixed = wanted.target { target = fixed } else { target = try findFree(newLength) }
    return try move(area, from: old, oldLength, to: target, newLength, keepsOld: wanted.keepsOld)
  }

  /// An old length of 0 shows shared memory once more.
  private func duplicate(_ area: VirtualMemoryArea, _ wanted: Remapping) throws(Errno) -> UInt {
    guard area.isShared, wanted.mayMove else { throw .invalid }
    var copy = area
    copy.offset += Int64(wanted.old - area.start)
    if let fixed = wanted.target { copy.start = fixed } else { copy.start = try findFree(wanted.newLength) }
    copy.end = copy.start + wanted.newLength
    try map(copy)
    return copy.start
  }

  private func move(
    _ area: VirtualMemoryArea, from old: UInt, _ oldLength: UInt, to target: UInt, _ newLength: UInt,
    keepsOld: Bool
  ) throws(Errno) -> UInt {
    try AddressSpace.check(target, newLength)
    try reserve(6)
    remove(target, target + newLength)
    try host.unmap(address: target, length: newLength)
    var moved = area
    moved.offset += Int64(old - area.start)
    moved.start = target
    moved.end = target + newLength
    let kept = min(oldLength, newLength)
    // Linux moves what is one area of its own: runs of frames may be several, but can be shown anew.
    guard !area.isShared else {
      try map(moved)
      if !keepsOld { try unmap(old, old + oldLength) }
      return target
    }
    try withdrawExecution(old, old + oldLength)
    try host.move(from: old, length: kept, to: target, newLength: kept)
    remove(old, old + oldLength)
    if oldLength > kept { try host.unmap(address: old + kept, length: oldLength - kept) }
    let whole = moved
    moved.end = target + kept
    adopt(moved)
    if newLength > kept {
      var rest = whole
      rest.start = target + kept
      try map(rest)
    }
    if keepsOld {
      var empty = area
      empty.start = old
      empty.end = old + oldLength
      try map(empty)
    }
    return target
  }

  /// MAP_GROWSDOWN: makes the area above a fault reach down to it, unless that would come near the next one
  /// (stack_guard_gap is 256 pages) or beyond `limit` bytes (RLIMIT_STACK). True when it did.
  public func growDown(to address: UInt, limit: UInt64) -> Bool {
    let i = index(above: address)
    guard i < areas.count, areas[i].growsDown, areas[i].start > address else { return false }
    let start = address & ~4095
    guard areas[i].start - start <= 1 << 20, UInt64(areas[i].end - start) <= limit,
      isFree(start &- (256 << 12), 256 << 12)
    else { return false }
    var grown = areas[i]
    grown.end = grown.start
    grown.start = start
    do throws(Errno) {
      try MemoryLimit.grant(bytes: grown.end - start)
      try host.map(
        address: start, length: grown.end - start, protection: AddressSpace.shown(grown.protection),
        backing: .anonymous)
    } catch { return false }
    areas[i].start = start
    return true
  }

  /// A page of a file that was past the end when it was mapped and is not any more. True when it is there now.
  public func showGrown(at address: UInt) -> Bool {
    guard let area = area(at: address), let inode = area.inode else { return false }
    let page = Int((address - area.start) >> 12)
    guard (area.offset >> 12) + Int64(page) < (inode.currentStatus().size + 4095) >> 12 else { return false }
    do throws(Errno) { try show(area, of: inode, from: page) } catch { return false }
    return true
  }

  /// Shows the part of `inode`'s areas around its new end again.
  func resize(_ inode: Inode) {
    let filePages = (inode.currentStatus().size + 4095) >> 12
    for area in areas where area.inode === inode {
      let shown = filePages - area.offset >> 12
      guard shown < Int64((area.end - area.start) >> 12) else { continue }
      do throws(Errno) { try show(area, of: inode, from: Int(max(0, shown))) } catch {}
    }
  }

  /// Done in the process itself, before its program goes on.
  public func showResized() {
    guard !resized.isEmpty else { return }
    let list = resized
    resized = []
    for inode in list { resize(inode) }
  }

  /// madvise(2): what a fork's copy does with the areas of a range.
  public func setForkAdvice(_ start: UInt, _ end: UInt, _ advice: ForkAdvice) throws(Errno) {
    try reserve(2)
    for i in split(start, end) { areas[i].forkAdvice = advice }
  }

  /// A fork's copy: what madvise(2) kept from it goes.
  public func applyForkAdvice() {
    hasForkAdvice = false
    for area in Array(areas) where area.forkAdvice != .copy {
      do throws(Errno) {
        if area.forkAdvice == .drop {
          try unmap(area.start, area.end)
        } else {
          try withdrawExecution(area.start, area.end)
          try host.discard(address: area.start, length: area.end - area.start)
        }
      } catch {}
    }
  }

  /// Tells every process that maps `inode` of its new size; for `Inode.wasTruncated`.
  public static func fileWasResized(_ inode: Inode) {
    let current = LinuxThread.running.process
    for process in ProcessTable.processes.values where !process.isZombie {
      let space = process.addressSpace
      if space === current.addressSpace {
        space.resize(inode)
        continue
      }
      guard space.areas.contains(where: { $0.inode === inode }) else { continue }
      space.resized.append(inode)
      for thread in process.threads { thread.attend() }
    }
  }
}
