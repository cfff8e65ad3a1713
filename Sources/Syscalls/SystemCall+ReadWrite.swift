import ABI
import Processes
import Tasks
import VFS

/// read(2), write(2) and their relatives.
extension SystemCall {
  /// MAX_RW_COUNT: the most that one call moves (read(2), NOTES).
  static var largestTransfer: Int { 0x7fff_f000 }
  /// What is copied through the libOS at a time.
  static var bounceSize: Int { 65536 }

  @inline(__always)
  func readable(_ descriptor: Int32) throws(Errno) -> OpenFile {
    let file = try file(descriptor)
    guard file.isReadable else { throw .badFileDescriptor }
    return file
  }

  @inline(__always)
  func writable(_ descriptor: Int32) throws(Errno) -> OpenFile {
    let file = try file(descriptor)
    guard file.isWritable else { throw .badFileDescriptor }
    return file
  }

  /// The file for a call with an offset: ESPIPE, for files that have none, comes before what the mode forbids.
  private func positioned(_ descriptor: Int32, writes: Bool) throws(Errno) -> OpenFile {
    let file = try file(descriptor)
    if file.inode.type == 0o010000 || file.inode.type == 0o140000 { throw .illegalSeek }
    guard writes ? file.isWritable : file.isReadable else { throw .badFileDescriptor }
    if file.inode.type == 0o040000 { throw .isDirectory }
    return file
  }

  @inline(__always)
  private func buffer(_ address: UInt, _ count: UInt) throws(Errno) -> UserSlice {
    let size = Int(bitPattern: count)
    guard size >= 0 else { throw .invalid }
    return try UserSlice(address, min(size, SystemCall.largestTransfer))
  }

  func read() throws(Errno) -> Int {
    let file = try readable(int(a))
    let count = try file.read(try buffer(b, c))
    wasRead(file, count)
    return count
  }

  func write() throws(Errno) -> Int {
    let file = try writable(int(a))
    let count = try file.write(try buffer(b, c))
    wasWritten(file, count)
    return count
  }

  /// The access time moves as `relatime` has it (mount(8)): when it is not past the last change, or a day old.
  @inline(__always)
  func wasRead(_ file: OpenFile, _ count: Int) {
    let inode = file.inode
    guard inode.isRegular || inode.isDirectory, count > 0 else {
      if FileNotification.isWanted, count > 0 { FileNotification.tell(.access, file) }
      return
    }
    noteRead(file, inode)
  }

  private func noteRead(_ file: OpenFile, _ inode: Inode) {
    FileNotification.tell(.access, file)
    let status = inode.status
    let flags = file.path.map { MountTable.flags($0) } ?? 0
    // MS_NOATIME, O_NOATIME, MS_NODIRATIME, MS_RDONLY; MS_STRICTATIME moves it always.
    if flags & 0x401 != 0 || file.flags & 0o1000000 != 0 { return }
    if flags & 0x800 != 0, inode.isDirectory { return }
    if flags & 0x10_0000 == 0, status.accessed > status.modified, status.accessed > status.changed {
      let day: UInt64 = 86_400_000_000_000
      if host.realtimeNanoseconds &- status.accessed < day { return }
    }
    inode.status.accessed = host.realtimeNanoseconds
  }

  @inline(__always)
  func wasWritten(_ file: OpenFile, _ count: Int) {
    guard count > 0 else { return }
    if FileNotification.isWanted { FileNotification.tell(.modify, file) }
    // Set-id bits go when somebody without privileges writes (inode(7)).
    let inode = file.inode
    if inode.status.mode & 0o6000 != 0, inode.isRegular, !process.credentials.isPrivileged {
      inode.status.mode &= inode.status.mode & 0o10 != 0 ? ~0o6000 : ~0o4000
    }
  }

  func pread64() throws(Errno) -> Int {
    guard Int64(bitPattern: UInt64(d)) >= 0 else { throw .invalid }
    let file = try positioned(int(a), writes: false)
    let count = try file.read(try buffer(b, c), at: Int64(d))
    wasRead(file, count)
    return count
  }

  func pwrite64() throws(Errno) -> Int {
    guard Int64(bitPattern: UInt64(d)) >= 0 else { throw .invalid }
    let file = try positioned(int(a), writes: true)
    let count = try file.write(try buffer(b, c), at: Int64(d))
    wasWritten(file, count)
    return count
  }

  func lseek() throws(Errno) -> Int {
    Int(try file(int(a)).seek(Int64(bitPattern: UInt64(b)), whence: int(c)))
  }

  // MARK: Vectors

  /// The buffers of an iovec array. EINVAL for more than 1024 (IOV_MAX) and for lengths below 0.
  func vector(_ address: UInt, _ count: UInt) throws(Errno) -> [UserSlice] {
    guard count <= 1024 else { throw .invalid }
    var result: [UserSlice] = []
    result.reserveCapacity(Int(count))
    var left = SystemCall.largestTransfer
    for index in 0..<count {
      let entry = try UserSlice.load(address &+ index &* 16, (UInt(0), Int(0)))
      guard entry.1 >= 0 else { throw .invalid }
      let slice = try UserSlice(entry.0, min(entry.1, left))
      left -= slice.count
      if slice.count > 0 { result.append(slice) }
    }
    return result
  }

  /// `offset` nil: the file's own.
  private func transfer(_ file: OpenFile, _ slice: UserSlice, _ offset: Int64?, writes: Bool) throws(Errno)
    -> Int
  {
    if let offset { return writes ? try file.write(slice, at: offset) : try file.read(slice, at: offset) }
    return writes ? try file.write(slice) : try file.read(slice)
  }

  /// One transfer over several buffers. A regular file takes them one by one; for others they must be one read or
  /// one write: a datagram, an atomic write to a pipe, a read that does not wait for more.
  func transfer(_ file: OpenFile, _ slices: [UserSlice], _ offset: Int64?, writes: Bool) throws(Errno) -> Int
  {
    if slices.count == 1 { return try transfer(file, slices[0], offset, writes: writes) }
    guard !slices.isEmpty else { return try transfer(file, try UserSlice(0, 0), offset, writes: writes) }
    if !file.inode.isRegular {
      return writes ? try gather(file, slices, offset) : try scatter(file, slices, offset)
    }
    var done = 0
    for slice in slices {
      let count: Int
      do throws(Errno) {
        count = try transfer(file, slice, offset.map { $0 &+ Int64(done) }, writes: writes)
      } catch {
        if done > 0 { return done }
        throw error
      }
      done += count
      if count < slice.count { break }
    }
    return done
  }

  private func total(_ slices: [UserSlice]) -> Int {
    var sum = 0
    for slice in slices { sum += slice.count }
    return sum
  }

  private func scatter(_ file: OpenFile, _ slices: [UserSlice], _ offset: Int64?) throws(Errno) -> Int {
    let bounce = UnsafeMutableRawBufferPointer.allocate(
      byteCount: min(max(total(slices), 1), SystemCall.bounceSize), alignment: 16)
    defer { bounce.deallocate() }
    let count = try transfer(file, UserSlice(kernel: bounce), offset, writes: false)
    var done = 0
    for slice in slices {
      let size = min(slice.count, count - done)
      guard size > 0 else { break }
      try slice.copyOut(UnsafeRawBufferPointer(rebasing: bounce[done..<done + size]))
      done += size
    }
    return count
  }

  private func gather(_ file: OpenFile, _ slices: [UserSlice], _ offset: Int64?) throws(Errno) -> Int {
    let bounce = UnsafeMutableRawBufferPointer.allocate(
      byteCount: min(max(total(slices), 1), SystemCall.bounceSize), alignment: 16)
    defer { bounce.deallocate() }
    var done = 0
    var index = 0
    var rest = slices[0]
    while index < slices.count {
      var filled = 0
      while filled < bounce.count, index < slices.count {
        let size = min(rest.count, bounce.count - filled)
        try rest.copyIn(UnsafeMutableRawBufferPointer(rebasing: bounce[filled..<filled + size]))
        filled += size
        rest.advance(size)
        if rest.count == 0 {
          index += 1
          if index < slices.count { rest = slices[index] }
        }
      }
      let part = UserSlice(kernel: UnsafeRawBufferPointer(rebasing: bounce[..<filled]))
      do throws(Errno) {
        let count = try transfer(file, part, offset.map { $0 &+ Int64(done) }, writes: true)
        done += count
        if count < filled { return done }
      } catch {
        if done > 0 { return done }
        throw error
      }
    }
    return done
  }

  private func position(_ value: UInt) throws(Errno) -> Int64 {
    let offset = Int64(bitPattern: UInt64(value))
    guard offset >= 0 else { throw .invalid }
    return offset
  }

  func readv() throws(Errno) -> Int {
    let file = try readable(int(a))
    let count = try transfer(file, try vector(b, c), nil, writes: false)
    wasRead(file, count)
    return count
  }

  func writev() throws(Errno) -> Int {
    let file = try writable(int(a))
    let count = try transfer(file, try vector(b, c), nil, writes: true)
    wasWritten(file, count)
    return count
  }

  func preadv() throws(Errno) -> Int {
    let offset = try position(d)
    let file = try positioned(int(a), writes: false)
    let count = try transfer(file, try vector(b, c), offset, writes: false)
    wasRead(file, count)
    return count
  }

  func pwritev() throws(Errno) -> Int {
    let offset = try position(d)
    let file = try positioned(int(a), writes: true)
    let count = try transfer(file, try vector(b, c), offset, writes: true)
    wasWritten(file, count)
    return count
  }

  /// preadv2(2): offset -1 is the file's own. RWF_HIPRI, DSYNC and SYNC change nothing in memory; RWF_NOWAIT and
  /// RWF_APPEND would: EOPNOTSUPP.
  func preadv2() throws(Errno) -> Int {
    guard unsigned(f) & ~7 == 0 else { throw .notSupported }
    return d == .max ? try readv() : try preadv()
  }

  func pwritev2() throws(Errno) -> Int {
    guard unsigned(f) & ~7 == 0 else { throw .notSupported }
    return d == .max ? try writev() : try pwritev()
  }
}
