import ABI
import Tasks

/// A virtio device in use that has a queue for what comes (0) and one for what goes (1). Kernel lock held for every call.
struct QueuePair {
  let transport: VirtioTransport
  let receive: PageQueue
  let transmit: PageQueue

  /// Starts the device, its features negotiated, with every page of the first queue offered to it. Nil when it lacks a
  /// queue, or memory is short.
  init?(_ transport: VirtioTransport, receives: Int, transmits: Int, _ platform: any DevicePlatform) {
    self.transport = transport
    do throws(Errno) {
      guard let first = try PageQueue(transport, 0, atMost: receives, platform),
        let second = try PageQueue(transport, 1, atMost: transmits, platform)
      else { return nil }
      receive = first
      transmit = second
    } catch { return nil }
    // Pages are taken back when the next are sent.
    transmit.silence()
    transport.start()
    while let page = receive.take() { receive.offer(page) }
    receive.notify()
  }

  /// See `neverCount`: the queues are looked at without the kernel lock.
  func keepForEver() {
    neverCount(receive)
    neverCount(transmit)
    receive.keepForEver { neverCount($0) }
    transmit.keepForEver { neverCount($0) }
    neverCount(transport)
  }
}
