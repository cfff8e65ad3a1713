import ABI
import Net
import Tasks
import VFS

// What sockets of whole messages share: datagrams, raw packets, frames.

extension InternetSocket {
  /// What `attempt` gives, waited for as the call's flags and SO_RCVTIMEO allow. EAGAIN, EINTR, or its error.
  func wait<Result>(
    _ flags: MessageFlags, for attempt: () throws(NetworkError) -> Result
  ) throws(Errno) -> Result {
    var limit = UInt64.max
    while true {
      do throws(NetworkError) { return try attempt() } catch {
        if error != .wouldBlock { throw error.number }
      }
      guard waits(flags) else { throw .again }
      if limit == .max { limit = deadline(receiveTimeout) }
      try sleep(limit)
    }
  }
}

extension SocketMessage {
  /// `bytes` as far as a program's buffers go. MSG_TRUNC says that there was more, and asks for the whole length.
  init(_ bytes: UnsafeRawBufferPointer, to slices: [UserSlice], _ asked: MessageFlags) throws(Errno) {
    self.init()
    for slice in slices where count < bytes.count {
      let length = min(slice.count, bytes.count - count)
      try slice.prefix(length).copyOut(UnsafeRawBufferPointer(rebasing: bytes[count..<count + length]))
      count += length
    }
    if count < bytes.count { flags.insert(.truncated) }
    if asked.contains(.truncated) { count = bytes.count }
  }
}

/// Sends a program's buffers as one message, gathered in the region that the socket gives for as many bytes. Its errors.
func transmit(
  _ slices: [UserSlice], into region: (Int) throws(NetworkError) -> UnsafeMutableRawBufferPointer,
  commit: (Int) throws(NetworkError) -> Void
) throws(Errno) -> Int {
  let total = SliceCursor.total(slices)
  let place: UnsafeMutableRawBufferPointer
  do throws(NetworkError) { place = try region(total) } catch { throw error.number }
  try gather(slices, into: place)
  do throws(NetworkError) { try commit(total) } catch { throw error.number }
  Network.settle()
  return total
}

/// Copies a program's buffers into `region`, which is as long as they are together.
func gather(_ slices: [UserSlice], into region: UnsafeMutableRawBufferPointer) throws(Errno) {
  var filled = 0
  for slice in slices where slice.count > 0 {
    try slice.copyIn(UnsafeMutableRawBufferPointer(rebasing: region[filled..<filled + slice.count]))
    filled += slice.count
  }
}
