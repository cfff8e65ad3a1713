import ABI
import Processes
import Tasks
import VFS

/// Moving bytes from file to file: sendfile(2), copy_file_range(2), splice(2), tee(2).
extension SystemCall {
  private func load(_ address: UInt) throws(Errno) -> Int64 {
    let offset = try UserSlice.load(address, Int64(0))
    guard offset >= 0 else { throw .invalid }
    return offset
  }

  /// Copies from a place in `source` until `count` bytes, its end or a short write; how many. An error only when
  /// nothing was moved.
  private func copy(
    _ source: OpenFile, at offset: Int64?, to target: OpenFile, at place: Int64?, count: Int
  ) throws(Errno) -> Int {
    let bounce = UnsafeMutableRawBufferPointer.allocate(
      byteCount: min(max(count, 1), SystemCall.bounceSize), alignment: 16)
    defer { bounce.deallocate() }
    var done = 0
    while done < count {
      let space = UserSlice(kernel: bounce).prefix(count - done)
      do throws(Errno) {
        let from = offset ?? source.offset
        let read = try source.read(space, at: offset == nil ? from : from &+ Int64(done))
        guard read > 0 else { break }
        let written =
          if let place {
            try target.write(space.prefix(read), at: place &+ Int64(done))
          } else {
            try target.write(space.prefix(read))
          }
        if offset == nil { source.offset = from &+ Int64(written) }
        done += written
        if written < read { break }
      } catch {
        if done > 0 { break }
        throw error
      }
    }
    return done
  }

  func sendfile() throws(Errno) -> Int {
    let (target, source) = (try writable(int(a)), try readable(int(b)))
    if target.flags & 0o2000 != 0 { throw .invalid }
    guard source.inode.isRegular || source.inode.type == 0o020000 else { throw .invalid }
    let count = min(Int(bitPattern: d), SystemCall.largestTransfer)
    guard count >= 0 else { throw .invalid }
    let offset: Int64? = c == 0 ? nil : try load(c)
    let done = try copy(source, at: offset, to: target, at: nil, count: count)
    if let offset { try UserSlice.store(offset &+ Int64(done), at: c) }
    return done
  }

  func copy_file_range() throws(Errno) -> Int {
    guard unsigned(f) == 0 else { throw .invalid }
    let (source, target) = (try readable(int(a)), try writable(int(c)))
    if source.inode.isDirectory || target.inode.isDirectory { throw .isDirectory }
    guard source.inode.isRegular, target.inode.isRegular else { throw .invalid }
    if target.flags & 0o2000 != 0 { throw .badFileDescriptor }
    let count = min(Int(bitPattern: e), SystemCall.largestTransfer)
    guard count >= 0 else { throw .invalid }
    let from: Int64? = b == 0 ? nil : try load(b)
    let to: Int64? = d == 0 ? nil : try load(d)
    if source.inode === target.inode {
      let distance = (from ?? source.offset) &- (to ?? target.offset)
      if distance.magnitude < UInt64(count) { throw .invalid }
    }
    let done = try copy(source, at: from, to: target, at: to, count: count)
    if let from { try UserSlice.store(from &+ Int64(done), at: b) }
    if let to { try UserSlice.store(to &+ Int64(done), at: d) }
    return done
  }

  // MARK: Pipes

  /// splice(2): at most a bounce buffer a call, as a pipe of the usual size would give.
  func splice() throws(Errno) -> Int {
    guard unsigned(f) & ~15 == 0 else { throw .invalid }
    let (source, target) = (try readable(int(a)), try writable(int(c)))
    if target.flags & 0o2000 != 0, !(target is PipeFile) { throw .invalid }
    let count = Int(min(e, UInt(SystemCall.bounceSize)))
    guard count > 0 else { return 0 }
    if source is PipeFile && b != 0 || target is PipeFile && d != 0 { throw .illegalSeek }
    let isNonblocking = unsigned(f) & 2 != 0
    let bounce = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 16)
    defer { bounce.deallocate() }
    let space = UserSlice(kernel: bounce)
    if let pipe = source as? PipeFile {
      return try drain(pipe, to: target, through: space, isNonblocking: isNonblocking || pipe.isNonblocking)
    }
    guard let pipe = target as? PipeFile else { throw .invalid }
    let room = try pipe.waitForSpace(isNonblocking: isNonblocking || pipe.isNonblocking)
    let offset: Int64? = b == 0 ? nil : try load(b)
    let part = space.prefix(room)
    let read = if let offset { try source.read(part, at: offset) } else { try source.read(part) }
    if let offset { try UserSlice.store(offset &+ Int64(read), at: b) }
    // The read may have waited while somebody else filled the pipe; what was read must not be lost.
    return read == 0 ? 0 : try pipe.write(part.prefix(read))
  }

  /// From a pipe: what the target did not take stays in it.
  private func drain(_ pipe: PipeFile, to target: OpenFile, through space: UserSlice, isNonblocking: Bool)
    throws(Errno) -> Int
  {
    if let other = target as? PipeFile, other.pipe === pipe.pipe { throw .invalid }
    guard try pipe.waitForContents(isNonblocking: isNonblocking) else { return 0 }
    let count = try pipe.peek(space)
    let offset: Int64? = d == 0 ? nil : try load(d)
    let part = space.prefix(count)
    let written = if let offset { try target.write(part, at: offset) } else { try target.write(part) }
    pipe.consume(written)
    if let offset { try UserSlice.store(offset &+ Int64(written), at: d) }
    return written
  }

  /// vmsplice(2): into a pipe the program's memory is copied; out of one it is a read.
  func vmsplice() throws(Errno) -> Int {
    guard unsigned(d) & ~15 == 0 else { throw .invalid }
    guard let pipe = try file(int(a)) as? PipeFile else { throw .badFileDescriptor }
    let slices = try vector(b, c)
    guard !slices.isEmpty else { return 0 }
    let isNonblocking = unsigned(d) & 2 != 0
    if pipe.isWritable {
      // What fits now: nobody waits for the rest.
      var room = try pipe.waitForSpace(isNonblocking: isNonblocking || pipe.isNonblocking)
      var parts: [UserSlice] = []
      for slice in slices where room > 0 {
        parts.append(slice.prefix(room))
        room -= min(room, slice.count)
      }
      return try transfer(pipe, parts, nil, writes: true)
    }
    guard try pipe.waitForContents(isNonblocking: isNonblocking || pipe.isNonblocking) else { return 0 }
    return try transfer(pipe, slices, nil, writes: false)
  }

  func tee() throws(Errno) -> Int {
    guard unsigned(d) & ~15 == 0 else { throw .invalid }
    guard let source = try readable(int(a)) as? PipeFile, let target = try writable(int(b)) as? PipeFile,
      source.pipe !== target.pipe
    else { throw .invalid }
    let count = Int(min(c, UInt(SystemCall.bounceSize)))
    guard count > 0 else { return 0 }
    let isNonblocking = unsigned(d) & 2 != 0
    guard try source.waitForContents(isNonblocking: isNonblocking || source.isNonblocking) else { return 0 }
    let room = try target.waitForSpace(isNonblocking: isNonblocking || target.isNonblocking)
    let bounce = UnsafeMutableRawBufferPointer.allocate(byteCount: min(count, room), alignment: 16)
    defer { bounce.deallocate() }
    let found = try source.peek(UserSlice(kernel: bounce))
    return found == 0 ? 0 : try target.write(UserSlice(kernel: bounce).prefix(found))
  }
}
