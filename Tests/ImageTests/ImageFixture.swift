import Glibc
import Image
import Testing

/// A pseudo-random generator with a fixed seed (splitmix64), so that failures repeat.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var word = state
    word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
    word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
    return word ^ (word >> 31)
  }
}

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

func sampleManifest() -> Manifest {
  var manifest = Manifest()
  manifest.program = bytes("/bin/pro gram")
  manifest.arguments = [bytes("pro"), bytes("100% ü\n"), []]
  manifest.environment = [bytes("A=b c"), bytes("EMPTY=")]
  manifest.workingDirectory = bytes("/var/www")
  manifest.user = UserIdentity(uid: 33, gid: 34)
  manifest.memory = 64 << 20
  manifest.processes = 1
  return manifest
}

/// A small image in memory, with something that is as long as a file system.
struct ImageFixture {
  var image: [UInt8]
  let rootOffset: Int

  init() {
    let layout = ImageLayout(executableLength: 100, rootLength: 64 << 10, manifest: sampleManifest())
    rootOffset = Int(layout.rootOffset)
    image = [UInt8](repeating: 0, count: Int(layout.length))
    image[rootOffset] = 42
    image.replaceSubrange(Int(layout.tailOffset)..., with: layout.tail)
  }

  var trailer: Int { image.count - 64 }

  mutating func set(_ offset: Int, _ value: UInt64, width: Int = 8) {
    for index in 0..<width { image[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(index * 8)) }
  }

  func get(_ offset: Int) -> UInt64 {
    image.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: UInt64.self) }
  }

  /// Makes the checksum right again, so that the fault behind it is what the reader finds.
  mutating func repairChecksum() {
    let start = Int(get(trailer + 32))
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in image[start..<(start + Int(get(trailer + 40)))] {
      hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3
    }
    set(trailer + 48, hash)
  }

  func read() throws(ImageError) -> Manifest {
    let result = image.withUnsafeBytes { buffer -> Result<Manifest, ImageError> in
      do throws(ImageError) {
        let reader = try ImageReader(buffer)
        _ = reader.root.last
        return .success(reader.manifest)
      } catch { return .failure(error) }
    }
    return try result.get()
  }
}
