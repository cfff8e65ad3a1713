import CBareHost
import ChaCha
import Virtio

/// Random bytes: a generator seeded by the processor (RDRAND) and by the hypervisor (virtio-rng), as far as there are any.
/// Kernel lock held (or start-up).
enum Entropy {
  nonisolated(unsafe) private static var generator = RandomGenerator()
  nonisolated(unsafe) private static var isSeeded = false
  /// Bytes that may be given out before the processor is asked again.
  nonisolated(unsafe) private static var left = 0
  private static let mostBetweenSeeds = 1 << 20

  static func fill(_ bytes: UnsafeMutableRawBufferPointer) {
    if left < bytes.count { reseed() }
    left -= min(left, bytes.count)
    generator.fill(bytes)
  }

  /// Mixes in what the hypervisor gives.
  static func add(from device: VirtioEntropy) {
    var seed: [64 of UInt8] = .init(repeating: 0)
    withUnsafeMutableBytes(of: &seed) {
      let count = device.read($0)
      if count > 0 { generator.add(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
    }
  }

  /// Mixes in what the processor gives; the time-stamp counter alone where it has no generator.
  private static func reseed() {
    var seed: [8 of UInt64] = .init(repeating: 0)
    let hasGenerator = bare_has_random() == 1
    for i in 0..<8 {
      var value: UInt64 = 0
      if hasGenerator { for _ in 0..<10 where bare_random(&value) != 0 { break } }
      seed[i] = value ^ bare_time_stamp()
    }
    withUnsafeBytes(of: &seed) { generator.add($0) }
    left = mostBetweenSeeds
  }
}
