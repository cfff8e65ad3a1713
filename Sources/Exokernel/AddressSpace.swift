import CExokernel

/// A program's address space, named by the physical address of its top table, whose frame is referred to by each of
/// its threads. Exokernel lock held.
enum AddressSpace {
  static let lowest: UInt64 = 0x1_0000
  static let limit: UInt64 = 0x7000_0000_0000
  /// Entries of the top table that belong to the libOS, alike in every space.
  static let libOSEntries = 32..<96
  static let programEntries = 224

  /// Entries of the top table that no address uses keep facts of the space (never with the present bit).
  private static let restrictedEntry = 230
  private static let changedEntry = 231
  private static let usedEntry = 232

  /// The top table for a thread that runs the program, made when there is none; 0 without memory.
  static func restricted(_ top: UInt64) -> UInt64 {
    let entries = PhysicalMemory.words(top)
    if entries[restrictedEntry] == 0 {
      let table = PhysicalMemory.allocate()
      guard table != 0 else { return 0 }
      entries[restrictedEntry] = table
      entries[changedEntry] = 2
      let template = PhysicalMemory.words(LibOS.top)
      for i in 256..<512 { PhysicalMemory.words(table)[i] = template[i] }
    }
    if entries[changedEntry] != 0 {
      entries[changedEntry] = 0
      let table = PhysicalMemory.words(entries[restrictedEntry])
      for i in 0..<programEntries where !libOSEntries.contains(i) { table[i] = entries[i] }
    }
    return entries[restrictedEntry]
  }

  /// A table below the top one came or went.
  static func changed(_ top: UInt64) { PhysicalMemory.words(top)[changedEntry] = 2 }

  /// Processor time of the space's threads, in nanoseconds.
  static func use(_ top: UInt64, _ nanoseconds: UInt64) {
    PhysicalMemory.words(top)[usedEntry] &+= nanoseconds << 1
  }
  static func used(_ top: UInt64) -> UInt64 { PhysicalMemory.words(top)[usedEntry] >> 1 }

  /// `outside`: the mapping shows what lies beyond the end of the arena or the archive.
  enum Outcome { case resolved, unmapped, denied, noMemory, outside }

  /// A space with the libOS in it and nothing else; 0 without memory.
  static func make() -> UInt64 {
    let top = PhysicalMemory.allocate()
    guard top != 0 else { return 0 }
    let entries = PhysicalMemory.words(top)
    let template = PhysicalMemory.words(LibOS.top)
    for i in libOSEntries { entries[i] = template[i] }
    for i in 256..<512 { entries[i] = template[i] }
    return top
  }

  /// Drops a thread's reference; the last one ends the space.
  static func release(_ top: UInt64) {
    guard PhysicalMemory.isSingle(top) else {
      PhysicalMemory.release(top)
      return
    }
    PageTable.forEachOfProgram(in: top) { if $0.pointee.isPresent { PageTable.clear($0, 4) } }
    // Idle processors keep what they showed last.
    Flush.evict(top)
    Flush.flush(top)
    if PhysicalMemory.words(top)[restrictedEntry] != 0 {
      PhysicalMemory.release(PhysicalMemory.words(top)[restrictedEntry])
    }
    PhysicalMemory.release(top)
  }

  /// Says what `start..<end` shows from now on; `kind` none unmaps. False without memory.
  static func set(
    _ table: UInt64, level: Int = 4, _ start: UInt64, _ end: UInt64, kind: UInt64, protection: UInt64,
    offset: UInt64
  ) -> Bool {
    let span = PageTable.span(level)
    var at = start & ~(span - 1)
    while at < end {
      let slot = PageTable.slot(table, level, at)
      let from = max(at, start)
      let to = min(at + span, end)
      let here = kind == Entry.anonymous || kind == Entry.none ? 0 : offset + (from - start)
      if level < 4, to - from == span {
        if slot.pointee.raw != 0, PageTable.clear(slot, level) { Flush.wanted = true }
        slot.pointee = Entry.description(kind: kind, protection: protection, offset: here)
      } else if kind != Entry.none || slot.pointee.raw != 0 {
        if level == 4, !slot.pointee.isPresent { changed(table) }
        let child = PageTable.child(slot, level)
        guard child != 0,
          set(child, level: level - 1, from, to, kind: kind, protection: protection, offset: here)
        else { return false }
      }
      at += span
    }
    return true
  }

  /// Changes what the program may do with what is mapped in `start..<end`.
  static func protect(_ table: UInt64, level: Int = 4, _ start: UInt64, _ end: UInt64, _ protection: UInt64)
    -> Bool
  {
    let span = PageTable.span(level)
    var at = start & ~(span - 1)
    while at < end {
      let slot = PageTable.slot(table, level, at)
      let from = max(at, start)
      let to = min(at + span, end)
      let entry = slot.pointee
      if entry.raw == 0 {
      } else if level == 1, entry.hasFrame {
        // A private page may be written at once only if nobody else refers to it.
        let canWrite = entry.isShared || PhysicalMemory.isSingle(entry.address)
        slot.pointee = Entry.page(
          entry.address, protection: protection, isShared: entry.isShared, canWrite: canWrite)
        if entry.isPresent { Flush.wanted = true }
      } else if !entry.isPresent, to - from == span {
        slot.pointee = Entry.description(kind: entry.kind, protection: protection, offset: entry.address)
      } else {
        let child = PageTable.child(slot, level)
        guard child != 0, protect(child, level: level - 1, from, to, protection) else { return false }
      }
      at += span
    }
    return true
  }

  /// Drops the contents of private pages: they read as zeros again.
  static func discard(_ table: UInt64, level: Int = 4, _ start: UInt64, _ end: UInt64) {
    let span = PageTable.span(level)
    var at = start & ~(span - 1)
    while at < end {
      let slot = PageTable.slot(table, level, at)
      let entry = slot.pointee
      if level == 1 {
        if entry.hasFrame, !entry.isShared {
          let isPresent = entry.isPresent
          let description = Entry.description(
            kind: Entry.anonymous, protection: entry.protection, offset: 0)
          PageTable.clear(slot, 1)
          slot.pointee = description
          if isPresent { Flush.wanted = true }
        }
      } else if entry.isPresent {
        discard(entry.address, level: level - 1, max(at, start), min(at + span, end))
      }
      at += span
    }
  }

  /// Moves what is mapped, page by page. The ranges do not overlap. False without memory.
  static func move(_ top: UInt64, from: UInt64, length: UInt64, to: UInt64) -> Bool {
    var done: UInt64 = 0
    while done < length {
      guard let target = PageTable.page(top, to + done), let source = PageTable.page(top, from + done) else {
        return false
      }
      if PageTable.clear(target, 1) { Flush.wanted = true }
      target.pointee = source.pointee
      if source.pointee.isPresent { Flush.wanted = true }
      source.pointee = Entry(0)
      done += 4096
    }
    return true
  }

  /// A copy for fork: private pages are shared until one side writes. 0 without memory.
  static func copy(_ top: UInt64) -> UInt64 {
    let result = make()
    guard result != 0 else { return 0 }
    let source = PhysicalMemory.pointer(top).assumingMemoryBound(to: Entry.self)
    let target = PhysicalMemory.pointer(result).assumingMemoryBound(to: Entry.self)
    var succeeded = true
    PageTable.forEachOfProgram(in: top) {
      succeeded = succeeded && copyEntry($0, target + ($0 - source), 4)
    }
    Flush.wanted = true
    if succeeded { return result }
    release(result)
    return 0
  }

  private static func copyEntry(
    _ from: UnsafeMutablePointer<Entry>, _ to: UnsafeMutablePointer<Entry>, _ level: Int
  ) -> Bool {
    let entry = from.pointee
    if level == 1 {
      if entry.hasFrame {
        PhysicalMemory.retain(entry.address)
        if entry.isPresent, !entry.isShared { from.pointee.raw &= ~Entry.writable }
      }
      to.pointee = from.pointee
      return true
    }
    guard entry.isPresent else {
      to.pointee = entry
      return true
    }
    let table = PhysicalMemory.allocate()
    guard table != 0 else { return false }
    to.pointee = Entry.table(table)
    let source = PhysicalMemory.pointer(entry.address).assumingMemoryBound(to: Entry.self)
    let target = PhysicalMemory.pointer(table).assumingMemoryBound(to: Entry.self)
    var succeeded = true
    PageTable.forEach(in: entry.address) {
      succeeded = succeeded && copyEntry($0, target + ($0 - source), level - 1)
    }
    return succeeded
  }

  /// Makes the page at `address` there for an access, if what is mapped allows it.
  static func resolve(_ top: UInt64, _ address: UInt64, isWrite: Bool, isFetch: Bool) -> Outcome {
    guard address < limit, !LibOS.contains(address) else { return .unmapped }
    var table = top
    var level = 4
    while level > 1 {
      let slot = PageTable.slot(table, level, address)
      if !slot.pointee.isPresent {
        if slot.pointee.kind == Entry.none { return .unmapped }
        if !allows(slot.pointee.protection, isWrite, isFetch) { return .denied }
      }
      table = PageTable.child(slot, level)
      if table == 0 { return .noMemory }
      level -= 1
    }
    let slot = PageTable.slot(table, 1, address)
    let entry = slot.pointee
    if entry.raw == 0 { return .unmapped }
    guard allows(entry.protection, isWrite, isFetch) else { return .denied }
    if entry.isPresent { return present(slot, address, isWrite) }
    return touch(slot, isWrite)
  }

  /// Frames of the space's private pages; of a frame that several spaces share until it is written, its share.
  static func frames(_ top: UInt64) -> UInt64 {
    var sum: UInt64 = 0
    PageTable.forEachOfProgram(in: top) { add($0.pointee, 4, &sum) }
    return sum >> 12
  }

  private static func add(_ entry: Entry, _ level: Int, _ sum: inout UInt64) {
    if level == 1 {
      if entry.hasFrame, !entry.isShared { sum &+= 4096 / PhysicalMemory.references(entry.address) }
    } else if entry.isPresent {
      PageTable.forEach(in: entry.address) { add($0.pointee, level - 1, &sum) }
    }
  }

  private static func allows(_ protection: UInt64, _ isWrite: Bool, _ isFetch: Bool) -> Bool {
    if protection & 7 == 0 { return false }
    if isWrite, protection & 2 == 0 { return false }
    return !isFetch || protection & 4 != 0
  }

  /// A mapped page: written for the first time, or seen by a processor that remembers the old entry.
  private static func present(_ slot: UnsafeMutablePointer<Entry>, _ address: UInt64, _ isWrite: Bool)
    -> Outcome
  {
    let entry = slot.pointee
    if isWrite, !entry.isWritable {
      if entry.isShared || PhysicalMemory.isSingle(entry.address) {
        slot.pointee.raw |= Entry.writable
      } else {
        let frame = PhysicalMemory.allocateForProgram(cleared: false)
        guard frame != 0 else { return .noMemory }
        cpu_copy_page(PhysicalMemory.pointer(frame), PhysicalMemory.pointer(entry.address))
        slot.pointee = Entry.page(frame, protection: entry.protection, isShared: false, canWrite: true)
        Flush.release(entry.address)
        Flush.wanted = true
      }
    }
    cpu_flush_page(address)
    return .resolved
  }

  /// A page that is described but not there yet.
  private static func touch(_ slot: UnsafeMutablePointer<Entry>, _ isWrite: Bool) -> Outcome {
    let entry = slot.pointee
    let protection = entry.protection
    if entry.kind == Entry.anonymous {
      let frame = PhysicalMemory.allocateForProgram(cleared: true)
      guard frame != 0 else { return .noMemory }
      slot.pointee = Entry.page(frame, protection: protection, isShared: false, canWrite: true)
      return .resolved
    }
    let isImage = entry.kind == Entry.image
    let source = isImage ? LibOSImage.frame(entry.address) : LibOS.arenaFrame(entry.address)
    guard source != 0 else { return isImage || entry.address >= LibOS.arenaBytes ? .outside : .noMemory }
    if entry.kind != Entry.sharedFrames, isWrite {
      let frame = PhysicalMemory.allocateForProgram(cleared: false)
      guard frame != 0 else { return .noMemory }
      cpu_copy_page(PhysicalMemory.pointer(frame), PhysicalMemory.pointer(source))
      slot.pointee = Entry.page(frame, protection: protection, isShared: false, canWrite: true)
      return .resolved
    }
    PhysicalMemory.retain(source)
    let isShared = entry.kind == Entry.sharedFrames
    slot.pointee = Entry.page(source, protection: protection, isShared: isShared, canWrite: isShared)
    return .resolved
  }
}
