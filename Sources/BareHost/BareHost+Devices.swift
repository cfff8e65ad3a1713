// Addresses here come from the exokernel or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
public import ABI
import CBareHost
import CMachine
import Tasks
public import Virtio

/// The numbers of virtio device types (virtio 1.2, 5).
private enum DeviceType {
  static let network: UInt32 = 1
  static let block: UInt32 = 2
  static let console: UInt32 = 3
  static let entropy: UInt32 = 4
  static let balloon: UInt32 = 5
}

/// Devices: found at start, driven here over memory and interrupts that the exokernel gives.
extension BareHost {
  /// Finds the devices; the frames that they use come from the arena.
  func openDevices() {
    let devices = DeviceList(information)
    if let found = devices.first(DeviceType.entropy), let entropy = VirtioEntropy(found, self) {
      Entropy.add(from: entropy)
    }
    if let found = devices.first(DeviceType.console) { channel = ControlChannel(found, self) }
    if let found = devices.first(DeviceType.network) { link = VirtioNetwork(found, self) }
    if let found = devices.first(DeviceType.balloon) { balloon = VirtioBalloon(found, self) }
    channel?.keepForEver()
    link?.keepForEver()
    balloon?.keepForEver()
    // A 256th of memory for each disk's requests, 1 MiB at most.
    let pages = max(8, min(240, frames.totalFrames / 256))
    devices.forEach(DeviceType.block) { transport in
      if let disk = VirtioDisk(transport, pageCount: pages, self) { disks.append(disk) }
    }
  }

  // MARK: Disks

  public var diskCount: Int { disks.count }
  public func diskSize(_ disk: Int) -> UInt64 { disks[disk].size }

  public func readDisk(_ disk: Int, at offset: UInt64, _ bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
    try disks[disk].read(bytes, at: offset)
  }

  public func writeDisk(_ disk: Int, at offset: UInt64, _ bytes: UnsafeRawBufferPointer) throws(Errno) {
    try disks[disk].write(bytes, at: offset)
  }

  public func flushDisk(_ disk: Int, unlocked: Bool) throws(Errno) { try disks[disk].flush() }

  /// A hint: a device that cannot keeps what is there.
  public func discardDisk(_ disk: Int, at offset: UInt64, count: UInt64) {
    do throws(Errno) { try disks[disk].discard(at: offset, count: count) } catch {}
  }

  // MARK: Memory

  public func surrender(_ count: Int) -> Int {
    guard let balloon else { return 0 }
    return inParts(count) { most in balloon.handOver { exchange(EXOKERNEL_SURRENDER, $0, most) } }
  }

  public func takeBack(_ count: Int) -> Int {
    guard let balloon else { return 0 }
    return inParts(count) { most in balloon.takeBack { exchange(EXOKERNEL_TAKE_BACK, $0, most) } }
  }

  /// As many frames of `count` as `move` moves, the balloon's most at a time.
  private func inParts(_ count: Int, _ move: (Int) -> Int) -> Int {
    var done = 0
    while done < count {
      let part = move(min(count - done, VirtioBalloon.most))
      if part == 0 { break }
      done += part
    }
    return done
  }

  /// Has the exokernel write numbers of frames to the page at `address`.
  private func exchange(_ call: Int, _ address: UInt, _ most: Int) -> Int {
    max(0, ExokernelCall.raw(call, Int(address - frames.base), most))
  }

  /// Hears what the hypervisor wants: the standby thread's, which looks ten times a second. Kernel lock held.
  func followBalloon() {
    guard let balloon else { return }
    balloon.acknowledge()
    let wanted = balloon.wanted
    guard wanted != balloonWanted else { return }
    balloonWanted = wanted
    Revocation.request(wanted, grace: channel?.grace ?? Revocation.usualGrace)
  }

  // MARK: The terminal

  /// The size of the user's terminal, as the launch record has it and the channel keeps it up to date. Nil without
  /// memory.
  public func followTerminal(size: UInt64, flags: UInt64) -> UnsafePointer<UInt64>? {
    guard let channel, let offset = try? frames.allocate(1) else { return nil }
    let place = UnsafeMutablePointer<UInt64>(bitPattern: frames.base + offset)!
    place[0] = size
    place[1] = flags
    channel.terminalSize = place
    channel.readsAhead = true
    return UnsafePointer(place)
  }
}

extension BareHost: DevicePlatform {
  public func makePage() throws(Errno) -> DevicePage {
    let offset = try frames.allocate(1)
    let physical = try ExokernelCall.check(ExokernelCall.raw(EXOKERNEL_BIND, Int(offset), 4096))
    return DevicePage(address: frames.base + offset, physical: UInt64(physical))
  }

  public var interrupts: UInt32 { machine_load(bare_device_word()) }

  /// Not for long: functions of PCI without MSI-X never interrupt.
  public func waitForInterrupt(after seen: UInt32) {
    park(word: bare_device_word(), expected: seen, deadline: monotonicNanoseconds + 1_000_000)
  }
}
