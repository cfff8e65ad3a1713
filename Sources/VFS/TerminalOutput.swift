import Tasks

// The line discipline's way out: echo, output processing (OPOST) and flow control.

extension Terminal {
  func echo(_ byte: UInt8) {
    guard settings.echoes else { return }
    if byte == 9 || byte >= 32 && byte != 127 || !settings.echoesControls {
      emit([byte])
    } else {
      emit([0x5e, byte ^ 0x40])
    }
  }

  /// The end of a line, typed as such: shown as what it does.
  func echoNewline() {
    if settings.echoes || (settings.echoesNewline && settings.isCanonical) { emit([10]) }
  }

  /// Keeps what the line discipline itself has to say until what was typed at once is dealt with: a signal drops it.
  /// Lost if there is no room, as on a real line.
  func emit(_ bytes: [UInt8]) {
    if heldEcho.count >= Terminal.echoCapacity {
      if isStopped { return }
      commitEcho()
    }
    heldEcho.append(contentsOf: processed(bytes))
  }

  func commitEcho() {
    if isStopped || heldEcho.isEmpty { return }
    _ = display(heldEcho)
    heldEcho.removeAll(keepingCapacity: true)
  }

  /// Output processing; moves the column.
  final func processed(_ bytes: [UInt8]) -> [UInt8] {
    guard settings.processesOutput else { return bytes }
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count + 16)
    for byte in bytes {
      switch byte {
      case 10: newline(&result)
      case 13: carriageReturn(&result)
      case 9:
        let spaces = 8 - column & 7
        column &+= spaces
        if settings.expandsTabs {
          for _ in 0..<spaces { result.append(32) }
        } else {
          result.append(9)
        }
      case 8:
        if column > 0 { column -= 1 }
        result.append(8)
      default:
        let isLetter = byte >= 0x61 && byte <= 0x7a
        result.append(settings.raisesCase && isLetter ? byte & 0xdf : byte)
        if byte >= 32, byte != 127, !settings.isUTF8 || byte & 0xc0 != 0x80 { column &+= 1 }
      }
    }
    return result
  }

  private func newline(_ result: inout [UInt8]) {
    if settings.addsReturn { result.append(13) }
    if settings.addsReturn || settings.newlineReturns { column = 0 }
    result.append(10)
  }

  private func carriageReturn(_ result: inout [UInt8]) {
    if settings.dropsReturnAtStart, column == 0 { return }
    if settings.mapsReturnOnOutput {
      if settings.newlineReturns { column = 0 }
      return result.append(10)
    }
    column = 0
    result.append(13)
  }

  // MARK: Flow control

  func stopOutput() {
    guard !isStopped else { return }
    isStopped = true
    tellPacketMode(PacketEvents.stopped)
  }

  func restartOutput() {
    guard isStopped else { return }
    isStopped = false
    tellPacketMode(PacketEvents.started)
    commitEcho()
    if !queue.isEmpty { queue.wake(Readiness.writable.rawValue) }
  }
}
