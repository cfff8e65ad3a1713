// Pages have addresses, never nil.
// swift-format-ignore-file: NeverForceUnwrap
import ABI
import Tasks

/// A traditional memory balloon (virtio 1.2, 5.5): the hypervisor says how many frames it wants to have, and is told
/// which ones it gets. Kernel lock held for every call.
public final class VirtioBalloon {
  /// Frames that one message names at most: a page of numbers.
  public static let most = 1024
  private let transport: VirtioTransport
  private let inflate: PageQueue
  private let deflate: PageQueue
  private let platform: any DevicePlatform
  private var count: UInt32 = 0

  /// Nil when the device cannot be used or memory is short.
  public init?(_ transport: VirtioTransport, _ platform: any DevicePlatform) {
    guard transport.negotiate(0) != nil else { return nil }
    self.transport = transport
    self.platform = platform
    do throws(Errno) {
      guard let inflate = try PageQueue(transport, 0, atMost: 1, platform),
        let deflate = try PageQueue(transport, 1, atMost: 1, platform)
      else { return nil }
      self.inflate = inflate
      self.deflate = deflate
    } catch { return nil }
    transport.start()
  }

  public func keepForEver() {
    neverCount(self)
    neverCount(transport)
  }

  /// Frames that the hypervisor wants to have. May be asked without the kernel lock.
  public var wanted: Int { Int(transport.configuration(0)) }

  public func acknowledge() { transport.acknowledge() }

  /// Hands over the frames whose numbers `fill` writes to a page; it says how many. As many as it said.
  public func handOver(_ fill: (UInt) -> Int) -> Int { tell(inflate, fill, isGiven: true) }

  /// Tells of frames that are ours again.
  public func takeBack(_ fill: (UInt) -> Int) -> Int { tell(deflate, fill, isGiven: false) }

  private func tell(_ queue: PageQueue, _ fill: (UInt) -> Int, isGiven: Bool) -> Int {
    guard let page = queue.take() else { return 0 }
    let number = min(fill(queue.pages[Int(page)].address), VirtioBalloon.most)
    guard number > 0 else {
      queue.giveBack(page)
      return 0
    }
    queue.offer([(page, number * 4)], isForDevice: true)
    queue.notify()
    while queue.freeCount == 0, !queue.isBroken {
      let seen = platform.interrupts
      transport.acknowledge()
      queue.reclaim()
      if queue.freeCount == 0, !queue.isBroken { platform.waitForInterrupt(after: seen) }
    }
    count = isGiven ? count &+ UInt32(number) : count &- UInt32(number)
    transport.setConfiguration(4, count)
    return number
  }
}
