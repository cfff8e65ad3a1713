import ABI
import Processes
import Tasks
import VFS

/// How large a process's memory is, in bytes. The host keeps no count of resident pages that others can read, so
/// memory that may be touched counts as resident, of stacks only what Linux gives at once.
struct MemorySizes {
  static let usualStack: UInt = 132 << 10
  var total: UInt = 0
  var resident: UInt = 0
  var anonymous: UInt = 0
  var shared: UInt = 0
  var file: UInt = 0
  var data: UInt = 0
  var stack: UInt = 0
  var text: UInt = 0
  var libraries: UInt = 0
  /// The program's first executable part, and its writable one.
  var code: Range<UInt> = 0..<0
  var programData: Range<UInt> = 0..<0

  init(_ space: AddressSpace) {
    var program: Inode?
    for area in space.areas {
      let size = area.end - area.start
      let isExecutable = area.protection.contains(.execute)
      total += size
      if program == nil { program = area.inode }
      if isExecutable, let inode = area.inode {
        if inode === program { text += size } else { libraries += size }
        if code.isEmpty { code = area.start..<area.end }
      }
      if area.isStack {
        stack += size
      } else if area.protection.contains(.write), !area.isShared {
        data += size
        if programData.isEmpty, area.inode === program { programData = area.start..<area.end }
      }
      let present = MemorySizes.resident(area)
      resident += present
      if area.isShared { shared += present } else if area.inode != nil { file += present }
    }
    resident = min(resident, UInt(frames.totalFrames) << 12)
    anonymous = resident - min(resident, shared + file)
  }

  static func resident(_ area: VirtualMemoryArea) -> UInt {
    if area.protection.isEmpty { return 0 }
    let size = area.end - area.start
    return area.isStack ? min(size, usualStack) : size
  }
}

/// What /proc/PID tells of a process's memory (proc(5)).
enum MemoryFiles {
  /// The arguments as they are in memory now: setproctitle(3) changes them. As execve(2) got them when the process is
  /// about to go.
  static func commandLine(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    let process = subject.process
    guard !process.isZombie else { return [] }
    let space = process.addressSpace
    guard space.argumentsEnd > space.argumentsStart,
      let text = memory(of: process, from: space.argumentsStart, to: space.argumentsEnd)
    else { return process.commandLine }
    guard text.last != 0 else { return text }
    // A title that has run on into the environment ends at its NUL.
    let all = memory(of: process, from: space.argumentsStart, to: space.environmentEnd) ?? text
    return Array(all[..<(all.firstIndex(of: 0) ?? all.count)])
  }

  private static func memory(of process: Process, from start: UInt, to end: UInt) -> [UInt8]? {
    var result: [UInt8] = []
    while start + UInt(result.count) < end {
      let at = start + UInt(result.count)
      guard let part = try? process.readMemory(at: at, count: Int(end - at)) else { return nil }
      result += part
    }
    return result
  }

  static func environment(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    subject.process.addressSpace.environment
  }

  static func auxiliaryVector(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    var result: [UInt8] = []
    for word in subject.process.addressSpace.auxiliaryVector {
      for shift in 0..<8 { result.append(UInt8(truncatingIfNeeded: word >> UInt(8 * shift))) }
    }
    return result
  }

  static func statm(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    let sizes = MemorySizes(subject.process.addressSpace)
    var text = Text()
    for (index, bytes) in [
      sizes.total, sizes.resident, sizes.file + sizes.shared, sizes.text, 0, sizes.data + sizes.stack, 0,
    ].enumerated() {
      if index > 0 { text.add(" ") }
      text.add(UInt64(bytes >> 12))
    }
    text.endLine()
    return text.bytes
  }

  /// The lines of status.
  static func addStatus(_ process: Process, _ text: inout Text) {
    let sizes = MemorySizes(process.addressSpace)
    func add(_ name: StaticString, _ bytes: UInt) {
      text.add(name)
      text.add(UInt64(bytes >> 10), width: 8)
      text.add(" kB\n")
    }
    add("VmPeak:\t", sizes.total)
    add("VmSize:\t", sizes.total)
    add("VmLck:\t", 0)
    add("VmPin:\t", 0)
    add("VmHWM:\t", sizes.resident)
    add("VmRSS:\t", sizes.resident)
    add("RssAnon:\t", sizes.anonymous)
    add("RssFile:\t", sizes.file)
    add("RssShmem:\t", sizes.shared)
    add("VmData:\t", sizes.data)
    add("VmStk:\t", sizes.stack)
    add("VmExe:\t", sizes.text)
    add("VmLib:\t", sizes.libraries)
    add("VmPTE:\t", (sizes.resident >> 9 + 4095) & ~4095)
    add("VmSwap:\t", 0)
    add("HugetlbPages:\t", 0)
    text.add("CoreDumping:\t0\nTHP_enabled:\t1\n")
  }

  // MARK: maps and smaps

  /// With the host's vDSO, by which debuggers know what it is.
  private static func shown(_ space: AddressSpace) -> [VirtualMemoryArea] {
    let object = host.virtualSharedObject
    let areas = Array(space.areas)
    guard !object.isEmpty, !areas.isEmpty else { return areas }
    return areas + [
      VirtualMemoryArea(
        start: object.lowerBound, end: object.upperBound, protection: [.read, .execute], isShared: false)
    ]
  }

  private static func addArea(_ area: VirtualMemoryArea, _ space: AddressSpace, _ text: inout Text) {
    let start = text.bytes.count
    text.addHexadecimal(UInt64(area.start), width: 8)
    text.add("-")
    text.addHexadecimal(UInt64(area.end), width: 8)
    text.add(area.protection.contains(.read) ? " r" : " -")
    text.add(area.protection.contains(.write) ? "w" : "-")
    text.add(area.protection.contains(.execute) ? "x" : "-")
    text.add(area.isShared ? "s " : "p ")
    text.addHexadecimal(UInt64(area.offset), width: 8)
    text.add(" ")
    let device = area.inode?.status.device ?? (area.frames == nil ? 0 : 1)
    text.addHexadecimal(device >> 8, width: 2)
    text.add(":")
    text.addHexadecimal(device & 0xff, width: 2)
    text.add(" ")
    text.add(area.inode?.status.inode ?? 0)
    text.add(" ")
    let name = name(area, space)
    if !name.isEmpty {
      text.pad(to: 73, from: start)
      text.add(name)
    }
    text.endLine()
  }

  private static func name(_ area: VirtualMemoryArea, _ space: AddressSpace) -> [UInt8] {
    if area.isStack { return bytes("[stack]") }
    if host.virtualSharedObject.contains(area.start) { return bytes("[vdso]") }
    if area.isHeap { return bytes("[heap]") }
    if area.frames != nil { return bytes("/dev/zero (deleted)") }
    guard let inode = area.inode else { return [] }
    guard let path = area.path else { return bytes("/ (deleted)") }
    // Line ends would break the table (proc(5)).
    var result: [UInt8] = []
    for byte in path.absolute { result += byte == 0x0a ? bytes("\\012") : [byte] }
    let mark = bytes(" (deleted)")
    let isMarked = result.count > mark.count && Array(result[(result.count - mark.count)...]) == mark
    return inode.status.links == 0 && !isMarked ? result + mark : result
  }

  static func maps(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    var text = Text()
    let space = subject.process.addressSpace
    for area in shown(space) { addArea(area, space, &text) }
    return text.bytes
  }

  static func smaps(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    var text = Text()
    let space = subject.process.addressSpace
    for area in shown(space) {
      addArea(area, space, &text)
      text.addKibibytes("Size:", UInt64(area.end - area.start), width: 24)
      text.add("KernelPageSize:        4 kB\nMMUPageSize:           4 kB\n")
      let present = UInt64(MemorySizes.resident(area))
      let isAnonymous = area.inode == nil && area.frames == nil || area.wasWritable && !area.isShared
      addCounts(present, isAnonymous: isAnonymous, isWritable: area.protection.contains(.write), &text)
      text.add("THPeligible:    0\nVmFlags:")
      if area.protection.contains(.read) { text.add(" rd") }
      if area.protection.contains(.write) { text.add(" wr") }
      if area.protection.contains(.execute) { text.add(" ex") }
      if area.isShared { text.add(" sh") }
      text.add(" mr mw me")
      if area.isStack { text.add(" gd") }
      text.add(" \n")
    }
    return text.bytes
  }

  private static func addCounts(_ present: UInt64, isAnonymous: Bool, isWritable: Bool, _ text: inout Text) {
    text.addKibibytes("Rss:", present, width: 24)
    text.addKibibytes("Pss:", present, width: 24)
    text.addKibibytes("Pss_Dirty:", isAnonymous ? present : 0, width: 24)
    text.addKibibytes("Shared_Clean:", 0, width: 24)
    text.addKibibytes("Shared_Dirty:", 0, width: 24)
    text.addKibibytes("Private_Clean:", isAnonymous ? 0 : present, width: 24)
    text.addKibibytes("Private_Dirty:", isAnonymous ? present : 0, width: 24)
    text.addKibibytes("Referenced:", present, width: 24)
    text.addKibibytes("Anonymous:", isAnonymous ? present : 0, width: 24)
    for name in [
      "LazyFree:", "AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:", "Shared_Hugetlb:",
      "Private_Hugetlb:", "Swap:", "SwapPss:", "Locked:",
    ] as [StaticString] { text.addKibibytes(name, 0, width: 24) }
  }

  static func smapsRollup(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    var text = Text()
    let space = subject.process.addressSpace
    guard let first = space.areas.first, let last = space.areas.last else { return [] }
    text.addHexadecimal(UInt64(first.start), width: 8)
    text.add("-")
    text.addHexadecimal(UInt64(last.end), width: 8)
    text.add(" ---p 00000000 00:00 0 ")
    text.pad(to: 73, from: 0)
    text.add("[rollup]\n")
    let sizes = MemorySizes(space)
    addCounts(UInt64(sizes.anonymous), isAnonymous: true, isWritable: true, &text)
    return text.bytes
  }

  static func numaMaps(_ subject: ProcessSubject) throws(Errno) -> [UInt8] {
    var text = Text()
    for area in subject.process.addressSpace.areas {
      text.addHexadecimal(UInt64(area.start))
      text.add(" default")
      if area.isStack { text.add(" stack") }
      if area.isHeap { text.add(" heap") }
      text.endLine()
    }
    return text.bytes
  }
}
