import ABI
import Ext4
import Tasks

/// O_DIRECT (open(2)): between the program's memory and the device, past the page cache.
extension VolumeFile {
  /// Frames between the two, because the host's device need not see programs' memory; given back by `end`.
  private struct Bounce {
    let offset: UInt
    let count: Int

    init(bytes: Int) throws(Errno) {
      for wanted in [min((bytes + 4095) >> 12, 256), 1] {
        guard (try? MemoryLimit.check(wanted)) != nil, let run = try? frames.allocate(wanted) else {
          continue
        }
        (offset, count) = (run, wanted)
        return
      }
      throw .noMemory
    }

    func bytes(_ length: Int) -> UnsafeMutableRawBufferPointer {
      UnsafeMutableRawBufferPointer(
        start: UnsafeMutableRawPointer(bitPattern: frames.base + offset), count: min(length, count << 12))
    }

    func end() { frames.free(offset, count) }
  }

  func readDirectly(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    guard offset < status.size else { return 0 }
    if mayBeDirty { try writeBack() }
    let count = min(slice.count, Int(status.size - offset))
    let bounce = try Bounce(bytes: count)
    defer { bounce.end() }
    var done = 0
    while done < count {
      let part = bounce.bytes(count - done)
      part.initializeMemory(as: UInt8.self, repeating: 0)
      _ = try volume.fileSystem.read(file, at: UInt64(offset) + UInt64(done), into: part)
      try slice.dropFirst(done).copyOut(UnsafeRawBufferPointer(part))
      done += part.count
    }
    return count
  }

  /// EFBIG, ENOSPC, EROFS, EIO. As much as there is room for.
  func writeDirectly(_ slice: UserSlice, at offset: Int64) throws(Errno) -> Int {
    // What somebody maps must change with the file.
    if mappings > 0 {
      let count = try write(slice, at: offset)
      try writeBack()
      return count
    }
    let count = try writable(slice.count, at: offset)
    guard count > 0 else { return 0 }
    try writeBack()
    forgetOriginal()
    let first = Int(offset >> 12)
    pages.remove(first..<Int((offset + Int64(count) + 4095) >> 12)) { release($0) }
    let bounce = try Bounce(bytes: count)
    defer { bounce.end() }
    var done = 0
    while done < count {
      let part = bounce.bytes(count - done)
      do throws(Errno) {
        try slice.dropFirst(done).copyIn(part)
        try volume.fileSystem.write(file, at: UInt64(offset) + UInt64(done), UnsafeRawBufferPointer(part))
      } catch {
        if done == 0 { throw error }
        break
      }
      done += part.count
      status.size = max(status.size, offset + Int64(done))
    }
    status.modified = file.modified
    status.changed = file.changed
    volume.changed()
    return done
  }
}
