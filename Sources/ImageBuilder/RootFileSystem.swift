import ABI
import Ext4
import Glibc
import Image

/// An image's root: an ext4 file system that mke2fs makes, just big enough, and that the libOS's own ext4 fills, so that
/// owners and devices are right whoever builds. Equal files give equal bytes. At run time it is the lower layer of a
/// larger one: so it has no journal, small groups (the libOS adds more of them), and descriptors that lie in their groups.
struct RootFileSystem {
  private static let blockSize: UInt64 = 4096
  private static let blocksPerGroup: UInt64 = 8192
  private static let leastInodes: UInt64 = 1024

  private let files: FileCollection
  private let inodes: UInt64
  private let blocks: UInt64
  var length: UInt64 { blocks * RootFileSystem.blockSize }

  init(_ files: FileCollection) throws(BuildError) {
    self.files = files
    var content = 16 + UInt64(8)  // the root's block, lost+found, and something to spare
    var names: [Path: UInt64] = [:]
    for (index, file) in files.files.enumerated() {
      names[file.path.directory, default: 24] += UInt64(12 + file.path.lastComponent.count)
      switch file.mode & FileType.mask {
      case FileType.symbolicLink: content += file.dataLength >= 60 ? 1 : 0
      case FileType.regular: content += try RootFileSystem.blocks(of: files.sources[index], file)
      default: break
      }
      // More attributes than fit into the inode go into a block.
      if !file.attributes.isEmpty { content += 1 }
    }
    for bytes in names.values {
      // A directory of more than one block has an index, and blocks that are half full when they have been split.
      let full = (bytes + bytes / 16) / RootFileSystem.blockSize + 1
      content += full == 1 ? 1 : 2 * full + 2
    }
    content += content / 128
    let wanted = UInt64(files.files.count) + 32
    var groups: UInt64 = 1
    while true {
      // Inodes and their tables are the same in all groups; a table is whole blocks.
      let perGroup = max(RootFileSystem.leastInodes, (wanted + groups - 1) / groups + 15) & ~15
      let own = perGroup / 16 + 3
      let room = RootFileSystem.blocksPerGroup - own
      if content + groups <= room * groups, perGroup <= 32768 {
        inodes = perGroup * groups
        // The last group need not be whole.
        blocks = (groups - 1) * RootFileSystem.blocksPerGroup + own + content + groups - room * (groups - 1)
        return
      }
      groups += 1
    }
  }

  /// Blocks of a file's content, and of the extents that say where they are.
  private static func blocks(of source: FileCollection.Source, _ file: PackedFile) throws(BuildError)
    -> UInt64
  {
    var sum: UInt64 = 0
    switch source {
    case .none: break
    case .bytes(let bytes): sum = (UInt64(bytes.count) + blockSize - 1) / blockSize
    case .file(let name):
      for run in try DataRuns(name, length: file.dataLength).runs {
        sum += UInt64(run.count + 4095) / blockSize + 1
      }
    }
    return sum + sum / 4096
  }

  /// Makes the file system at `offset` of a file that is open for reading and writing.
  func write(descriptor: Int32, at offset: UInt64) throws(BuildError) {
    try HostProgram.mke2fs(
      [
        "-b", "4096", "-I", "256", "-g", "\(RootFileSystem.blocksPerGroup)", "-N", "\(inodes)", "-m", "0",
        "-U", "00000000-0000-4000-8000-000000000000", "-O",
        "none,extent,dir_index,filetype,meta_bg,sparse_super2,large_file,huge_file,dir_nlink,extra_isize"
          + ",metadata_csum,metadata_csum_seed,64bit",
        "-E",
        "offset=\(offset),hash_seed=53776966-746c-4574-a20d-726f6f740000,lazy_itable_init=1"
          + ",num_backup_sb=0,root_owner=0:0,nodiscard",
        "/proc/self/fd/3", "\(length >> 10)k",
      ], environment: ["E2FSPROGS_FAKE_TIME=\(ImageClock.seconds)"], descriptor: descriptor)
    let device = FileRegion(descriptor: descriptor, start: offset, size: length)
    try RootFiller(try mount(device), files).run()
    let identity = try identity(descriptor, offset)
    do throws(MountError) { try FileSystem.setIdentity(identity, on: device) } catch { throw failure(error) }
  }

  private func mount(_ device: FileRegion) throws(BuildError) -> FileSystem {
    do throws(MountError) { return try FileSystem.mount(device, clock: ImageClock()) } catch {
      throw failure(error)
    }
  }

  private func failure(_ error: MountError) -> BuildError {
    BuildError("cannot make the root file system: \(error.reason), error \(error.errno.rawValue)")
  }

  /// The UUID tells file systems with different bytes apart, so that what a run kept is never put over another image.
  private func identity(_ descriptor: Int32, _ offset: UInt64) throws(BuildError) -> [UInt8] {
    let file = try MappedFile(descriptor: descriptor, Path("the image"))
    defer { file.keepAlive() }
    let words = UnsafeRawBufferPointer(rebasing: file.bytes[Int(offset)..<Int(offset + length)])
    var (low, high): (UInt64, UInt64) = (0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9)
    for place in stride(from: 0, to: words.count, by: 8) {
      let word = words.loadUnaligned(fromByteOffset: place, as: UInt64.self)
      low = (low ^ word) &* 0x94d0_49bb_1331_11eb
      low ^= low >> 29
      high = (high &+ (word ^ UInt64(place))) &* 0xd6e8_feb8_6659_fd93
      high ^= high >> 32
    }
    var bytes: [UInt8] = []
    for value in [low, high] { withUnsafeBytes(of: value.littleEndian) { bytes += $0 } }
    // Version 8, "custom", and the variant of RFC 9562.
    bytes[6] = bytes[6] & 0x0f | 0x80
    bytes[8] = bytes[8] & 0x3f | 0x80
    return bytes
  }
}

/// The parts of a host file that are not holes.
struct DataRuns {
  private(set) var runs: [Range<Int>] = []

  init(_ name: Path, length: UInt64) throws(BuildError) {
    let length = Int(length)
    // Looking for holes costs calls that small files are not worth.
    guard length >= 1 << 20 else {
      runs = length > 0 ? [0..<length] : []
      return
    }
    let file = try HostFile.open(name)
    var place = 0
    while place < length {
      let start = lseek(file.descriptor, off_t(place), 3)  // SEEK_DATA
      if start < 0 {
        // ENXIO: a hole up to the end. Whatever else: a file system that does not tell.
        if errno != ENXIO { runs.append(place..<length) }
        return
      }
      let hole = lseek(file.descriptor, start, 4)  // SEEK_HOLE
      let end = hole < 0 ? length : min(Int(hole), length)
      let first = max(Int(start) & ~4095, place)
      guard first < end else { return }
      runs.append(first..<end)
      place = (end + 4095) & ~4095
    }
  }
}
