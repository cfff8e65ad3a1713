import ABI
import Net
import Tasks

/// Sending and receiving: bytes go straight between the program's memory and the connection's rings.
extension TCPSocket {
  func transmit(_ slices: [UserSlice], _ flags: MessageFlags) throws(Errno) -> Int {
    if flags.contains(.outOfBand) { throw .notSupported }
    guard let connection else { throw .brokenPipe }
    hold(connection, flags.contains(.more))
    var cursor = SliceCursor(slices)
    var sent = 0
    var limit = UInt64.max
    do throws(Errno) {
      while let slice = cursor.current {
        let count = try put(slice, connection)
        if count > 0 {
          cursor.advance(count)
          sent += count
          continue
        }
        guard waits(flags) else { throw .again }
        Network.settle()
        if limit == .max { limit = deadline(sendTimeout) }
        if connection.writableBytes > 0 { continue }
        try sleep(limit)
      }
    } catch {
      Network.settle()
      if sent == 0 { throw error }
      return sent
    }
    Network.settle()
    return sent
  }

  /// One piece; 0 when there is no room. EPIPE, ECONNRESET…; EFAULT.
  private func put(_ slice: UserSlice, _ connection: TCPConnection) throws(Errno) -> Int {
    let region: UnsafeMutableRawBufferPointer
    do throws(NetworkError) { region = try connection.writableRegion() } catch {
      throw error == .notConnected ? .brokenPipe : error.number
    }
    let count = min(region.count, slice.count)
    guard count > 0 else { return 0 }
    try slice.prefix(count).copyIn(UnsafeMutableRawBufferPointer(rebasing: region[..<count]))
    connection.commitWrite(count, now: now)
    return count
  }

  /// MSG_MORE is TCP_CORK for one call (send(2)).
  private func hold(_ connection: TCPConnection, _ more: Bool) {
    guard more != isCorkedByMore else { return }
    isCorkedByMore = more
    let corks = more || tcpOptions.cork
    if connection.options.cork != corks { connection.options.cork = corks }
  }

  func collect(_ slices: [UserSlice], _ flags: MessageFlags) throws(Errno) -> Int {
    if flags.contains(.outOfBand) { throw .invalid }
    guard let connection else { throw .notConnected }
    let total = SliceCursor.total(slices)
    let wanted = flags.contains(.waitAll) ? total : min(total, max(1, Int(options.receiveLowWater)))
    var cursor = SliceCursor(slices)
    var received = 0
    var limit = UInt64.max
    guard total > 0 else { return 0 }
    do throws(Errno) {
      while true {
        received += try take(&cursor, connection, received, flags)
        if received >= wanted { break }
        if try isFinished(connection, received) { break }
        guard waits(flags) else { throw .again }
        Network.settle()
        // A peek may have left bytes behind what it has copied.
        if connection.readableBytes > (flags.contains(.peek) ? received : 0) { continue }
        if limit == .max { limit = deadline(receiveTimeout) }
        try sleep(limit)
      }
    } catch {
      Network.settle()
      if received == 0 { throw error }
    }
    Network.settle()
    return received
  }

  /// Copies what there is. `offset`: bytes that a peek has copied already.
  private func take(
    _ cursor: inout SliceCursor, _ connection: TCPConnection, _ offset: Int, _ flags: MessageFlags
  )
    throws(Errno) -> Int
  {
    var received = 0
    let peeks = flags.contains(.peek)
    while let slice = cursor.current {
      let region = connection.readableRegion(offset: peeks ? offset + received : 0)
      let count = min(region.count, slice.count)
      guard count > 0 else { break }
      // MSG_TRUNC throws bytes of a stream away (tcp(7)).
      if !flags.contains(.truncated) {
        do throws(Errno) {
          try slice.prefix(count).copyOut(UnsafeRawBufferPointer(rebasing: region[..<count]))
        } catch {
          if received == 0 { throw error }
          return received
        }
      }
      if !peeks { connection.consume(count, now: now) }
      cursor.advance(count)
      received += count
    }
    return received
  }

  /// Whether nothing more will come. The pending error is thrown unless there are bytes to tell of first.
  private func isFinished(_ connection: TCPConnection, _ received: Int) throws(Errno) -> Bool {
    if connection.hasError {
      if received == 0, let error = connection.takeError() { throw error.number }
      return true
    }
    if connection.hasPeerHangup { return true }
    if connection.state == .closed { throw .notConnected }
    return false
  }
}
