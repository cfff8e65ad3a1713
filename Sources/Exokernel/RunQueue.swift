// Queues lie in frames, never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CExokernel

/// The threads that are ready to run on one processor: a binary heap. Exokernel lock held.
///
/// Real-time threads come first, by priority and then by when they came. The others share by weight: each has a clock
/// of its own (`key`) that goes the slower the more it weighs, and the one that is furthest behind runs. A
/// processor's `floor` is where its clocks stand; who comes from another processor, or from sleep, is set right by it.
enum RunQueue {
  typealias Processor = UnsafeMutablePointer<exokernel_processor>
  /// The rank of threads that are not real-time; theirs is 100 less their priority.
  static let fair: UInt32 = 101
  /// As far behind `floor` as a thread may be that has slept, in nanoseconds of a thread of weight 1024.
  private static let bonus: UInt64 = 1_000_000
  nonisolated(unsafe) private static var arrivals: UInt64 = 0

  /// Frames of one queue.
  static let frames = UInt64(Threads.maximum * 8 / 4096)

  static func first(_ processor: Processor) -> ThreadPointer? {
    processor.pointee.queue_count > 0 ? processor.pointee.queue[0]! : nil
  }

  static func isBefore(_ a: ThreadPointer, _ b: ThreadPointer) -> Bool {
    if a.pointee.rank != b.pointee.rank { return a.pointee.rank < b.pointee.rank }
    return Int64(bitPattern: a.pointee.key &- b.pointee.key) < 0
  }

  /// The thread comes to this processor, from sleep or from another one.
  static func enter(_ thread: ThreadPointer, _ processor: Processor) {
    if thread.pointee.rank == fair {
      let old = Processors.at(Int(thread.pointee.processor)).pointee.floor
      let ahead = max(Int64(bitPattern: thread.pointee.key &- old), -Int64(bonus))
      thread.pointee.key = processor.pointee.floor &+ UInt64(bitPattern: ahead)
    } else {
      arrive(thread)
    }
    thread.pointee.processor = processor.pointee.index
    insert(thread, processor)
  }

  /// Among real-time threads of its priority it is the last now.
  static func arrive(_ thread: ThreadPointer) {
    arrivals &+= 1
    thread.pointee.key = arrivals
  }

  static func insert(_ thread: ThreadPointer, _ processor: Processor) {
    thread.pointee.state = UInt32(THREAD_READY)
    var index = Int(processor.pointee.queue_count)
    processor.pointee.queue_count += 1
    let queue = processor.pointee.queue!
    queue[index] = thread
    while index > 0, isBefore(thread, queue[(index - 1) / 2]!) {
      queue[index] = queue[(index - 1) / 2]
      index = (index - 1) / 2
      queue[index] = thread
    }
  }

  static func removeFirst(_ processor: Processor) -> ThreadPointer? {
    guard let first = first(processor) else { return nil }
    processor.pointee.queue_count -= 1
    let queue = processor.pointee.queue!
    let count = Int(processor.pointee.queue_count)
    queue[0] = queue[count]
    if count > 0 { down(queue, count) }
    return first
  }

  private static func down(_ queue: UnsafeMutablePointer<ThreadPointer?>, _ count: Int) {
    var index = 0
    while 2 * index + 1 < count {
      var child = 2 * index + 1
      if child + 1 < count, isBefore(queue[child + 1]!, queue[child]!) { child += 1 }
      guard isBefore(queue[child]!, queue[index]!) else { return }
      let thread = queue[index]
      queue[index] = queue[child]
      queue[child] = thread
      index = child
    }
  }

  /// Something about a thread in this queue has changed.
  static func order(_ processor: Processor) {
    let count = Int(processor.pointee.queue_count)
    processor.pointee.queue_count = 0
    for i in 0..<count { insert(processor.pointee.queue[i]!, processor) }
  }

  /// Weights of nice values 0 to 39 (-20 to 19): each step is a tenth of the processor's time between two threads, a
  /// factor of 1.25.
  static func weight(niceness: Int) -> UInt32 {
    var weight: UInt64 = 1024 << 16
    for _ in 0..<abs(niceness) { weight = niceness < 0 ? weight * 5 / 4 : weight * 4 / 5 }
    return UInt32(weight >> 16)
  }
}
