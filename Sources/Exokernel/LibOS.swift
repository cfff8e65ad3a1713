import CExokernel

/// The libOS's own memory, alike in every address space: its image, the arena, the pages it may read. Exokernel lock
/// held.
enum LibOS {
  static let range: Range<UInt64> = 0x1000_0000_0000..<0x3000_0000_0000
  static let arena: UInt64 = 0x2000_0000_0000
  /// The template of top tables; also the table of a processor without a thread.
  nonisolated(unsafe) static var top: UInt64 = 0
  nonisolated(unsafe) static var arenaBytes: UInt64 = 0
  nonisolated(unsafe) static var dataStart: UInt64 = 0
  nonisolated(unsafe) static var dataEnd: UInt64 = 0
  nonisolated(unsafe) static var imageEnd: UInt64 = 0
  nonisolated(unsafe) static var entries = exokernel_entries()

  @inline(__always)
  static func contains(_ address: UInt64) -> Bool {
    address >= range.lowerBound && address < range.upperBound
  }

  /// An instruction of the libOS.
  @inline(__always)
  static func isCode(_ address: UInt64) -> Bool { address >= range.lowerBound && address < imageEnd }

  /// Maps `length` bytes of memory at `physical` for ring 3. Start-up only.
  static func show(_ address: UInt64, _ physical: UInt64, _ length: UInt64, flags: UInt64) {
    var done: UInt64 = 0
    while done < length {
      guard let slot = PageTable.page(top, address + done) else { panic("no memory for the libOS's pages") }
      slot.pointee = Entry((physical + done) | flags | Entry.present | Entry.user | Entry.libOSKey)
      done += 4096
    }
  }

  /// The frame behind an arena offset, made if there is none yet; 0 without memory.
  static func arenaFrame(_ offset: UInt64) -> UInt64 {
    guard offset < arenaBytes, let slot = PageTable.page(top, arena + offset) else { return 0 }
    if slot.pointee.isPresent { return slot.pointee.address }
    guard slot.pointee.kind != Entry.guarded else { return 0 }
    let frame = PhysicalMemory.allocate()
    guard frame != 0 else { return 0 }
    slot.pointee = Entry(
      frame | Entry.present | Entry.writable | Entry.user | Entry.noExecute | Entry.libOSKey)
    return frame
  }

  /// Whoever touches the page at `offset` faults, until it is released. False without memory.
  static func guardPage(_ offset: UInt64) -> Bool {
    guard let slot = PageTable.page(top, arena + offset) else { return false }
    guard slot.pointee.kind != Entry.guarded else { return true }
    if PageTable.clear(slot, 1) {
      Flush.everywhere = true
      Flush.wanted = true
    }
    slot.pointee = Entry.description(kind: Entry.guarded, protection: 0, offset: 0)
    return true
  }

  static func isGuarded(_ address: UInt64) -> Bool {
    guard address >= arena, address - arena < arenaBytes,
      let slot = PageTable.existingPage(top, address)
    else { return false }
    return slot.pointee.kind == Entry.guarded
  }

  /// Gives the frames of an arena range back. Programs that map one keep it.
  static func release(_ offset: UInt64, _ length: UInt64) {
    var at = offset
    while at < offset + length {
      if let slot = PageTable.existingPage(top, arena + at), PageTable.clear(slot, 1) {
        Flush.everywhere = true
        Flush.wanted = true
      }
      at += 4096
    }
  }

  /// Where `address`, which the libOS may write, lies in memory; 0 if it may not.
  static func writable(_ address: UInt64) -> UInt64 {
    if address >= arena, address - arena < arenaBytes {
      let frame = arenaFrame((address - arena) & ~4095)
      return frame == 0 ? 0 : frame | address & 4095
    }
    guard address >= dataStart, address < dataEnd, let slot = PageTable.existingPage(top, address),
      slot.pointee.isPresent
    else { return 0 }
    return slot.pointee.address | address & 4095
  }

  /// Where `address`, which the libOS may read, lies in memory; 0 if it may not.
  static func readable(_ address: UInt64) -> UInt64 {
    if address >= range.lowerBound, address < imageEnd {
      guard let slot = PageTable.existingPage(top, address), slot.pointee.isPresent else { return 0 }
      return slot.pointee.address | address & 4095
    }
    return writable(address)
  }

  /// The word at `address`, 4-byte aligned, in memory that the libOS may write; nil if it is not.
  static func word(_ address: UInt64) -> UnsafeMutablePointer<UInt32>? {
    guard address & 3 == 0 else { return nil }
    let place = writable(address)
    return place == 0 ? nil : PhysicalMemory.pointer(place).assumingMemoryBound(to: UInt32.self)
  }

  /// A thread_block in the arena that does not cross a page; nil otherwise.
  static func block(_ address: UInt64) -> UnsafeMutablePointer<thread_block>? {
    guard address & 15 == 0, address >= arena, address < arena + arenaBytes,
      address & 4095 <= 4096 - UInt64(MemoryLayout<thread_block>.size)
    else { return nil }
    let place = writable(address)
    return place == 0 ? nil : PhysicalMemory.pointer(place).assumingMemoryBound(to: thread_block.self)
  }
}
