import Foundation
import Testing

@testable import Tasks

/// The lock with real threads on it: the fake host sleeps until the word has changed, so a lost wake is a sleep for ever.
@Suite("The kernel lock", .serialized) struct KernelLockTests {
  private final class Count: @unchecked Sendable {
    /// Under the lock.
    var sum = 0
  }

  /// With one processor nobody spins.
  @Test(arguments: [1, 2]) func nobodyIsShutOutAndNobodySleepsForEver(processors: Int) {
    IPCFakeHost.run { _ in
      KernelLock.release()
      defer { KernelLock.acquire() }
      let before = Devices.processors
      Devices.processors = processors
      defer { Devices.processors = before }
      let threads = 6
      let turns = 20_000
      let count = Count()
      let finished = DispatchSemaphore(value: 0)
      for _ in 0..<threads {
        Foundation.Thread.detachNewThread {
          for turn in 0..<turns {
            KernelLock.acquire()
            count.sum += 1
            // Now and then the holder loses its processor.
            if turn % 16 == 0 { usleep(1) }
            KernelLock.release()
          }
          finished.signal()
        }
      }
      for _ in 0..<threads { #expect(finished.wait(timeout: .now() + 60) == .success) }
      #expect(count.sum == threads * turns)
    }
  }
}
