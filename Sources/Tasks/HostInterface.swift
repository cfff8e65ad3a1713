public import ABI
public import CMachine

/// Access that a mapping gives.
public struct Protection: OptionSet, Sendable {
  public let rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
  @inlinable public static var read: Protection { Protection(rawValue: 1) }
  @inlinable public static var write: Protection { Protection(rawValue: 2) }
  @inlinable public static var execute: Protection { Protection(rawValue: 4) }
  /// Only the libOS reads and writes it; for programs, which may still execute it (hosts with protection keys).
  @inlinable public static var guarded: Protection { Protection(rawValue: 8) }
}

/// What a region of a process shows.
public enum Backing {
  /// Zeroed memory of the process's own; copied on write by `fork`.
  case anonymous
  /// Frames of the arena from this byte offset on; writes are seen by everybody.
  case shared(arenaOffset: UInt)
  /// Frames of the arena from this byte offset on; writes stay with the process.
  case copyOnWrite(arenaOffset: UInt)
  /// The image file from this byte offset on; writes stay with the process.
  case image(offset: UInt)
}

/// The only door to the outside: what a host does for the libOS. Implemented once a host.
///
/// All addresses are page aligned; the libOS has checked them against the ranges it reserves.
public protocol HostInterface: AnyObject {
  // Memory of the current process.
  func map(address: UInt, length: UInt, protection: Protection, backing: Backing) throws(Errno)
  func unmap(address: UInt, length: UInt) throws(Errno)
  func protect(address: UInt, length: UInt, protection: Protection) throws(Errno)
  func move(from: UInt, length: UInt, to: UInt, newLength: UInt) throws(Errno)
  /// Drops the contents of private memory: reads give zeros (anonymous) or the frames (copyOnWrite) again.
  func discard(address: UInt, length: UInt) throws(Errno)
  /// Gives frames of the arena back; they read as zeros afterwards.
  func release(arenaOffset: UInt, length: UInt)
  /// Hands at most `count` free frames over to whoever the host runs on: how many are gone for us. A host that has all
  /// that is free anyway takes none.
  func surrender(_ count: Int) -> Int
  /// Has at most `count` of them back: how many.
  func takeBack(_ count: Int) -> Int

  // Threads. `block` describes the new thread; it starts by leaving the libOS with the frame that it finds there.
  func startThread(_ block: UnsafeMutablePointer<thread_block>) throws(Errno)
  /// Starts a thread in a copy of the current address space.
  func startProcess(_ block: UnsafeMutablePointer<thread_block>) throws(Errno)
  /// Ends the calling thread (and its address space with the last one), once `word` may be seen as zero.
  func endThread(clearing word: UnsafeMutablePointer<UInt32>) -> Never
  /// Sleeps while `*word == expected`, until `deadline` (monotonic nanoseconds, `UInt64.max` for ever).
  func park(word: UnsafeMutablePointer<UInt32>, expected: UInt32, deadline: UInt64)
  func unpark(word: UnsafeMutablePointer<UInt32>)
  /// Interrupts a thread that runs application code, so that it enters the libOS.
  func kick(_ block: UnsafeMutablePointer<thread_block>)
  /// Sets the program's FS base (thread-local storage) of the calling thread.
  func setThreadPointer(_ address: UInt)
  func yield()
  /// How the thread of `block`, and those that it starts from now on, are scheduled. Hosts that may not do that do
  /// what they can.
  func schedule(_ block: UnsafeMutablePointer<thread_block>, _ schedule: Schedule)
  /// Makes the calling thread of the host the thread of `block`, which no thread has now.
  func adopt(_ block: UnsafeMutablePointer<thread_block>)
  /// The thread that was adopted runs on the stack of its block now.
  func adopted()

  // Time and entropy.
  var monotonicNanoseconds: UInt64 { get }
  var realtimeNanoseconds: UInt64 { get }
  func fillRandom(_ bytes: UnsafeMutableRawBufferPointer)
  /// Processors that threads run on; the same as long as the host lives.
  var processorCount: Int { get }

  /// Where a vDSO (vdso(7)) lies that programs may call instead of the clocks above; empty for none.
  var virtualSharedObject: Range<UInt> { get }
  /// Nanoseconds of processor time that the thread of `block` has used or, with `wholeProcess`, all threads of its
  /// address space, ended ones too. A thread of another address space is known only as a whole. 0: not known.
  func processorNanoseconds(
    _ block: UnsafeMutablePointer<thread_block>, wholeProcess: Bool
  ) -> UInt64

  /// The most memory that the calling thread's process has had resident, in bytes; 0: not known.
  var peakResidentBytes: UInt64 { get }

  // Devices.
  /// Waits for the network or the console, or for `wakePoller`, until `deadline`. A `wakePoller` that came since the
  /// last wait counts: the caller has given up the kernel lock before this.
  func pollDevices(console: Bool, network: Bool, deadline: UInt64) -> DeviceEvents
  func wakePoller()
  func readConsole(_ bytes: UnsafeMutableRawBufferPointer) throws(Errno) -> Int
  func writeConsole(_ stream: Int, _ bytes: UnsafeRawBufferPointer) throws(Errno) -> Int
  /// One read without waiting: bytes, 0 at the end, or a negative error number.
  func readFrame(_ bytes: UnsafeMutableRawBufferPointer) -> Int
  /// Writes `header` and `bytes` as one frame, without waiting: the bytes written of both, or a negative error
  /// number. Streams may take a part; an empty `header` is allowed for the rest.
  func writeFrame(header: UnsafeRawBufferPointer, _ bytes: UnsafeRawBufferPointer) -> Int
  /// The link does what a `virtio_net_hdr` asks for: checksums, and TCP frames cut into segments.
  var completesFrames: Bool { get }

  // Disks, by number from 0. Offsets and counts are bytes, multiples of 512; calls wait until they are done. EIO.
  var diskCount: Int { get }
  /// Bytes.
  func diskSize(_ disk: Int) -> UInt64
  func readDisk(_ disk: Int, at offset: UInt64, _ bytes: UnsafeMutableRawBufferPointer) throws(Errno)
  func writeDisk(_ disk: Int, at offset: UInt64, _ bytes: UnsafeRawBufferPointer) throws(Errno)
  /// Returns when every write before it is durable.
  /// `unlocked`: the host may give the kernel lock up meanwhile.
  func flushDisk(_ disk: Int, unlocked: Bool) throws(Errno)
  /// Nobody needs these bytes any more: the host may take their place, and what they read as is not defined.
  func discardDisk(_ disk: Int, at offset: UInt64, count: UInt64)

  // End.
  func exit(status: Int32) -> Never
  /// Ends with `status` after a line about why, on the user's standard error.
  func fail(_ text: StaticString, status: Int32) -> Never
  /// Everything has been set up: from now on only what this interface needs may be asked of the host.
  func seal()
}

extension HostInterface {
  public func adopted() {}
  public var virtualSharedObject: Range<UInt> { 0..<0 }
  public func surrender(_ count: Int) -> Int { 0 }
  public func takeBack(_ count: Int) -> Int { 0 }
  public var completesFrames: Bool { true }
  public var diskCount: Int { 0 }
  public func diskSize(_ disk: Int) -> UInt64 { 0 }
  public func readDisk(_ disk: Int, at offset: UInt64, _ bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
    throw .noSuchDevice
  }
  public func writeDisk(_ disk: Int, at offset: UInt64, _ bytes: UnsafeRawBufferPointer) throws(Errno) {
    throw .noSuchDevice
  }
  public func flushDisk(_ disk: Int, unlocked: Bool) throws(Errno) { throw .noSuchDevice }
  public func discardDisk(_ disk: Int, at offset: UInt64, count: UInt64) {}
  public func processorNanoseconds(
    _ block: UnsafeMutablePointer<thread_block>, wholeProcess: Bool
  ) -> UInt64 { 0 }
  public var processorCount: Int { 1 }
  public var peakResidentBytes: UInt64 { 0 }
  public func schedule(_ block: UnsafeMutablePointer<thread_block>, _ schedule: Schedule) {}
}

/// What sched(7) knows of a thread: a policy (SCHED_OTHER 0, FIFO 1, RR 2, BATCH 3, IDLE 5, DEADLINE 6), the priority
/// of the real-time ones, and the nice value of the others.
public struct Schedule: Sendable {
  public var policy: Int32
  public var priority: Int32
  public var niceness: Int32

  public init(policy: Int32, priority: Int32, niceness: Int32) {
    self.policy = policy
    self.priority = priority
    self.niceness = niceness
  }
}

/// What `pollDevices` found.
public struct DeviceEvents: OptionSet, Sendable {
  public let rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
  @inlinable public static var console: DeviceEvents { DeviceEvents(rawValue: 1) }
  @inlinable public static var network: DeviceEvents { DeviceEvents(rawValue: 2) }
}

/// Makes an object immortal, as the embedded runtime marks it: references to it are not counted, so that what runs
/// without the kernel lock may use it. For the objects of a host; before a second thread exists.
public func neverCount<T: AnyObject>(_ object: T) {
  UnsafeMutablePointer<Int>(OpaquePointer(Unmanaged.passUnretained(object).toOpaque()))[1] = Int.max
}

/// The host below, set once before anything else runs.
nonisolated(unsafe) public var host: (any HostInterface)! = nil
