import ABI
public import CMachine
import Tasks

// What has been patched (Trampolines.swift) is not what the program wrote: whoever reads another's code sees the program's
// own, and a traced program has its own (ptrace(2)), so that all its calls trap, breakpoints can be put anywhere, and
// steps show what is there. Kernel lock held.

/// Code that a jump to a trampoline has replaced.
struct PatchedSite {
  let address: UInt
  /// At most 5.
  let count: Int
  let original: UInt64
  let jump: UInt64
  let trampoline: UInt
  /// The second jump of a short site, in bytes that are never executed otherwise: it stays, for who is just there.
  let isPadding: Bool
  var isPatched = true

  init(_ address: UInt, jump: [UInt8], over original: UInt64, trampoline: UInt, isPadding: Bool = false) {
    self.address = address
    count = jump.count
    self.original = original & PatchedSite.mask(jump.count)
    var word: UInt64 = 0
    for byte in jump.reversed() { word = word << 8 | UInt64(byte) }
    self.jump = word
    self.trampoline = trampoline
    self.isPadding = isPadding
  }

  private static func mask(_ count: Int) -> UInt64 { 1 << UInt64(8 * count) - 1 }

  func bytes(_ word: UInt64) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) }
  }

  /// In a thread of the space.
  func shows(_ word: UInt64) -> Bool {
    guard let now = try? UserSlice.load(address, UInt64(0)) else { return false }
    return now & PatchedSite.mask(count) == word
  }
}

extension AddressSpace {
  /// Notes what a jump is about to replace. In a thread of the space.
  func notePatch(_ jump: [UInt8], at address: UInt, trampoline: UInt, isPadding: Bool = false) {
    guard let original = try? UserSlice.load(address, UInt64(0)) else { return }
    patchedSites.append(
      PatchedSite(address, jump: jump, over: original, trampoline: trampoline, isPadding: isPadding))
  }

  /// Puts the program's code back, for as long as it is traced. In a thread of the space; others may run in it.
  func restoreSites() {
    for index in patchedSites.indices where patchedSites[index].isPatched && !patchedSites[index].isPadding {
      patchedSites[index].isPatched = false
      replace(patchedSites[index], patchedSites[index].jump, by: patchedSites[index].original)
    }
  }

  /// A site that was restored gets its jump again. False: it never had one.
  func patchAgain(after: UInt) -> Bool {
    guard
      let index = patchedSites.firstIndex(where: { !$0.isPadding && $0.address + UInt($0.count) + 2 == after }
      )
    else { return false }
    guard !patchedSites[index].isPatched else { return true }
    patchedSites[index].isPatched = true
    replace(patchedSites[index], patchedSites[index].original, by: patchedSites[index].jump)
    return true
  }

  private func replace(_ site: PatchedSite, _ old: UInt64, by new: UInt64) {
    guard let area = area(at: site.address), area.protection.contains(.execute), !area.isShared,
      site.shows(old)
    else { return }
    write(site.bytes(new), at: site.address, in: area)
  }

  /// Other memory is there now.
  func forgetSites(_ start: UInt, _ end: UInt) {
    if patchedSites.isEmpty { return }
    patchedSites.removeAll {
      $0.address < end && $0.address + 8 > start || $0.trampoline >= start && $0.trampoline < end
    }
  }

  /// What was read at `start`, with the program's own code for ours.
  func hidePatches(in bytes: inout [UInt8], from start: UInt) {
    let end = start + UInt(bytes.count)
    for site in patchedSites where site.isPatched && site.address < end && site.address + 5 > start {
      for (offset, byte) in site.bytes(site.original).enumerated() {
        let place = site.address + UInt(offset)
        if place >= start, place < end { bytes[Int(place - start)] = byte }
      }
    }
  }

  /// A thread on its way through a jump to the gate is put back to where the program has its call.
  func leaveTrampoline(_ frame: UnsafeMutablePointer<trap_frame>) {
    let place = UInt(frame.pointee.rip)
    for site in patchedSites {
      let offset = place &- site.trampoline
      let isInside = offset < TrampolinePages.entryBytes
      guard isInside || site.isPadding && place == site.address,
        let start = patchedSites.first(where: { $0.trampoline == site.trampoline && !$0.isPadding })
      else { continue }
      if gateHasKeys, isInside {
        unpack(frame, at: offset, loadsNumber: start.count == 5 && start.original & 0xff == 0xb8)
      }
      frame.pointee.rip = UInt64(start.address)
      return
    }
  }

  /// Undoes what a trampoline has packed (`packingCode`); the program's own instruction is carried out again.
  private func unpack(_ frame: UnsafeMutablePointer<trap_frame>, at offset: UInt, loadsNumber: Bool) {
    // movabs, or five bytes of the program's and shl
    let number: UInt = loadsNumber ? 10 : 9
    if !loadsNumber, offset >= number { frame.pointee.rax >>= 32 }
    if offset >= number + 3 + 10 + 10 { frame.pointee.rdx = frame.pointee.r11 }
  }
}
