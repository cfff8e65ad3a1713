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
  /// MAP_GROWSDOWN: a fault below makes it longer.
  public var growsDown = false
  /// A shared mapping of a file that was opened for reading.
  public var neverWritable = false
  /// MAP_NORESERVE, or a thread's stack: what is touched counts, not what is mapped.
  public var isReservation = false
  public var forkAdvice = ForkAdvice.copy
  /// Its pages may differ from the file's.
  public internal(set) var wasWritable = false

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
    wasWritable = protection.contains(.write)
  }
}

/// What a fork does with an area (madvise(2)).
public enum ForkAdvice {
  case copy
  /// MADV_DONTFORK
  case drop
  /// MADV_WIPEONFORK
  case wipe
}

/// Frames of anonymous shared memory, freed with the last area that shows them.
public final class SharedFrames {
  public let offset: UInt
  public let count: Int
  public init(count: Int) throws(Errno) {
    try MemoryLimit.check(count)
    offset = try Tasks.frames.allocate(count)
    self.count = count
  }
  deinit { Tasks.frames.free(offset, count) }
}

/// What a process's memory shows where: areas in order of address, none touching another's pages. Kernel lock held.
///
/// The host maps whole areas; pages are its business.
public final class AddressSpace {
  public internal(set) var areas = AreaList()
  /// Files that became shorter or longer while another process ran: to be shown again before the program goes on.
  var resized: [Inode] = []
  /// Set in a fork's copy when areas are to be dropped or wiped in it.
  public var hasForkAdvice = false
  /// Linux's vm.max_map_count.
  static let mostAreas = 65530
  public var heapStart: UInt = 0
  public var heapEnd: UInt = 0
  /// Threads of processes that use it (vfork shares it).
  public var argumentsStart: UInt = 0
  public var argumentsEnd: UInt = 0
  public var environmentStart: UInt = 0
  public var environmentEnd: UInt = 0
  public var trampolines = TrampolinePages()
  var patchedSites: [PatchedSite] = []
  /// A thread that uses it is traced (ptrace(2)): nothing is patched.
  var isTraced = false
  /// Shared by all copies that fork makes, until execve.
  var sites = ForkedSites()
  /// How many of `sites` have been looked at for this memory.
  var seenSites = 0
  var isCopy = false
  /// Code that the guard of executable memory has changed.
  var rewritten: [RewrittenCode] = []
  /// As execve(2) put them on the stack, for /proc: strings with their NULs, and pairs of words.
  public var environment: [UInt8] = []
  public var auxiliaryVector: [UInt] = []

  private var searchStart = AddressSpace.top
  private var largestPassedHole: UInt = 0

  static let lowest: UInt = 0x1_0000
  public static var top: UInt { 0x6fff_f000_0000 }

  public init() {}

  deinit { for area in areas { forget(area) } }

  func forget(_ area: VirtualMemoryArea) { area.inode?.mappings -= 1 }

  /// Room for `count` more areas; ENOMEM. Lists grow by doubling: not beyond what memory there is.
  func reserve(_ count: Int) throws(Errno) {
    guard areas.count + count <= AddressSpace.mostAreas else { throw .noMemory }
    if areas.count >= 64, areas.isFull {
      try MemoryLimit.checkHeap(bytes: areas.count * 2 * MemoryLayout<VirtualMemoryArea>.stride)
    }
  }

  /// A copy for fork: the host copies the memory itself.
  public func copy() -> AddressSpace {
    let copy = AddressSpace()
    copy.areas = areas
    for area in areas {
      area.inode?.mappings += 1
      if area.forkAdvice != .copy { copy.hasForkAdvice = true }
    }
    copy.resized = resized
    copy.heapStart = heapStart
    copy.heapEnd = heapEnd
    copy.argumentsStart = argumentsStart
    copy.argumentsEnd = argumentsEnd
    copy.environmentStart = environmentStart
    copy.environmentEnd = environmentEnd
    copy.trampolines = trampolines
    copy.patchedSites = patchedSites
    copy.sites = sites
    copy.seenSites = seenSites
    copy.isCopy = true
    copy.rewritten = rewritten
    copy.environment = environment
    copy.auxiliaryVector = auxiliaryVector
    return copy
  }

  /// Forgets and unmaps everything (execve). What is unmapped in one call costs one call.
  public func clear() {
    for area in areas { forget(area) }
    areas = AreaList()
    searchStart = AddressSpace.top
    largestPassedHole = 0
    resized = []
    trampolines = TrampolinePages()
    patchedSites = []
    rewritten = []
    sites = ForkedSites()
    seenSites = 0
    isCopy = false
    unmapAll()
  }

  /// Nothing of it is there any more; of a process that ends. The kernel lock need not be held.
  func unmapAll() {
    do throws(Errno) {
      try host.unmap(
        address: AddressSpace.lowest, length: UserSlice.reserved.lowerBound - AddressSpace.lowest)
      try host.unmap(
        address: UserSlice.reserved.upperBound, length: UserSlice.limit - UserSlice.reserved.upperBound)
    } catch {}
  }

  /// Bytes of anonymous private memory, touched or not.
  var privateBytes: UInt {
    var sum: UInt = 0
    for area in areas where area.inode == nil && !area.isShared { sum += area.end - area.start }
    return sum
  }

  /// Index of the first area that ends above `address`.
  func index(above address: UInt) -> Int {
    var low = 0
    var high = areas.count
    while low < high {
      let middle = (low + high) / 2
      if areas.bounds(middle).end <= address { low = middle + 1 } else { high = middle }
    }
    return low
  }

  public func area(at address: UInt) -> VirtualMemoryArea? {
    let i = index(above: address)
    return i < areas.count && areas[i].start <= address ? areas[i] : nil
  }

  /// Where `length` bytes fit below `top`, from the top down (as Linux's mmap does); ENOMEM. Goes on where the last
  /// search ended unless a hole that it passed is big enough.
  public func findFree(_ length: UInt) throws(Errno) -> UInt {
    if length <= largestPassedHole {
      largestPassedHole = 0
      searchStart = AddressSpace.top
    }
    if let found = try? findFree(length, below: searchStart) {
      searchStart = found
      return found
    }
    largestPassedHole = 0
    searchStart = try findFree(length, below: AddressSpace.top)
    return searchStart
  }

  /// Where `length` bytes fit between `above` and `below`.
  public func findFree(
    _ length: UInt, below: UInt, above: UInt = UserSlice.reserved.upperBound
  ) throws(Errno) -> UInt {
    var end = below
    var i = min(index(above: below), areas.count - 1)
    while i >= 0 {
      let (start, stop) = areas.bounds(i)
      if start < end {
        if stop <= end {
          if end - stop >= length { break }
          largestPassedHole = max(largestPassedHole, end - stop)
        }
        end = start
      }
      i -= 1
    }
    guard end >= above, end - above >= length else { throw .noMemory }
    return end - length
  }

  public func isFree(_ address: UInt, _ length: UInt) -> Bool {
    let (end, overflow) = address.addingReportingOverflow(length)
    guard !overflow else { return false }
    let i = index(above: address)
    return i == areas.count || areas.bounds(i).start >= end
  }

  /// EINVAL or ENOMEM unless the range lies in user space, page aligned.
  public static func check(_ address: UInt, _ length: UInt) throws(Errno) {
    guard address & 4095 == 0, length & 4095 == 0 else { throw .invalid }
    let (end, overflow) = address.addingReportingOverflow(length)
    guard !overflow, address >= lowest, end <= UserSlice.limit else { throw .noMemory }
    if ProgramSlots.isUsed, address < ProgramSlots.range.upperBound, end > ProgramSlots.range.lowerBound {
      throw .noMemory
    }
    guard end <= UserSlice.reserved.lowerBound || address >= UserSlice.reserved.upperBound else {
      throw .noMemory
    }
  }

  /// Maps `area`, replacing what was there.
  public func map(_ area: VirtualMemoryArea) throws(Errno) {
    try AddressSpace.check(area.start, area.end - area.start)
    try AddressSpace.checkExecution(area.protection, isShared: area.isShared)
    try reserve(3)
    remove(area.start, area.end)
    do throws(Errno) { try show(area) } catch {
      // Part of it may be shown already, over what was there.
      do throws(Errno) { try host.unmap(address: area.start, length: area.end - area.start) } catch {}
      throw error
    }
    adopt(area)
  }

  /// Enters an area that the host shows already.
  func adopt(_ area: VirtualMemoryArea) {
    area.inode?.mappings += 1
    insert(area)
  }

  private func insert(_ area: VirtualMemoryArea) {
    let i = index(above: area.start)
    if i > 0, areas[i - 1].continues(in: area) {
      areas[i - 1].end = area.end
      if i < areas.count, areas[i - 1].continues(in: areas[i]) {
        areas[i - 1].end = areas[i].end
        areas.remove(i..<i + 1)
      }
      return
    }
    if i < areas.count, area.continues(in: areas[i]) {
      areas[i].start = area.start
      return
    }
    areas.insert(area, at: i)
  }

  /// Tells the host what to map: one call for anonymous memory, one for every run of adjacent frames of a file.
  private func show(_ area: VirtualMemoryArea) throws(Errno) {
    let length = area.end - area.start
    if let shared = area.frames {
      let offset = UInt(area.offset)
      let size = UInt(shared.count) << 12
      let shown = offset < size ? min(length, size - offset) : 0
      if shown > 0 {
        try host.map(
          address: area.start, length: shown, protection: AddressSpace.shown(area.protection),
          backing: .shared(arenaOffset: shared.offset + offset))
      }
      if shown < length { try showNothing(area, from: area.start + shown) }
      return
    }
    guard let inode = area.inode else {
      try host.map(
        address: area.start, length: length, protection: AddressSpace.shown(area.protection),
        backing: .anonymous)
      return
    }
    try show(area, of: inode)
  }

  /// Pages past the end of what is mapped: beyond the arena's end, where touching them is SIGBUS.
  private func showNothing(_ area: VirtualMemoryArea, from start: UInt) throws(Errno) {
    try host.map(
      address: start, length: area.end - start, protection: AddressSpace.shown(area.protection),
      backing: .shared(arenaOffset: UInt(frames.totalFrames) << 12))
  }

  func show(_ area: VirtualMemoryArea, of inode: Inode, from start: Int = 0) throws(Errno) {
    if area.isShared, !area.neverWritable { inode.isShared = true }
    // Frames that are shown must stay, from the first one on.
    inode.mappings += 1
    defer { inode.mappings -= 1 }
    let first = Int(area.offset >> 12)
    let filePages = Int((inode.currentStatus().size + 4095) >> 12)
    let count = Int((area.end - area.start) >> 12)
    var page = start
    while page < min(count, filePages - first) {
      let unchanged = area.isShared ? 0 : try showImage(area, inode, page, min(count, filePages - first))
      page += unchanged
      if unchanged > 0 { continue }
      guard let start = try inode.frame(page: first + page) else { throw .operationNotOnDevice }
      var run = 1
      while page + run < min(count, filePages - first),
        area.isShared || inode.imageOffset(page: first + page + run) == nil,
        let next = try inode.frame(page: first + page + run), next == start + UInt(run) << 12
      {
        run += 1
      }
      try host.map(
        address: area.start + UInt(page) << 12, length: UInt(run) << 12,
        protection: AddressSpace.shown(area.protection),
        backing: area.isShared ? .shared(arenaOffset: start) : .copyOnWrite(arenaOffset: start))
      page += run
    }
    if page < count { try showNothing(area, from: area.start + UInt(page) << 12) }
  }

  /// Maps the pages from `page` on that are still as the image has them straight from the image; how many.
  private func showImage(_ area: VirtualMemoryArea, _ inode: Inode, _ page: Int, _ end: Int) throws(Errno)
    -> Int
  {
    let first = Int(area.offset >> 12)
    guard let offset = inode.imageOffset(page: first + page) else { return 0 }
    var run = 1
    while page + run < end, inode.imageOffset(page: first + page + run) == offset + UInt(run) << 12 {
      run += 1
    }
    try host.map(
      address: area.start + UInt(page) << 12, length: UInt(run) << 12,
      protection: AddressSpace.shown(area.protection),
      backing: .image(offset: offset))
    return run
  }

  /// Cuts areas so that one starts at `start` and one ends at `end`; gives the indices between.
  func split(_ start: UInt, _ end: UInt) -> Range<Int> {
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

  func remove(_ start: UInt, _ end: UInt) {
    let range = split(start, end)
    for i in range { forget(areas[i]) }
    areas.remove(range)
    if end > searchStart {
      searchStart =
        range.lowerBound < areas.count
        ? min(areas[range.lowerBound].start, AddressSpace.top) : AddressSpace.top
    }
    trampolines.forget(start, end)
    forgetSites(start, end)
    rewritten.removeAll { $0.address < end && $0.end > start }
  }

  public func unmap(_ start: UInt, _ end: UInt) throws(Errno) {
    try reserve(2)
    remove(start, end)
    MemoryLimit.noteShrinkage()
    try host.unmap(address: start, length: end - start)
  }

  /// mprotect(2): ENOMEM where nothing is mapped (what lies before is changed), EACCES for writing to a file that was
  /// opened for reading.
  public func protect(_ start: UInt, _ end: UInt, _ protection: Protection) throws(Errno) {
    try reserve(2)
    let wanted = bytes(in: start, end) {
      $0.isCharged == false && protection.contains(.write) && !$0.isShared
    }
    if wanted > 0 { try MemoryLimit.grant(bytes: wanted) }
    if protection.contains(.execute), bytes(in: start, end, { $0.isShared }) > 0 {
      try AddressSpace.checkExecution(protection, isShared: true)
    }
    try withdrawExecution(start, end)
    var at = start
    var isRefused = false
    for i in split(start, end) {
      guard areas[i].start == at else { break }
      isRefused = protection.contains(.write) && areas[i].neverWritable
      if isRefused { break }
      areas[i].protection = protection
      if protection.contains(.write) { areas[i].wasWritable = true }
      at = areas[i].end
    }
    if at > start {
      try host.protect(
        address: start, length: min(at, end) - start, protection: AddressSpace.shown(protection))
    }
    if isRefused { throw .accessDenied }
    guard at >= end else { throw .noMemory }
  }

  /// Bytes of the areas in a range that `matches` picks.
  public func bytes(in start: UInt, _ end: UInt, _ matches: (VirtualMemoryArea) -> Bool) -> UInt {
    var sum: UInt = 0
    var i = index(above: start)
    while i < areas.count, areas[i].start < end {
      if matches(areas[i]) { sum += min(areas[i].end, end) - max(areas[i].start, start) }
      i += 1
    }
    return sum
  }

  /// The files of which the range shows shared mappings.
  public func sharedFiles(in start: UInt, _ end: UInt) -> [Inode] {
    var result: [Inode] = []
    var i = index(above: start)
    while i < areas.count, areas[i].start < end {
      if areas[i].isShared, let inode = areas[i].inode { result.append(inode) }
      i += 1
    }
    return result
  }

  /// True when every page of the range belongs to an area.
  public func covers(_ start: UInt, _ end: UInt) -> Bool {
    bytes(in: start, end) { _ in true } == end - start
  }
}

extension VirtualMemoryArea {
  /// Counts against the memory limit as soon as it is mapped.
  public var isCharged: Bool { protection.contains(.write) && !isShared && !isReservation }

  /// Two anonymous areas that are one.
  func continues(in next: VirtualMemoryArea) -> Bool {
    end == next.start && inode == nil && next.inode == nil && frames == nil && next.frames == nil
      && protection == next.protection && isShared == next.isShared && isHeap == next.isHeap && !isStack
      && !next.isStack && !growsDown && !next.growsDown && isReservation == next.isReservation
      && forkAdvice == next.forkAdvice
  }
}
