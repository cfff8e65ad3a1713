import ABI
import Tasks

/// A virtio device in use that has a queue for what comes (0) and one for what goes (1). Kernel lock held for every call.
struct QueuePair {
  let transport: VirtioTransport
  let receive: Virtqueue
  let transmit: Virtqueue

  /// Starts the device, its features negotiated, with every page of the first queue offered to it. Nil when it lacks a
  /// queue, or memory is short.
  init?(_ transport: VirtioTransport, receives: Int, transmits: Int) {
    self.transport = transport
    do throws(Errno) {
      guard let first = try Virtqueue(transport, 0, atMost: receives),
        let second = try Virtqueue(transport, 1, atMost: transmits)
      else { return nil }
      receive = first
      transmit = second
    } catch { return nil }
    transport.start()
    while let page = receive.take() { receive.offer([(page, 4096)], isWrite: true) }
    receive.notify()
  }

  /// See `neverCount`: the queues are looked at without the kernel lock.
  func keepForEver() {
    neverCount(receive)
    neverCount(transmit)
    neverCount(transport)
  }
}
