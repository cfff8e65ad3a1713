import ABI

/// A virtio entropy device (virtio 1.2, 5.4): random bytes of the hypervisor's. Kernel lock held for every call.
public final class VirtioEntropy {
  private let transport: VirtioTransport
  private let queue: PageQueue
  private let platform: any DevicePlatform

  /// Nil when the device cannot be used or memory is short.
  public init?(_ transport: VirtioTransport, _ platform: any DevicePlatform) {
    guard transport.negotiate(0) != nil else { return nil }
    self.transport = transport
    self.platform = platform
    do throws(Errno) {
      guard let queue = try PageQueue(transport, 0, atMost: 1, platform) else { return nil }
      self.queue = queue
    } catch { return nil }
    transport.start()
  }

  /// Fills the start of `bytes`, at most a page; how many bytes came. Waits for the device, but not for ever.
  public func read(_ bytes: UnsafeMutableRawBufferPointer) -> Int {
    guard let page = queue.take() else { return 0 }
    queue.offer([(page, min(bytes.count, 4096))], isForDevice: false)
    queue.notify()
    for _ in 0..<200 {
      let seen = platform.interrupts
      transport.acknowledge()
      if let done = queue.nextDone() {
        let count = min(done.length, bytes.count)
        UnsafeMutableRawBufferPointer(rebasing: bytes[..<count])
          .copyMemory(from: UnsafeRawBufferPointer(rebasing: queue.pages[Int(page)].bytes[..<count]))
        queue.giveBack(page)
        return count
      }
      if queue.isBroken { return 0 }
      platform.waitForInterrupt(after: seen)
    }
    return 0
  }
}
