import ABI

/// A virtqueue whose descriptor `i` always names page `i`. Kernel lock held.
final class PageQueue {
  private let queue: Virtqueue
  private(set) var pages: [DevicePage] = []
  private var free: [UInt16] = []
  /// By descriptor: the one that follows in its chain, `none` at the end. The table itself is the device's to write.
  private var following: [UInt16] = []
  private static let none = UInt16.max

  /// Nil when the device has no such queue.
  init?(_ transport: VirtioTransport, _ index: UInt32, atMost: Int, _ platform: any DevicePlatform)
    throws(Errno)
  {
    guard let queue = try Virtqueue(transport, index, atMost: atMost, platform) else { return nil }
    self.queue = queue
    for i in 0..<queue.size {
      pages.append(try platform.makePage())
      free.append(UInt16(i))
      following.append(PageQueue.none)
    }
  }

  /// See `neverCount`: the queues are looked at without the kernel lock.
  func keepForEver(_ keep: (Virtqueue) -> Void) { keep(queue) }

  var size: Int { queue.size }
  var freeCount: Int { free.count }
  var hasUsed: Bool { queue.hasUsed }
  var isBroken: Bool { queue.isBroken }

  /// Takes a page to fill.
  func take() -> UInt16? { free.popLast() }

  func giveBack(_ page: UInt16) { free.append(page) }

  /// Offers a chain of pages, `length` bytes each of which the device reads, or writes.
  func offer(_ chain: [(page: UInt16, length: Int)], isForDevice: Bool) {
    for i in chain.indices {
      let page = chain[i].page
      let next = i + 1 < chain.count ? chain[i + 1].page : nil
      following[Int(page)] = next ?? PageQueue.none
      queue.describe(
        Virtqueue.Part(
          descriptor: page, physical: pages[Int(page)].physical, length: chain[i].length,
          isForDevice: isForDevice), next: next)
    }
    queue.offer(chain[0].page)
  }

  /// Offers a page for the device to fill.
  func offer(_ page: UInt16) { offer([(page, 4096)], isForDevice: false) }

  func notify() { queue.notify() }
  func silence() { queue.silence() }

  /// The next page that the device has filled, and with how many bytes.
  func nextDone() -> (page: UInt16, length: Int)? {
    guard let done = queue.nextDone() else { return nil }
    return (done.first, min(done.length, 4096))
  }

  /// The pages of chains that the device has read are free again.
  func reclaim() {
    while let done = queue.nextDone() {
      var page = done.first
      while page != PageQueue.none {
        free.append(page)
        page = following[Int(page)]
      }
    }
  }
}
