public import ABI
public import Tasks

/// What splice(2) and tee(2) need of a pipe: bytes leave it only once they have arrived elsewhere.
extension PipeFile {
  /// Waits until there is something to read; false at the end. EAGAIN, EINTR.
  public func waitForContents(isNonblocking: Bool) throws(Errno) -> Bool {
    while pipe.buffer.count == 0 {
      if pipe.writers == 0 { return false }
      if isNonblocking { throw .again }
      try pipe.readQueue.sleep()
    }
    return true
  }

  /// Waits until there is room, and says how much. EPIPE, EAGAIN, EINTR.
  public func waitForSpace(isNonblocking: Bool) throws(Errno) -> Int {
    while true {
      if pipe.readers == 0 { throw .brokenPipe }
      if pipe.buffer.space > 0 { return pipe.buffer.space }
      if isNonblocking { throw .again }
      try pipe.writeQueue.sleep()
    }
  }

  /// Copies out the first bytes and leaves them in place.
  public func peek(_ slice: UserSlice) throws(Errno) -> Int { try pipe.buffer.peek(slice) }

  /// Drops the first bytes.
  public func consume(_ count: Int) {
    pipe.buffer.dropFirst(min(count, pipe.buffer.count))
    if pipe.buffer.space >= Pipe.atomicSize { pipe.wakeWriters(.writable) }
  }
}
