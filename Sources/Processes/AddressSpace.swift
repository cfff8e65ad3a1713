public import ABI
public import CMachine
public import Tasks
public import VFS

/// A mapped region of a process (mmap(2)).
public struct VirtualMemoryArea {
  public var start: UInt
  public var end: UInt
  public var protection: Protection
  public var isShared: Bool
  /// Shown file and the byte offset in it at `start`; nil for anonymous memory.
  public var inode: Inode?
  public var offset: Int64
  public var path: Path?
  /// Anonymous shared memory: frames of the arena.
  public var frames: SharedFrames?
  public var isStack = false
  public var isHeap = false

  public init(
    start: UInt, end: UInt, protection: Protection, isShared: Bool, inode: Inode? = nil, offset: Int64 = 0,
    path: Path? = nil, frames: SharedFrames? = nil, isStack: Bool = false, isHeap: Bool = false
  ) {
    self.start = start
    self.end = end
    self.protection = protection
    self.isShared = isShared
    self.inode = inode
    self.offset = offset
    self.path = path
    self.frames = frames
    self.isStack = isStack
    self.isHeap = isHeap
  }
}

/// Frames of anonymous shared memory, freed with the last area that shows them.
public final class SharedFrames {
  public let offset: UInt
  public let count: Int
  public init(count: Int) throws(Errno) {
    offset = try Tasks.frames.allocate(count)
    self.count = count
  }
  deinit { Tasks.frames.free(offset, count) }
}

/// What a process's memory shows where: areas in order of address, none touching another's pages. Kernel lock held.
///
/// The host maps whole areas; pages are its business.
public final class AddressSpace {
  public private(set) var areas: [VirtualMemoryArea] = []
  public var heapStart: UInt = 0
  public var heapEnd: UInt = 0
  /// Threads of processes that use it (vfork shares it).
  public var argumentsStart: UInt = 0
  public var argumentsEnd: UInt = 0
  public var environmentStart: UInt = 0
  public var environmentEnd: UInt = 0
  public var trampolines = TrampolinePages()

  static let lowest: UInt = 0x1_0000
  public static var top: UInt { 0x6fff_f000_0000 }

  public init() {}

  deinit { for area in areas { forget(area) } }

  private func forget(_ area: VirtualMemoryArea) { area.inode?.mappings -= 1 }

  /// A copy for fork: the host copies the memory itself.
  public func copy() -> AddressSpace {
    let copy = AddressSpace()
    copy.areas = areas
    for area in areas { area.inode?.mappings += 1 }
    copy.heapStart = heapStart
    copy.heapEnd = heapEnd
    copy.argumentsStart = argumentsStart
    copy.argumentsEnd = argumentsEnd
    copy.environmentStart = environmentStart
    copy.environmentEnd = environmentEnd
    copy.trampolines = trampolines
    return copy
  }

  /// Forgets and unmaps everything (execve). What is unmapped in one call costs one call.
  public func clear() {
    for area in areas { forget(area) }
    areas = []
    trampolines = TrampolinePages()
    do throws(Errno) {
      try host.unmap(
        address: AddressSpace.lowest, length: UserSlice.reserved.lowerBound - AddressSpace.lowest)
      try host.unmap(
        address: UserSlice.reserved.upperBound, length: UserSlice.limit - UserSlice.reserved.upperBound)
    } catch {}
  }

  /// Index of the first area that ends above `address`.
  private func index(above address: UInt) -> Int {
    var low = 0
    var high = areas.count
    while low < high {
      let middle = (low + high) / 2
      if areas[middle].end <= address { low = middle + 1 } else { high = middle }
    }
    return low
  }

  public func area(at address: UInt) -> VirtualMemoryArea? {
    let i = index(above: address)
    return i < areas.count && areas[i].start <= address ? areas[i] : nil
  }

  /// Where `length` bytes fit, from the top down (as Linux's mmap does); ENOMEM.
  public func findFree(_ length: UInt, below: UInt = AddressSpace.top) throws(Errno) -> UInt {
    var end = below
    var i = areas.count - 1
    while i >= 0 {
      if areas[i].start >= end {
        i -= 1
        continue
      }
      if areas[i].end <= end, end - areas[i].end >= length { return try clamp(end - length) }
      end = areas[i].start
      i -= 1
    }
    guard end >= length + AddressSpace.lowest else { throw .noMemory }
    return try clamp(end - length)
  }

  private func clamp(_ address: UInt) throws(Errno) -> UInt {
    guard address >= UserSlice.reserved.upperBound else { throw .noMemory }
    return address
  }

  public func isFree(_ address: UInt, _ length: UInt) -> Bool {
    let i = index(above: address)
    return i == areas.count || areas[i].start >= address + length
  }

  /// EINVAL or ENOMEM unless the range lies in user space, page aligned.
  public static func check(_ address: UInt, _ length: UInt) throws(Errno) {
    guard address & 4095 == 0, length & 4095 == 0 else { throw .invalid }
    let (end, overflow) = address.addingReportingOverflow(length)
    guard !overflow, address >= lowest, end <= UserSlice.limit else { throw .noMemory }
    guard end <= UserSlice.reserved.lowerBound || address >= UserSlice.reserved.upperBound else {
      throw .noMemory
    }
  }

  /// Maps `area`, replacing what was there.
  public func map(_ area: VirtualMemoryArea) throws(Errno) {
    try AddressSpace.check(area.start, area.end - area.start)
    remove(area.start, area.end)
    try show(area)
    area.inode?.mappings += 1
    insert(area)
  }

  private func insert(_ area: VirtualMemoryArea) {
    let i = index(above: area.start)
    if i > 0, area.inode == nil, area.frames == nil, areas[i - 1].end == area.start,
      areas[i - 1].inode == nil,
      areas[i - 1].frames == nil, areas[i - 1].protection == area.protection, !areas[i - 1].isStack,
      areas[i - 1].isHeap == area.isHeap, !area.isStack
    {
      areas[i - 1].end = area.end
      return
    }
    areas.insert(area, at: i)
  }

  /// Tells the host what to map: one call for anonymous memory, one for every run of adjacent frames of a file.
  private func show(_ area: VirtualMemoryArea) throws(Errno) {
    let length = area.end - area.start
    if let shared = area.frames {
      try host.map(
        address: area.start, length: length, protection: area.protection,
        backing: .shared(arenaOffset: shared.offset + UInt(area.offset)))
      return
    }
    guard let inode = area.inode else {
      try host.map(address: area.start, length: length, protection: area.protection, backing: .anonymous)
      return
    }
    try show(area, of: inode)
  }

  private func show(_ area: VirtualMemoryArea, of inode: Inode) throws(Errno) {
    let first = Int(area.offset >> 12)
    let filePages = Int((inode.currentStatus().size + 4095) >> 12)
    let count = Int((area.end - area.start) >> 12)
    var page = 0
    while page < min(count, filePages - first) {
      guard let start = try inode.frame(page: first + page) else { throw .operationNotOnDevice }
      var run = 1
      while page + run < min(count, filePages - first),
        let next = try inode.frame(page: first + page + run), next == start + UInt(run) << 12
      {
        run += 1
      }
      try host.map(
        address: area.start + UInt(page) << 12, length: UInt(run) << 12, protection: area.protection,
        backing: area.isShared ? .shared(arenaOffset: start) : .copyOnWrite(arenaOffset: start))
      page += run
    }
    // Pages wholly past the end of the file: touching them is SIGBUS on Linux, a fault here.
    if page < count {
      try host.map(
        address: area.start + UInt(page) << 12, length: UInt(count - page) << 12, protection: [],
        backing: .anonymous)
    }
  }

  /// Cuts areas so that one starts at `start` and one ends at `end`; gives the indices between.
  private func split(_ start: UInt, _ end: UInt) -> Range<Int> {
    splitAt(start)
    splitAt(end)
    let low = index(above: start)
    var high = low
    while high < areas.count, areas[high].start < end { high += 1 }
    return low..<high
  }

  private func splitAt(_ address: UInt) {
    let i = index(above: address)
    guard i < areas.count, areas[i].start < address else { return }
    var upper = areas[i]
    upper.offset += Int64(address - upper.start)
    upper.start = address
    areas[i].end = address
    upper.inode?.mappings += 1
    areas.insert(upper, at: i + 1)
  }

  private func remove(_ start: UInt, _ end: UInt) {
    let range = split(start, end)
    for i in range { forget(areas[i]) }
    areas.removeSubrange(range)
    trampolines.forget(start, end)
  }

  public func unmap(_ start: UInt, _ end: UInt) throws(Errno) {
    remove(start, end)
    try host.unmap(address: start, length: end - start)
  }

  /// mprotect(2): ENOMEM where nothing is mapped, EACCES for writing to a file opened for reading.
  public func protect(_ start: UInt, _ end: UInt, _ protection: Protection) throws(Errno) {
    let range = split(start, end)
    var at = start
    for i in range {
      guard areas[i].start == at else { throw .noMemory }
      at = areas[i].end
    }
    guard at >= end else { throw .noMemory }
    for i in range { areas[i].protection = protection }
    try host.protect(address: start, length: end - start, protection: protection)
  }

  /// brk(2).
  public func setHeapEnd(_ address: UInt) -> UInt {
    guard address >= heapStart, address < heapStart + (64 << 30) else { return heapEnd }
    let old = (heapEnd + 4095) & ~4095
    let new = (address + 4095) & ~4095
    do throws(Errno) {
      if new > old {
        guard isFree(old, new - old) else { return heapEnd }
        try map(
          VirtualMemoryArea(
            start: old, end: new, protection: [.read, .write], isShared: false, inode: nil, offset: 0,
            path: nil,
            frames: nil, isHeap: true))
      } else if new < old {
        try unmap(new, old)
      }
    } catch { return heapEnd }
    heapEnd = address
    return address
  }

  /// mremap(2) of private anonymous memory and of whole shared or file areas.
  public func remap(_ old: UInt, _ oldLength: UInt, _ newLength: UInt, mayMove: Bool, fixed: UInt?)
    throws(Errno)
    -> UInt
  {
    guard let area = area(at: old), area.end >= old + oldLength else { throw .badAddress }
    if fixed == nil {
      if newLength <= oldLength {
        if newLength < oldLength { try unmap(old + newLength, old + oldLength) }
        return old
      }
      var grown = area
      grown.start = old + oldLength
      grown.end = old + newLength
      grown.offset += Int64(old + oldLength - area.start)
      if area.end == old + oldLength, area.frames == nil, grown.end <= UserSlice.limit,
        isFree(grown.start, grown.end - grown.start)
      {
        try map(grown)
        return old
      }
    }
    guard mayMove else { throw .noMemory }
    guard area.frames == nil || newLength <= oldLength else { throw .noMemory }
    let target: UInt
    if let fixed { target = fixed } else { target = try findFree(newLength) }
    return try move(area, from: old, oldLength, to: target, newLength)
  }

  private func move(
    _ area: VirtualMemoryArea, from old: UInt, _ oldLength: UInt, to target: UInt, _ newLength: UInt
  ) throws(Errno) -> UInt {
    try AddressSpace.check(target, newLength)
    remove(target, target + newLength)
    var moved = area
    moved.offset += Int64(old - area.start)
    moved.start = target
    moved.end = target + newLength
    let kept = min(oldLength, newLength)
    try host.move(from: old, length: kept, to: target, newLength: kept)
    moved.inode?.mappings += 1
    let whole = moved
    moved.end = target + kept
    insert(moved)
    try unmap(old, old + oldLength)
    if newLength > kept {
      var rest = whole
      rest.start = target + kept
      rest.offset += Int64(kept)
      try map(rest)
    }
    return target
  }
}
