/// A callback at a time, on the monotonic clock. Kernel lock held for every call, `fire` included.
open class Timer {
  fileprivate var index = -1
  public fileprivate(set) var deadline: UInt64 = .max

  public init() {}

  /// May arm timers, this one too.
  open func fire(now: UInt64) {}

  public final var isArmed: Bool { index >= 0 }

  /// Arms, or moves, the timer. The queue keeps it alive until it fires or is disarmed.
  public final func arm(_ deadline: UInt64) {
    disarm()
    self.deadline = deadline
    Timers.insert(self)
  }

  public final func disarm() {
    if index >= 0 { Timers.remove(self) }
  }
}

/// The timers of the libOS: a binary heap on `deadline`.
public enum Timers {
  nonisolated(unsafe) private static var heap: [Timer] = []

  public static var nextDeadline: UInt64 { heap.isEmpty ? .max : heap[0].deadline }

  /// Fires what is due.
  public static func run(now: UInt64) {
    while !heap.isEmpty, heap[0].deadline <= now {
      let timer = heap[0]
      remove(timer)
      timer.fire(now: now)
    }
  }

  fileprivate static func insert(_ timer: Timer) {
    timer.index = heap.count
    heap.append(timer)
    siftUp(timer.index)
    // Whoever polls sleeps until the old first deadline: tell it of an earlier one.
    if timer.index == 0 { Devices.devicesChanged() }
  }

  fileprivate static func remove(_ timer: Timer) {
    let index = timer.index
    let last = heap.removeLast()
    if last !== timer {
      heap[index] = last
      last.index = index
      siftDown(index)
      siftUp(last.index)
    }
    timer.index = -1
  }

  private static func siftUp(_ start: Int) {
    var index = start
    while index > 0, heap[index].deadline < heap[(index - 1) / 2].deadline {
      exchange(index, (index - 1) / 2)
      index = (index - 1) / 2
    }
  }

  private static func siftDown(_ start: Int) {
    var index = start
    while true {
      var least = index
      if 2 * index + 1 < heap.count, heap[2 * index + 1].deadline < heap[least].deadline {
        least = 2 * index + 1
      }
      if 2 * index + 2 < heap.count, heap[2 * index + 2].deadline < heap[least].deadline {
        least = 2 * index + 2
      }
      if least == index { return }
      exchange(index, least)
      index = least
    }
  }

  private static func exchange(_ a: Int, _ b: Int) {
    heap.swapAt(a, b)
    heap[a].index = a
    heap[b].index = b
  }
}
