public import ABI
import CMachine
public import Tasks
import VFS

/// How a program touched what it may not touch; the bits of a page fault's error number (Intel SDM 3A, 4.7).
public struct FaultAccess: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public static var write: FaultAccess { FaultAccess(rawValue: 2) }
  public static var fetch: FaultAccess { FaultAccess(rawValue: 16) }
  /// A protection key refused it.
  public static var key: FaultAccess { FaultAccess(rawValue: 32) }
}

// Executable memory under a guard (`CodeGuard`), where protection keys keep programs out of the libOS.
//
// No page is writable and executable at once: the host shows what a program may execute as not executable, until the
// program goes there and faults. Then the page is looked at, together with the bytes around it, and shown as executable
// and not writable; a write makes it writable again, and not executable. What is executable does not change under it:
// it is a page of the image, or private memory, made so first if it shows a file that can be written. Instructions
// that are forbidden are rewritten (`AddressSpace+Rewriting.swift`).
//
// Memory that several processes share is never executable. Kernel lock held.
extension AddressSpace {
  /// What the host shows at first of an area that has `protection`.
  static func shown(_ protection: Protection) -> Protection {
    guard CodeGuard.isOn, protection.contains(.execute) else { return protection }
    return protection.subtracting(.execute).union(.read)
  }

  /// EPERM: nobody could say what is executed there.
  static func checkExecution(_ protection: Protection, isShared: Bool) throws(Errno) {
    if CodeGuard.isOn, isShared, protection.contains(.execute) { throw .notPermitted }
  }

  /// Whether a fault was the guard's doing only, and the access may be tried again.
  public func mend(_ address: UInt, _ access: FaultAccess) -> Bool {
    guard CodeGuard.isOn, let area = area(at: address) else { return false }
    do throws(Errno) {
      if access.contains(.fetch) {
        guard area.protection.contains(.execute), !area.isShared else { return false }
        try allowExecution(at: address, in: area)
        return true
      }
      let page = address & ~4095
      if access.contains(.write) {
        guard area.protection.contains(.write) else { return false }
        // By a key: the libOS was at work there, and has finished.
        guard area.protection.contains(.execute) else { return access.contains(.key) }
        try withdrawExecution(page, page + 4096)
        return true
      }
      guard access.contains(.key), !area.protection.isEmpty else { return false }
      // The program reads code that was rewritten: as it wrote it, and not executable meanwhile.
      if isRewritten(page, page + 4096) { try withdrawExecution(page, page + 4096) }
      return true
    } catch { return false }
  }

  /// Takes the execution of code in a range away until it is looked at anew; before its contents can change.
  public func withdrawExecution(_ start: UInt, _ end: UInt) throws(Errno) {
    guard CodeGuard.isOn else { return }
    var i = index(above: start)
    while i < areas.count, areas[i].start < end {
      let area = areas[i]
      if area.protection.contains(.execute) {
        let (from, to) = (max(area.start, start), min(area.end, end))
        try restoreCode(from, to)
        try host.protect(address: from, length: to - from, protection: AddressSpace.shown(area.protection))
      }
      i += 1
    }
  }

  /// Bytes that are looked at together, where a program may not write.
  private static var stretch: UInt { 64 << 10 }

  private func allowExecution(at address: UInt, in area: VirtualMemoryArea) throws(Errno) {
    var start = address & ~4095
    var end = start + 4096
    if area.protection.contains(.write) {
      // From here on it stays as it is: another thread's write waits for the kernel lock.
      try host.protect(address: start, length: end - start, protection: .read)
    } else {
      start = max(area.start, address & ~(AddressSpace.stretch - 1))
      end = min(area.end, (address & ~(AddressSpace.stretch - 1)) + AddressSpace.stretch)
    }
    end = try makePrivate(start, end, area, around: address)
    try inspect(start, end, area)
    try showCode(start, end)
  }

  /// Shows code that has been looked at as executable; what was rewritten may be executed but not read.
  func showCode(_ start: UInt, _ end: UInt) throws(Errno) {
    try host.protect(address: start, length: end - start, protection: [.read, .execute])
    guard isRewritten(start, end) else { return }
    var page = start
    while page < end {
      if isRewritten(page, page + 4096) {
        try host.protect(address: page, length: 4096, protection: [.read, .execute, .guarded])
      }
      page += 4096
    }
  }

  /// Pages that show a file which can be written become copies. Gives where they end: a file may be shorter.
  private func makePrivate(_ start: UInt, _ end: UInt, _ area: VirtualMemoryArea, around address: UInt)
    throws(Errno) -> UInt
  {
    guard let inode = area.inode else { return end }
    var page = start
    var isOpen = false
    while page < end {
      let number = Int((area.offset + Int64(page - area.start)) >> 12)
      if inode.imageOffset(page: number) == nil {
        if !isOpen {
          try host.protect(
            address: start, length: end - start, protection: [.read, .write, .guarded])
          isOpen = true
        }
        do throws(Errno) {
          try UserSlice.store(try UserSlice.load(page, UInt8(0)), at: page)
        } catch {
          guard page > address else { throw error }
          try host.protect(address: start, length: end - start, protection: .read)
          return page
        }
      }
      page += 4096
    }
    if isOpen { try host.protect(address: start, length: end - start, protection: .read) }
    return end
  }

  /// Rewrites what is forbidden in a range, also where it only reaches into it. The last page is looked at every time:
  /// what follows it may be another area.
  private func inspect(_ start: UInt, _ end: UInt, _ area: VirtualMemoryArea) throws(Errno) {
    let last = end - 4096
    if isKnownClean(start, last, area) {
      try inspect(start, start)
      try inspect(last, end)
      return
    }
    let found = try inspect(start, end)
    guard !found, !area.wasWritable, let inode = area.inode else { return }
    var page = start
    while page < last {
      let number = Int((area.offset + Int64(page - area.start)) >> 12)
      if let offset = inode.imageOffset(page: number) { CodeGuard.noteClean(imageOffset: offset) }
      page += 4096
    }
  }

  /// Pages of the image that have been looked at before, one following the other.
  private func isKnownClean(_ start: UInt, _ end: UInt, _ area: VirtualMemoryArea) -> Bool {
    guard !area.wasWritable, let inode = area.inode, !isRewritten(start, end) else { return false }
    var page = start
    while page < end {
      let number = Int((area.offset + Int64(page - area.start)) >> 12)
      guard let offset = inode.imageOffset(page: number), CodeGuard.isClean(imageOffset: offset) else {
        return false
      }
      page += 4096
    }
    return true
  }

  /// Looks at `start..<end` and at what begins before and ends behind. True: something was rewritten.
  @discardableResult
  func inspect(_ start: UInt, _ end: UInt) throws(Errno) -> Bool {
    let low = start - UInt(ForbiddenInstructions.before)
    // A checked XRSTOR is judged by what follows it.
    let bytes = code(low, end + 32)
    var isFound = false
    var index = ForbiddenInstructions.before - ForbiddenInstructions.after
    while let next = CodeGuard.forbidden.first(in: bytes, from: index), low + UInt(next) < end {
      index = next + 1
      let place = low + UInt(next)
      // What reaches into memory that is not code cannot be executed, until that is code and looked at.
      guard self.bytes(in: place, place + 3, { $0.protection.contains(.execute) }) == 3 else { continue }
      try rewrite(place)
      isFound = true
    }
    return isFound
  }

  /// Memory as it is; bytes that are not there read as `ret`, which belongs to nothing.
  func code(_ start: UInt, _ end: UInt) -> [UInt8] {
    if let whole = try? UserSlice(start, Int(end - start)).bytes() { return whole }
    var result: [UInt8] = []
    result.reserveCapacity(Int(end - start))
    var at = start
    while at < end {
      let next = min(end, (at & ~4095) + 4096)
      let part = try? UserSlice(at, Int(next - at)).bytes()
      result += part ?? [UInt8](repeating: 0xc3, count: Int(next - at))
      at = next
    }
    return result
  }
}

/// Tells a fault that comes again and again, because one instruction needs what cannot be had at once: code that writes
/// to its own page.
public struct RepeatedFaults {
  private var last: (instruction: UInt, address: UInt) = (0, 0)
  private var lastButOne: (instruction: UInt, address: UInt) = (0, 0)
  private var count = 0
  /// Other threads of the program may undo what one needs, a few times.
  private static let most = 64

  init() {}

  public mutating func isNew(_ instruction: UInt, _ address: UInt) -> Bool {
    if (instruction, address) == last || (instruction, address) == lastButOne {
      count += 1
    } else {
      count = 0
    }
    (last, lastButOne) = ((instruction, address), last)
    return count < RepeatedFaults.most
  }
}
