import CExokernel

/// An entry of a page table (Intel SDM 3A, 4.5), of a program's address space or of the libOS's.
///
/// A present entry is the hardware's, with two bits of ours: what the program may do (a page may be write-protected
/// for copy-on-write only), and whether the frame is shared. An entry that is not present describes the whole span it
/// covers, at any level: what would be there if somebody touched it. So the table is also the list of regions, and
/// mapping a gigabyte writes one word.
struct Entry {
  var raw: UInt64

  init(_ raw: UInt64) { self.raw = raw }

  static let present: UInt64 = 1
  static let writable: UInt64 = 2
  static let user: UInt64 = 4
  static let uncached: UInt64 = 0x18
  static let large: UInt64 = 0x80
  static let mayWrite: UInt64 = 1 << 9
  static let shared: UInt64 = 1 << 10
  /// Protection key 1, of all that belongs to the libOS (Intel SDM 3A, 4.6.2); key 0 is the programs'.
  static let libOSKey: UInt64 = 1 << 59
  static let noExecute: UInt64 = 1 << 63
  static let addressMask: UInt64 = 0x000f_ffff_ffff_f000

  // Not present: protection in bits 1...3 and 7, kind in bits 4...6, arena offset or frame in the address bits.
  static let none: UInt64 = 0
  static let anonymous = UInt64(EXOKERNEL_ANONYMOUS)
  static let sharedFrames = UInt64(EXOKERNEL_SHARED)
  static let copyOnWrite = UInt64(EXOKERNEL_COPY_ON_WRITE)
  static let image = UInt64(EXOKERNEL_IMAGE)
  /// A frame that may not be touched now (PROT_NONE); `shared` as in present entries.
  static let held: UInt64 = 4

  /// In the arena: a page without memory that must not be touched.
  static let guarded: UInt64 = 6

  static func description(kind: UInt64, protection: UInt64, offset: UInt64) -> Entry {
    Entry(kind << 4 | (protection & 7) << 1 | (protection & 8) << 4 | offset & addressMask)
  }

  static func table(_ address: UInt64) -> Entry { Entry(address | present | writable | user) }

  /// A page that a program may touch as `protection` says; `canWrite` is false until it has a copy of its own.
  static func page(_ frame: UInt64, protection: UInt64, isShared: Bool, canWrite: Bool) -> Entry {
    if protection & 7 == 0 {
      return Entry(frame | held << 4 | (isShared ? shared : 0))
    }
    let mayWrite = protection & 2 != 0
    return Entry(
      frame | present | user | (mayWrite ? Entry.mayWrite : 0) | (mayWrite && canWrite ? writable : 0)
        | (isShared ? shared : 0) | (protection & 4 != 0 ? 0 : noExecute)
        | (protection & 8 != 0 ? libOSKey : 0))
  }

  var isPresent: Bool { raw & Entry.present != 0 }
  var isShared: Bool { raw & Entry.shared != 0 }
  var isWritable: Bool { raw & Entry.writable != 0 }
  var address: UInt64 { raw & Entry.addressMask }
  var kind: UInt64 { isPresent ? 0 : raw >> 4 & 7 }
  /// The entry refers to a frame of memory.
  var hasFrame: Bool { isPresent || kind == Entry.held }

  /// Read 1, write 2, execute 4, the libOS's 8.
  var protection: UInt64 {
    if !isPresent { return kind == Entry.held ? 0 : raw >> 1 & 7 | raw >> 4 & 8 }
    return 1 | (raw & Entry.mayWrite != 0 ? 2 : 0) | (raw & Entry.noExecute != 0 ? 0 : 4)
      | (raw & Entry.libOSKey != 0 ? 8 : 0)
  }
}

/// The tree of tables, from level 4 (the top) down to level 1, whose entries are pages. Exokernel lock held.
enum PageTable {
  /// Bytes that one entry of a table of `level` covers.
  @inline(__always)
  static func span(_ level: Int) -> UInt64 { 1 << UInt64(12 + 9 * (level - 1)) }

  @inline(__always)
  static func slot(_ table: UInt64, _ level: Int, _ address: UInt64) -> UnsafeMutablePointer<Entry> {
    let index = Int((address >> UInt64(12 + 9 * (level - 1))) & 511)
    return (PhysicalMemory.pointer(table) + index * 8).assumingMemoryBound(to: Entry.self)
  }

  /// The table below `slot`, made if there is none: it says what the entry said. 0 without memory.
  static func child(_ slot: UnsafeMutablePointer<Entry>, _ level: Int) -> UInt64 {
    let entry = slot.pointee
    if entry.isPresent { return entry.address }
    let table = PhysicalMemory.allocate()
    guard table != 0 else { return 0 }
    if entry.kind != Entry.none {
      let entries = PhysicalMemory.words(table)
      // Only frames of the arena advance; anonymous memory has no offset.
      let step = entry.kind == Entry.anonymous ? 0 : span(level - 1)
      for i in 0..<512 { entries[i] = entry.raw &+ UInt64(i) &* step }
    }
    slot.pointee = Entry.table(table)
    return table
  }

  /// The page entry of `address`, with the tables above it; nil without memory.
  static func page(_ top: UInt64, _ address: UInt64) -> UnsafeMutablePointer<Entry>? {
    if !slot(top, 4, address).pointee.isPresent { AddressSpace.changed(top) }
    var table = top
    var level = 4
    while level > 1 {
      table = child(slot(table, level, address), level)
      if table == 0 { return nil }
      level -= 1
    }
    return slot(table, 1, address)
  }

  /// The page entry of `address` if the tables above it exist.
  static func existingPage(_ top: UInt64, _ address: UInt64) -> UnsafeMutablePointer<Entry>? {
    var table = top
    var level = 4
    while level > 1 {
      let entry = slot(table, level, address).pointee
      if !entry.isPresent { return nil }
      table = entry.address
      level -= 1
    }
    return slot(table, 1, address)
  }

  /// Calls `body` with every entry of a table that says something.
  @inline(__always)
  static func forEach(in table: UInt64, _ body: (UnsafeMutablePointer<Entry>) -> Void) {
    let entries = PhysicalMemory.pointer(table).assumingMemoryBound(to: Entry.self)
    var index = exokernel_next_entry(PhysicalMemory.words(table), 0)
    while index < 512 {
      body(entries + index)
      index = exokernel_next_entry(PhysicalMemory.words(table), index + 1)
    }
  }

  /// Calls `body` with every entry of a top table that belongs to the program.
  @inline(__always)
  static func forEachOfProgram(in top: UInt64, _ body: (UnsafeMutablePointer<Entry>) -> Void) {
    let entries = PhysicalMemory.pointer(top).assumingMemoryBound(to: Entry.self)
    forEach(in: top) {
      let index = $0 - entries
      if index < AddressSpace.programEntries, !AddressSpace.libOSEntries.contains(index) { body($0) }
    }
  }

  /// Gives back all that an entry of a table of `level` refers to. True: a page that was mapped is gone.
  @discardableResult
  static func clear(_ slot: UnsafeMutablePointer<Entry>, _ level: Int) -> Bool {
    let entry = slot.pointee
    slot.pointee = Entry(0)
    if level == 1 {
      if entry.hasFrame { Flush.release(entry.address) }
      return entry.isPresent
    }
    guard entry.isPresent else { return false }
    var changed = false
    forEach(in: entry.address) { if clear($0, level - 1) { changed = true } }
    Flush.release(entry.address)
    return changed
  }
}
