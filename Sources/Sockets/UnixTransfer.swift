import ABI
import Tasks
import VFS

/// Sending and receiving (unix(7), send(2), recv(2)).
extension UnixSocket {
  func transmit(
    _ slices: [UserSlice], flags: MessageFlags, destination: [UInt8]?, control: SocketControl
  ) throws(Errno) -> Int {
    if flags.contains(.outOfBand) { throw .notSupported }
    guard control.files.count <= UnixSocket.maximalFiles else { throw .invalid }
    let waits = !isNonblocking && !flags.contains(.doNotWait)
    let deadline = sendTimeout == 0 ? UInt64.max : host.monotonicNanoseconds &+ sendTimeout
    if !writeShut { try takeError() }
    if isDatagram {
      return try sendMessage(slices, control, waits: waits, deadline: deadline, destination: destination)
    }
    if let destination, !destination.isEmpty { throw hasBeenConnected ? .isConnected : .notSupported }
    guard hasBeenConnected else { throw .notConnected }
    if isStream { return try sendStream(slices, control, waits: waits, deadline: deadline) }
    return try sendMessage(slices, control, waits: waits, deadline: deadline, destination: nil)
  }

  private func takeError() throws(Errno) {
    if let error = pendingError {
      pendingError = nil
      throw error
    }
  }

  private func record(_ control: SocketControl) -> UnixRecord {
    var record = UnixRecord()
    record.sender = address
    record.credentials = control.credentials ?? UnixNames.credentials
    record.files = control.files
    for file in control.files { file.references += 1 }
    return record
  }

  private func sendStream(_ slices: [UserSlice], _ control: SocketControl, waits: Bool, deadline: UInt64)
    throws(Errno) -> Int
  {
    var sent = 0
    do throws(Errno) {
      for slice in slices {
        var rest = slice
        while rest.count > 0 {
          guard !writeShut, let peer else { throw .brokenPipe }
          if peer.ring.space == 0 {
            if !waits { throw .again }
            try sleep(queue, deadline)
            continue
          }
          let amount = try peer.ring.append(rest)
          peer.note(amount, sent == 0 ? control : nil, from: self)
          rest.advance(amount)
          sent += amount
          peer.wake(.readable)
        }
      }
    } catch {
      if sent == 0 { throw error }
    }
    return sent
  }

  /// Remembers what goes with `amount` new bytes of the stream. Plain bytes need a record only where somebody looks
  /// at credentials, or behind a record that must not run into them.
  private func note(_ amount: Int, _ control: SocketControl?, from sender: UnixSocket) {
    let isSpecial = control.map { !$0.isEmpty } ?? false
    if !isSpecial, !passesCredentials, !hasRecords { return }
    if !hasRecords, ring.count > amount {
      // Bytes that came before records were needed.
      var plain = UnixRecord()
      plain.count = ring.count - amount
      records.append(plain)
    }
    if isSpecial || records.isEmpty || !records[records.count - 1].files.isEmpty {
      var new = sender.record(control ?? SocketControl())
      new.count = amount
      records.append(new)
    } else {
      records[records.count - 1].count += amount
    }
  }

  private func sendMessage(
    _ slices: [UserSlice], _ control: SocketControl, waits: Bool, deadline: UInt64, destination: [UInt8]?
  ) throws(Errno) -> Int {
    if writeShut { throw .brokenPipe }
    var target = peer
    if let destination, !destination.isEmpty { target = try UnixNames.find(destination) }
    guard let target else { throw hasBeenConnected && !isDatagram ? .brokenPipe : .notConnected }
    guard target.type == type else { throw .wrongProtocolType }
    if isDatagram, target.isReleased { throw .connectionRefused }
    guard target.peer == nil || target.peer === self else { throw .notPermitted }
    var total = 0
    for slice in slices { total = min(total + min(slice.count, UnixSocket.capacity), UnixSocket.capacity) }
    guard total < UnixSocket.capacity - 32 else { throw .messageTooLong }
    while target.isFull {
      if !waits { throw .again }
      // The receiver tells both its own queue's sleepers and a connected sender.
      try sleep(target.queue, deadline)
      if writeShut || (target.isReleased && !isDatagram) { throw .brokenPipe }
      if target.isReleased { throw .connectionRefused }
    }
    if target.readShut { throw .brokenPipe }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(total)
    for slice in slices { bytes.append(contentsOf: try slice.bytes()) }
    var new = record(control)
    new.bytes = bytes
    target.records.append(new)
    target.queuedBytes += bytes.count + 64
    target.wake(.readable)
    return bytes.count
  }

  // MARK: Receiving

  func collect(_ slices: [UserSlice], flags: MessageFlags) throws(Errno) -> SocketMessage {
    if flags.contains(.outOfBand) { throw .notSupported }
    guard !isListening else { throw .invalid }
    guard isDatagram || hasBeenConnected else { throw isStream ? .invalid : .notConnected }
    let waits = !isNonblocking && !flags.contains(.doNotWait)
    let deadline = receiveTimeout == 0 ? UInt64.max : host.monotonicNanoseconds &+ receiveTimeout
    if isStream { return try receiveStream(slices, flags, waits: waits, deadline: deadline) }
    while !hasRecords {
      try takeError()
      if readShut { return SocketMessage() }
      if !waits { throw .again }
      try sleep(queue, deadline)
    }
    return try receiveMessage(slices, flags)
  }

  private func receiveMessage(_ slices: [UserSlice], _ flags: MessageFlags) throws(Errno) -> SocketMessage {
    let record = records[firstRecord]
    var message = SocketMessage()
    for slice in slices {
      let end = min(record.bytes.count, message.count + slice.count)
      if end > message.count { try slice.store(Array(record.bytes[message.count..<end])) }
      message.count = end
    }
    if message.count < record.bytes.count {
      message.flags.insert(.truncated)
      if flags.contains(.truncated) { message.count = record.bytes.count }
    }
    if !isStream, !isDatagram { message.flags.insert(.endOfRecord) }
    message.address = record.sender
    attach(record, to: &message, isPeek: flags.contains(.peek))
    guard !flags.contains(.peek) else { return message }
    queuedBytes -= record.bytes.count + 64
    dropFirstRecord()
    wakeSenders()
    return message
  }

  /// Senders sleep on this queue (messages) or on their own (streams); pollers on theirs.
  private func wakeSenders() {
    if !isStream { wake(.writable) }
    peer?.wake(.writable)
  }

  private func attach(_ record: UnixRecord, to message: inout SocketMessage, isPeek: Bool) {
    message.control.files = record.files
    // A peek makes further references to the files.
    if isPeek { for file in record.files { file.references += 1 } }
    if passesCredentials { message.control.credentials = record.credentials }
  }

  private func dropFirstRecord() {
    records[firstRecord] = UnixRecord()
    firstRecord += 1
    if firstRecord == records.count {
      records.removeAll(keepingCapacity: true)
      firstRecord = 0
    } else if firstRecord >= 64 {
      records.removeFirst(firstRecord)
      firstRecord = 0
    }
  }

  private func receiveStream(_ slices: [UserSlice], _ flags: MessageFlags, waits: Bool, deadline: UInt64)
    throws(Errno) -> SocketMessage
  {
    var message = SocketMessage()
    var wanted = 0
    for slice in slices { wanted = wanted &+ slice.count }
    if wanted == 0 { return message }
    let isPeek = flags.contains(.peek)
    do throws(Errno) {
      while message.count < wanted {
        if ring.count == 0 {
          if message.count > 0, !flags.contains(.waitAll) { break }
          try takeError()
          if readShut { break }
          if !waits { throw .again }
          try sleep(queue, deadline)
          continue
        }
        // Descriptors end a read: those of the next run come with the next.
        if hasRecords, message.count > 0, !records[firstRecord].files.isEmpty { break }
        try moveStream(slices, &message, isPeek: isPeek)
        if isPeek || !message.control.files.isEmpty { break }
      }
    } catch {
      if message.count == 0 { throw error }
    }
    return message
  }

  /// Moves one run of bytes behind the first `message.count` bytes of the slices.
  private func moveStream(_ slices: [UserSlice], _ message: inout SocketMessage, isPeek: Bool) throws(Errno) {
    var limit = hasRecords ? records[firstRecord].count : ring.count
    if isPeek { return try peekStream(slices, &message, limit) }
    if hasRecords {
      attach(records[firstRecord], to: &message, isPeek: false)
      records[firstRecord].files = []
    }
    var skipped = message.count
    for slice in slices where limit > 0 {
      if skipped >= slice.count {
        skipped -= slice.count
        continue
      }
      let taken = try ring.take(slice.dropFirst(skipped).prefix(limit))
      skipped = 0
      message.count += taken
      limit -= taken
      if hasRecords { records[firstRecord].count -= taken }
    }
    if hasRecords, records[firstRecord].count == 0 { dropFirstRecord() }
    if ring.space >= 4096 { wakeSenders() }
  }

  /// MSG_PEEK fills the first slice only as far as one run goes.
  private func peekStream(_ slices: [UserSlice], _ message: inout SocketMessage, _ limit: Int) throws(Errno) {
    if hasRecords { attach(records[firstRecord], to: &message, isPeek: true) }
    for slice in slices where slice.count > 0 {
      message.count = try ring.peek(slice.prefix(limit))
      return
    }
  }
}
