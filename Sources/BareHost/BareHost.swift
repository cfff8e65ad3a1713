// Addresses here come from the exokernel or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
public import ABI
import CBareHost
import CHostCore
public import CMachine
import HostCore
public import Tasks
import Virtio

/// The host interface above the exokernel: threads and address spaces are its, devices are driven here.
public final class BareHost: HostInterface {
  nonisolated(unsafe) static var shared: BareHost! = nil
  let information: UnsafePointer<exokernel_information>
  /// What programs hold.
  public let meter: BareMemoryMeter
  private var deliver: (Int32) -> Void = { _ in }
  var channel: ControlChannel?
  var link: VirtioNetwork?
  var disks: [VirtioDisk] = []
  var balloon: VirtioBalloon?
  var balloonWanted = 0
  /// When the standby thread looks at the balloon next.
  private var nextBalloonLook: UInt64 = 0

  init(information: UnsafePointer<exokernel_information>) {
    self.information = information
    meter = BareMemoryMeter(information)
  }

  /// Takes the libOS out of the programs' sight for good; before the first of them runs.
  public func isolateByPaging() {
    set_gate_leave(bare_leave_address())
    _ = ExokernelCall.raw(EXOKERNEL_ISOLATE, Int(EXOKERNEL_PAGING))
  }

  /// The processors have protection keys.
  public var hasKeys: Bool { information.pointee.has_keys != 0 }
  public var isEmulated: Bool { information.pointee.is_emulated != 0 }

  /// Closes the libOS's memory to programs for good; before the first thread is made.
  public func isolateByKeys() {
    set_gate_leave(address_of_gate_exit_keys())
    ProgramSlots.isUsed = true
    _ = ExokernelCall.raw(EXOKERNEL_ISOLATE, Int(EXOKERNEL_KEYS))
  }

  // MARK: Memory

  public func map(address: UInt, length: UInt, protection: Protection, backing: Backing) throws(Errno) {
    var kind = EXOKERNEL_ANONYMOUS
    var offset: UInt = 0
    switch backing {
    case .anonymous: break
    case .shared(let arenaOffset): (kind, offset) = (EXOKERNEL_SHARED, arenaOffset)
    case .copyOnWrite(let arenaOffset): (kind, offset) = (EXOKERNEL_COPY_ON_WRITE, arenaOffset)
    case .image(let imageOffset): (kind, offset) = (EXOKERNEL_IMAGE, imageOffset)
    }
    try ExokernelCall.check(
      ExokernelCall.raw(
        EXOKERNEL_MAP, Int(address), Int(length), Int(protection.rawValue) | kind << 8, Int(offset)))
  }

  public func unmap(address: UInt, length: UInt) throws(Errno) {
    try ExokernelCall.check(ExokernelCall.raw(EXOKERNEL_UNMAP, Int(address), Int(length)))
  }

  public func protect(address: UInt, length: UInt, protection: Protection) throws(Errno) {
    try ExokernelCall.check(
      ExokernelCall.raw(EXOKERNEL_PROTECT, Int(address), Int(length), Int(protection.rawValue)))
  }

  public func move(from: UInt, length: UInt, to: UInt, newLength: UInt) throws(Errno) {
    try ExokernelCall.check(
      ExokernelCall.raw(EXOKERNEL_MOVE, Int(from), Int(min(length, newLength)), Int(to)))
  }

  public func discard(address: UInt, length: UInt) throws(Errno) {
    try ExokernelCall.check(ExokernelCall.raw(EXOKERNEL_DISCARD, Int(address), Int(length)))
  }

  public func release(arenaOffset: UInt, length: UInt) {
    _ = ExokernelCall.raw(EXOKERNEL_RELEASE, Int(arenaOffset), Int(length))
  }

  // MARK: Threads

  /// A stack that overflows faults in its guard page instead of writing over what lies below.
  private func guardStack(_ block: UnsafeMutablePointer<thread_block>) {
    let place = ThreadStack.base(block) + UInt(ThreadStack.guardOffset)
    _ = ExokernelCall.raw(EXOKERNEL_GUARD, Int(place - frames.base))
  }

  public func startThread(_ block: UnsafeMutablePointer<thread_block>) throws(Errno) {
    guardStack(block)
    try ExokernelCall.check(ExokernelCall.raw(EXOKERNEL_START_THREAD, Int(bitPattern: block)))
  }

  public func startProcess(_ block: UnsafeMutablePointer<thread_block>) throws(Errno) {
    guardStack(block)
    try ExokernelCall.check(ExokernelCall.raw(EXOKERNEL_START_PROCESS, Int(bitPattern: block)))
  }

  public func endThread(clearing word: UnsafeMutablePointer<UInt32>) -> Never {
    _ = ExokernelCall.raw(EXOKERNEL_END_THREAD, Int(bitPattern: word))
    fatalError()
  }

  public func park(word: UnsafeMutablePointer<UInt32>, expected: UInt32, deadline: UInt64) {
    _ = ExokernelCall.raw(
      EXOKERNEL_PARK, Int(bitPattern: word), Int(expected), Int(bitPattern: UInt(deadline)))
  }

  public func unpark(word: UnsafeMutablePointer<UInt32>) {
    _ = ExokernelCall.raw(EXOKERNEL_UNPARK, Int(bitPattern: word), 1)
  }

  public func kick(_ block: UnsafeMutablePointer<thread_block>) {
    let thread = block.pointee.host_thread
    if thread != 0 { _ = ExokernelCall.raw(EXOKERNEL_KICK, Int(thread)) }
  }

  public func setThreadPointer(_ address: UInt) {
    // A base that is not canonical would fault; programs that ask for one have been refused.
    if address >> 47 == 0 { bare_write_fs_base(UInt64(address)) }
  }

  public func yield() { _ = ExokernelCall.raw(EXOKERNEL_YIELD) }

  public func schedule(_ block: UnsafeMutablePointer<thread_block>, _ schedule: Schedule) {
    _ = ExokernelCall.raw(
      EXOKERNEL_SCHEDULE, Int(block.pointee.host_thread), Int(schedule.policy), Int(schedule.priority),
      Int(schedule.niceness) + 20)
  }

  public func adopt(_ block: UnsafeMutablePointer<thread_block>) {
    guardStack(block)
    _ = ExokernelCall.raw(EXOKERNEL_ADOPT, Int(bitPattern: block))
  }

  public var processorCount: Int { Int(information.pointee.processors) }

  // MARK: Time and entropy

  public var monotonicNanoseconds: UInt64 {
    let passed = bare_time_stamp() &- information.pointee.time_stamp_base
    let product = passed.multipliedFullWidth(by: information.pointee.multiplier)
    return product.high << 32 | product.low >> 32
  }

  public func processorNanoseconds(_ block: UnsafeMutablePointer<thread_block>, wholeProcess: Bool) -> UInt64
  {
    let used = ExokernelCall.raw(EXOKERNEL_TIME, Int(block.pointee.host_thread), wholeProcess ? 1 : 0)
    return used < 0 ? 0 : UInt64(used)
  }

  public var realtimeNanoseconds: UInt64 { information.pointee.realtime_base &+ monotonicNanoseconds }

  public func fillRandom(_ bytes: UnsafeMutableRawBufferPointer) { Entropy.fill(bytes) }

  // MARK: Devices

  public func pollDevices(console: Bool, network: Bool, deadline: UInt64) -> DeviceEvents {
    let seen = machine_load(bare_device_word())
    if machine_exchange(&BareHost.pollerIsCalled, 0) != 0 { return [] }
    acknowledge()
    let ready = pending(console: console, network: network)
    guard ready.isEmpty, deadline > monotonicNanoseconds else { return ready }
    park(word: bare_device_word(), expected: seen, deadline: deadline)
    return pending(console: console, network: network)
  }

  private func acknowledge() {
    link?.acknowledge()
    channel?.acknowledge()
  }

  private func pending(console: Bool, network: Bool) -> DeviceEvents {
    var events: DeviceEvents = []
    // The serial port does not say before it is read.
    if console, channel?.isReadable ?? true { events.insert(.console) }
    if network, link?.hasInput ?? false { events.insert(.network) }
    return events
  }

  /// Set by who calls the poller: it may have given up the kernel lock and not yet begun to wait.
  nonisolated(unsafe) private static var pollerIsCalled: UInt32 = 0

  public func wakePoller() {
    machine_store(&BareHost.pollerIsCalled, 1)
    _ = machine_add(bare_device_word(), 1)
    _ = ExokernelCall.raw(EXOKERNEL_UNPARK, Int(bitPattern: bare_device_word()), Int.max)
  }

  public func readConsole(_ bytes: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
    if let channel { return try channel.read(bytes) }
    return try ExokernelCall.check(
      ExokernelCall.raw(EXOKERNEL_READ_CONSOLE, Int(bitPattern: bytes.baseAddress), bytes.count))
  }

  public func writeConsole(_ stream: Int, _ bytes: UnsafeRawBufferPointer) throws(Errno) -> Int {
    if let channel {
      if channel.isClosed(stream) { throw .brokenPipe }
      let hadInput = channel.isReadable
      let count = channel.write(stream, bytes)
      // See `standBy`: the poller may have missed what was read here.
      if !hadInput, channel.isReadable { wakePoller() }
      return try ExokernelCall.check(count)
    }
    return try ExokernelCall.check(
      ExokernelCall.raw(EXOKERNEL_WRITE_CONSOLE, stream, Int(bitPattern: bytes.baseAddress), bytes.count))
  }

  public func readFrame(_ bytes: UnsafeMutableRawBufferPointer) -> Int { link?.read(bytes) ?? -11 }

  public func writeFrame(header: UnsafeRawBufferPointer, _ bytes: UnsafeRawBufferPointer) -> Int {
    link?.write(header: header, bytes) ?? -11
  }

  public var completesFrames: Bool { link?.completesFrames ?? false }

  // MARK: End

  public func exit(status: Int32) -> Never {
    channel?.finish(status: UInt8(truncatingIfNeeded: status))
    _ = ExokernelCall.raw(EXOKERNEL_EXIT, Int(status & 0xff))
    fatalError()
  }

  public func fail(_ text: StaticString, status: Int32) -> Never {
    if status == 70 { panic(text) }
    say("swiftlet: ")
    say(text)
    say("\n")
    exit(status: status)
  }

  /// The exokernel says where: nothing here uses the heap or a device, which may be what broke.
  private func panic(_ text: StaticString) -> Never {
    sayDirectly("swiftlet: panic: ")
    sayDirectly(text)
    sayDirectly("\n")
    fatalError()
  }

  /// A call takes what lies in one page.
  private func sayDirectly(_ text: StaticString) {
    var done = 0
    while done < text.utf8CodeUnitCount {
      let count = ExokernelCall.raw(
        EXOKERNEL_WRITE_CONSOLE, 2, Int(bitPattern: text.utf8Start) + done, text.utf8CodeUnitCount - done)
      if count <= 0 { return }
      done += count
    }
  }

  public func seal() {}

  private func say(_ text: StaticString) {
    let bytes = UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
    var done = 0
    while done < bytes.count {
      let rest = UnsafeRawBufferPointer(rebasing: bytes[done...])
      let count = (try? writeConsole(2, rest)) ?? 0
      if count <= 0 { return }
      done += count
    }
  }

  // MARK: Standby

  /// Starts the thread that watches the devices while every other runs application code, and that passes the user's
  /// signals on. `deliver` is called with the kernel lock held.
  public func startStandby(_ block: UnsafeMutablePointer<thread_block>, deliver: @escaping (Int32) -> Void) {
    self.deliver = deliver
    let result = ExokernelCall.raw(
      EXOKERNEL_START_THREAD, Int(bitPattern: block), Int(bare_standby_address()))
    if result < 0 { fail("no memory for the standby thread", status: 125) }
    // Before all that programs may ask for: it brings the user's signals to programs that never pause.
    schedule(block, Schedule(policy: 1, priority: 100, niceness: 0))
  }

  nonisolated(unsafe) private static var standbyWord: UInt32 = 0

  fileprivate func standBy() -> Never {
    while true {
      let isVacant = Devices.isVacant
      if isVacant { acknowledge() }
      if let channel, channel.hasMessages, KernelLock.tryAcquire() {
        channel.pump()
        let signals = channel.takeSignals()
        for number in 1..<32 where signals & (1 << UInt64(number)) != 0 { deliver(Int32(number)) }
        KernelLock.release()
        // The poller looks without the lock: it may have seen the queue empty already and the input not there yet.
        if channel.isReadable { wakePoller() }
      }
      if balloon != nil { lookAtBalloon() }
      if isVacant { Devices.stand() }
      let wait: UInt64 = isVacant || channel?.hasMessages ?? false ? 1_000_000 : 10_000_000
      // Not on the word of the devices: their interrupts are for the poller.
      park(word: &BareHost.standbyWord, expected: 0, deadline: monotonicNanoseconds + wait)
    }
  }

  /// Reading a register of a device costs an exit of the virtual machine.
  private func lookAtBalloon() {
    let now = monotonicNanoseconds
    guard now >= nextBalloonLook, KernelLock.tryAcquire() else { return }
    nextBalloonLook = now + 100_000_000
    followBalloon()
    KernelLock.release()
  }
}

/// First instruction of the standby thread.
@c(bare_standby)
public func bareStandby() { BareHost.shared.standBy() }

/// Calls of the exokernel. Results are an errno where negative.
enum ExokernelCall {
  @inline(__always)
  static func raw(_ number: Int, _ a: Int = 0, _ b: Int = 0, _ c: Int = 0, _ d: Int = 0) -> Int {
    bare_call(number, a, b, c, d)
  }

  @discardableResult
  static func check(_ result: Int) throws(Errno) -> Int {
    if result < 0 { throw Errno(rawValue: Int32(truncatingIfNeeded: -result)) }
    return result
  }
}
