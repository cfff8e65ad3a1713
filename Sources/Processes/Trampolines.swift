import ABI
import CMachine
public import Tasks

/// Pages near a program's code that hold the jumps of patched system-call sites to the gate.
public struct TrampolinePages {
  struct Page {
    var address: UInt
    var used: UInt
  }
  var pages: [Page] = []
  /// Sites that trapped: most are used once, and patching costs several traps.
  private var seen: [32 of UInt] = .init(repeating: 0)

  /// True from the second time on, unless too many others came between.
  fileprivate mutating func isKnown(_ site: UInt) -> Bool {
    let place = Int((site ^ site >> 5 ^ site >> 10) & 31)
    if seen[place] == site { return true }
    seen[place] = site
    return false
  }

  static let pageBytes: UInt = 64 << 10
  static let entryBytes: UInt = 48

  mutating func forget(_ start: UInt, _ end: UInt) {
    pages.removeAll { $0.address >= start && $0.address < end }
  }
}

/// System-call sites that trapped in copies of an address space. A child that ends soon makes most of its calls once,
/// and what it patches dies with it; patched in the parent before its next fork they are in all later children.
final class ForkedSites {
  struct Site: Equatable {
    /// Behind the `syscall`.
    var after: UInt
    /// The code is a file's: the same code at the same place in the parent is the same file at the same offset.
    var file: ObjectIdentifier
    var offset: Int64
  }
  private(set) var list: [Site] = []

  func insert(_ site: Site) {
    if list.count < 128, !list.contains(site) { list.append(site) }
  }
}

/// The gate's address, set by the host at start; 0 where programs cannot reach it, and every call traps.
nonisolated(unsafe) public var gateAddress: UInt = 0
/// The gate wants registers packed, as protection keys need it (CHostCore's gate_keys.h).
nonisolated(unsafe) public var gateHasKeys = false

extension AddressSpace {
  /// Turns `mov $number, %eax; syscall` (or with another constant, when the number is in %eax already) into a jump. `after`
  /// is the address behind the `syscall` that just trapped, and so known to be a real instruction; patched is what traps a
  /// second time. The `syscall` itself stays: a restarted call goes back to it, and a jump straight to it still works.
  public func patch(after: UInt) {
    if trampolines.isKnown(after) { change(after: after) }
  }

  /// Notes the site of a call that trapped in a copy.
  public func note(after: UInt) {
    if isCopy, let site = forkedSite(after) { sites.insert(site) }
  }

  /// Patches what trapped in children so far; before a fork.
  func patchForkedSites() {
    while seenSites < sites.list.count {
      let site = sites.list[seenSites]
      seenSites += 1
      if forkedSite(site.after) == site { change(after: site.after) }
    }
  }

  private func forkedSite(_ after: UInt) -> ForkedSites.Site? {
    guard let area = area(at: after &- 2), let inode = area.inode else { return nil }
    return ForkedSites.Site(
      after: after, file: ObjectIdentifier(inode), offset: area.offset + Int64(after - area.start))
  }

  private func change(after: UInt) {
    // A host that isolates programs has no gate that they may jump to.
    if gateAddress == 0 || isTraced || patchAgain(after: after) || patchShort(after: after) { return }
    let site = after &- 7
    guard let area = area(at: site), area.end >= after, area.protection.contains(.execute),
      !area.isShared, !mayHavePrefix(site),
      let bytes = try? UserSlice(site, 7).bytes(), AddressSpace.isLongSite(bytes),
      let trampoline = trampoline(near: site, load: bytes[0..<5], back: after)
    else { return }
    let distance = Int32(truncatingIfNeeded: Int(trampoline) - Int(site + 5))
    let jump: [UInt8] = [0xe9] + littleEndian(UInt32(bitPattern: distance))
    guard !CodeGuard.isOn || isHarmless(jump, at: site) else { return }
    notePatch(jump, at: site, trampoline: trampoline)
    write(jump, at: site, in: area)
  }

  /// `xor %eax, %eax; syscall` and `mov %r32, %eax; syscall`, which is how C libraries write read(2) and _exit(2), have
  /// no room for a jump to the trampoline: such a site gets a short jump to a long one, which is put into padding close
  /// by. True if the site is of this form.
  private func patchShort(after: UInt) -> Bool {
    let site = after &- 4
    guard let area = area(at: site), area.end >= after, let code = try? UserSlice(site, 4).bytes(),
      AddressSpace.isShortSite(code[...])
    else { return false }
    guard area.protection.contains(.execute), !area.isShared, !mayHavePrefix(site),
      let gap = gap(near: site, in: area),
      let trampoline = trampoline(near: site, load: code[0..<2] + [0x0f, 0x1f, 0x00], back: after)
    else { return true }
    let distance = Int32(truncatingIfNeeded: Int(trampoline) - Int(gap + 5))
    let jump: [UInt8] = [0xe9] + littleEndian(UInt32(bitPattern: distance))
    if CodeGuard.isOn, !isHarmless(jump, at: gap) { return true }
    notePatch(jump, at: gap, trampoline: trampoline, isPadding: true)
    write(jump, at: gap, in: area)
    let hop = [0xeb, UInt8(bitPattern: Int8(truncatingIfNeeded: Int(gap) - Int(site + 2)))]
    notePatch(hop, at: site, trampoline: trampoline)
    write(hop, at: site, in: area)
    return true
  }

  /// `mov` of a constant to %eax, %edx, %esi or %edi in front of the `syscall`.
  private static func isLongSite(_ code: [UInt8]) -> Bool {
    let isMove = code[0] == 0xb8 || code[0] == 0xba || code[0] == 0xbe || code[0] == 0xbf
    return isMove && code[5] == 0x0f && code[6] == 0x05
  }

  /// A REX prefix makes another instruction of the bytes at `site`: `mov $1, %r8d`, `xor %r8d, %r8d`. It may be the end of the
  /// instruction before as well; such a site goes on trapping.
  private func mayHavePrefix(_ site: UInt) -> Bool {
    guard let before = try? UserSlice.load(site &- 1, UInt8(0)) else { return false }
    return before & 0xf0 == 0x40
  }

  private static func isShortSite(_ code: ArraySlice<UInt8>) -> Bool {
    let first = code.startIndex
    guard code[first + 2] == 0x0f, code[first + 3] == 0x05 else { return false }
    return code[first] == 0x31 && code[first + 1] == 0xc0
      || code[first] == 0x89 && code[first + 1] & 0xc7 == 0xc0
  }

  /// Five bytes within reach of a short jump from `site` that are never executed: padding behind the return of a
  /// system-call wrapper. That it is one is known by its eleven bytes before: `syscall; cmp $-4096, %rax; ja …; ret`.
  private func gap(near site: UInt, in area: VirtualMemoryArea) -> UInt? {
    let start = max(area.start, site &- 112)
    let end = min(area.end, site &+ 144)
    guard start < site, end > site, let bytes = try? UserSlice(start, Int(end - start)).bytes() else {
      return nil
    }
    let pattern: [UInt8] = [0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77]
    var index = 0
    while index + 11 < bytes.count {
      defer { index += 1 }
      guard bytes[index] == 0x0f, bytes[index..<index + 9] == pattern[...], bytes[index + 10] == 0xc3 else {
        continue
      }
      let first = index + 11
      let length = Int((0 &- (start &+ UInt(first))) & 15)
      guard first + length <= bytes.count, let free = freeBytes(bytes[first..<first + length]) else {
        continue
      }
      let gap = start + UInt(first + free)
      let distance = Int(gap) - Int(site + 2)
      if distance >= -128, distance <= 127 { return gap }
    }
    return loopPadding(bytes[...], start, near: site)
  }

  /// The padding in front of a loop that begins with such a site and is entered by a short jump over it: _exit(2).
  private func loopPadding(_ bytes: ArraySlice<UInt8>, _ start: UInt, near site: UInt) -> UInt? {
    var index = 0
    while index + 11 <= bytes.count {
      defer { index += 1 }
      guard bytes[index] == 0xeb, bytes[index + 1] >= 5, bytes[index + 1] < 128,
        bytes[index + 2..<index + 7] == [0x0f, 0x1f, 0x44, 0x00, 0x00],
        AddressSpace.isShortSite(bytes[index + 7..<index + 11])
      else { continue }
      let distance = Int(start) + index + 2 - Int(site + 2)
      if distance >= -128, distance <= 127 { return start + UInt(index + 2) }
    }
    return nil
  }

  /// Where five bytes of padding are free: all of it is no-operations, but for long jumps that were put there before.
  private func freeBytes(_ padding: ArraySlice<UInt8>) -> Int? {
    var offset = padding.startIndex
    while offset < padding.endIndex, padding[offset] == 0xe9 { offset += 5 }
    guard offset + 5 <= padding.endIndex else { return nil }
    // Behind our own jump the padding is cut anywhere; it was looked at when the jump was put there.
    if offset == padding.startIndex {
      var next = offset
      while next < padding.endIndex {
        guard let length = noOperationLength(padding[next...]) else { return nil }
        next += length
      }
      guard next == padding.endIndex else { return nil }
    }
    return offset - padding.startIndex
  }

  /// Length of the no-operation (Intel SDM volume 2, NOP) that `code` begins with.
  private func noOperationLength(_ code: ArraySlice<UInt8>) -> Int? {
    var index = code.startIndex
    while index < code.endIndex, code[index] == 0x66 || code[index] == 0x2e { index += 1 }
    guard index < code.endIndex else { return nil }
    if code[index] == 0x90 { return index + 1 - code.startIndex }
    guard index + 2 < code.endIndex, code[index] == 0x0f, code[index + 1] == 0x1f else { return nil }
    switch code[index + 2] {  // ModRM: with SIB and displacement, or without
    case 0x00: index += 3
    case 0x40: index += 4
    case 0x44: index += 5
    case 0x80: index += 7
    case 0x84: index += 8
    default: return nil
    }
    return index - code.startIndex
  }

  /// The address of a new trampoline that goes on at `back`; `load` are five bytes
  /// of what stood in front of the `syscall`.
  private func trampoline(near site: UInt, load: ArraySlice<UInt8>, back: UInt) -> UInt? {
    let length = TrampolinePages.entryBytes
    guard let address = trampolineRoom(near: site, bytes: length), let area = area(at: address) else {
      return nil
    }
    var code: [UInt8] = []
    if gateHasKeys {
      code = packingCode(load: Array(load), back: back)
    } else {
      // lea back(%rip), %rcx
      let toBack = Int(back) - Int(address + 12)
      guard toBack == Int(Int32(truncatingIfNeeded: toBack)) else { return nil }
      code = load + [0x48, 0x8d, 0x0d] + littleEndian(UInt32(bitPattern: Int32(toBack)))
    }
    // jmp *gate(%rip); gate: .quad
    code += [0xff, 0x25, 0, 0, 0, 0]
    code += littleEndian(UInt32(truncatingIfNeeded: gateAddress))
    code += littleEndian(UInt32(truncatingIfNeeded: gateAddress >> 32))
    if CodeGuard.isOn, !isHarmless(code, at: address) { return nil }
    write(code, at: address, in: area)
    return address
  }

  /// The number << 32 into rax; mov %rdx, %r11; then both halves of `back`, << 32, into rcx and rdx.
  private func packingCode(load: [UInt8], back: UInt) -> [UInt8] {
    let zero: [UInt8] = [0, 0, 0, 0]
    // movabs, or what was there and shl $32, %rax
    let number = load[0] == 0xb8 ? [0x48, 0xb8] + zero + load[1...] : load + [0x48, 0xc1, 0xe0, 0x20]
    return number + [0x49, 0x89, 0xd3] + [0x48, 0xb9] + zero + littleEndian(UInt32(truncatingIfNeeded: back))
      + [0x48, 0xba] + zero + littleEndian(UInt32(truncatingIfNeeded: back >> 32))
  }

  /// Room for code near `site`.
  func trampolineRoom(near site: UInt, bytes: UInt) -> UInt? {
    guard let index = page(near: site) else { return nil }
    defer { trampolines.pages[index].used += bytes }
    return trampolines.pages[index].address + trampolines.pages[index].used
  }

  private func page(near site: UInt) -> Int? {
    for i in trampolines.pages.indices {
      let page = trampolines.pages[i]
      let distance = page.address > site ? page.address - site : site - page.address
      if distance < 1 << 30, page.used + TrampolinePages.entryBytes <= TrampolinePages.pageBytes { return i }
    }
    guard let address = try? place(near: site) else { return nil }
    let area = VirtualMemoryArea(
      start: address, end: address + TrampolinePages.pageBytes, protection: [.read, .execute],
      isShared: false,
      inode: nil, offset: 0, path: nil, frames: nil)
    guard (try? map(area)) != nil else { return nil }
    trampolines.pages.append(TrampolinePages.Page(address: address, used: 0))
    return trampolines.pages.count - 1
  }

  private func place(near site: UInt) throws(Errno) -> UInt {
    // Above the code first (programs grow up from low addresses), else below.
    var address = (site + (16 << 20)) & ~0xffff
    for _ in 0..<256 {
      if (try? AddressSpace.check(address, TrampolinePages.pageBytes)) != nil,
        isFree(address, TrampolinePages.pageBytes)
      {
        return address
      }
      address += 2 << 20
    }
    return try findFree(TrampolinePages.pageBytes, below: site & ~0xffff)
  }

  /// Writes code into a page that the program may not write. Another thread of the program may run there: a site's
  /// first byte goes last is not enough on its own, so sites are written with one 8-byte store by `machine_copy_user`.
  func write(_ code: [UInt8], at address: UInt, in area: VirtualMemoryArea) {
    let start = address & ~4095
    let length = ((address + UInt(code.count) + 4095) & ~4095) - start
    do throws(Errno) {
      if CodeGuard.isOn {
        // Nobody but the libOS may write there even for that moment, and nobody executes it.
        try host.protect(address: start, length: length, protection: [.read, .write, .guarded])
      } else if !area.protection.contains(.write) {
        try host.protect(address: start, length: length, protection: area.protection.union(.write))
      }
      if code.count <= 5 {
        let old: UInt64 = try UserSlice.load(address, 0)
        var new = old & UInt64.max << UInt64(8 * code.count)
        for i in 0..<code.count { new |= UInt64(code[i]) << UInt64(8 * i) }
        try UserSlice.store(new, at: address)
      } else {
        try UserSlice(address, code.count).store(code)
      }
      if CodeGuard.isOn {
        // It may have been written and not looked at since it was executed last.
        try inspect(start, start + length)
        try showCode(start, start + length)
      } else if !area.protection.contains(.write) {
        try host.protect(address: start, length: length, protection: area.protection)
      }
    } catch {}
  }

  private func littleEndian(_ value: UInt32) -> [UInt8] { Instruction.littleEndian(value) }
}
