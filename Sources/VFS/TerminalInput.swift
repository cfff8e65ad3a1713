import Tasks

// The line discipline's way in: what a typed character does (termios(3)), in the order that Linux looks at it.

extension Terminal {
  /// What was typed.
  public final func receive(_ bytes: [UInt8]) {
    let before = input.count
    for byte in bytes { receive(byte) }
    commitEcho()
    guard !queue.isEmpty else { return }
    // Without lines a reader may want fewer bytes than VMIN: let it look at every one.
    if isReadable || (!settings.isCanonical && input.count > before) {
      queue.wake(Readiness.readable.rawValue)
    }
  }

  private func receive(_ raw: UInt8) {
    var byte = settings.stripsEighthBit ? raw & 0x7f : raw
    if settings.lowersCase, settings.isExtended, byte >= 0x41, byte <= 0x5a { byte |= 0x20 }
    if isLiteral {
      isLiteral = false
      return insert(byte, wasLiteral: true)
    }
    if handleFlow(byte) || handleSignal(byte) { return }
    if isStopped, settings.hasFlowControl, settings.anyRestarts { restartOutput() }
    if byte == 13 {
      if settings.ignoresReturn { return }
      if settings.mapsReturnToNewline { byte = 10 }
    } else if byte == 10, settings.mapsNewlineToReturn {
      byte = 13
    }
    if settings.isCanonical { edit(byte) } else { insert(byte) }
  }

  private func handleFlow(_ byte: UInt8) -> Bool {
    guard settings.hasFlowControl else { return false }
    if settings.matches(byte, TerminalSettings.Index.start) {
      restartOutput()
      return true
    }
    if settings.matches(byte, TerminalSettings.Index.stop) {
      stopOutput()
      return true
    }
    return false
  }

  private func handleSignal(_ byte: UInt8) -> Bool {
    guard settings.signals else { return false }
    let signal: Int32
    if settings.matches(byte, TerminalSettings.Index.interrupt) {
      signal = 2
    } else if settings.matches(byte, TerminalSettings.Index.quit) {
      signal = 3
    } else if settings.matches(byte, TerminalSettings.Index.suspend) {
      signal = 20
    } else {
      return false
    }
    if !settings.keepsQueues {
      flushOutput()
      flushInput()
    }
    if settings.hasFlowControl { restartOutput() }
    echo(byte)
    if foreground > 0 { Terminal.jobControl?.signalGroup(foreground, signal) }
    return true
  }

  private func edit(_ byte: UInt8) {
    typealias Index = TerminalSettings.Index
    if settings.matches(byte, Index.erase) { return eraseOne() }
    if settings.matches(byte, Index.kill) { return killLine() }
    if settings.isExtended, settings.matches(byte, Index.wordErase) { return eraseWord() }
    if settings.isExtended, settings.matches(byte, Index.literalNext) {
      isLiteral = true
      if settings.echoes, settings.echoesControls { emit([0x5e, 8]) }
      return
    }
    if settings.isExtended, settings.echoes, settings.matches(byte, Index.reprint) {
      echo(byte)
      emit([10])
      for character in line { echo(character) }
      return
    }
    if settings.matches(byte, Index.endOfFile) { return endLine(isEndOfFile: true) }
    let isEnd =
      byte == 10 || settings.matches(byte, Index.endOfLine)
      || (settings.isExtended && settings.matches(byte, Index.endOfLine2))
    insert(byte, endsLine: isEnd)
    if isEnd { endLine(isEndOfFile: false) }
  }

  private func insert(_ byte: UInt8, endsLine: Bool = false, wasLiteral: Bool = false) {
    // The last place is kept for the end of the line.
    guard inputSpace > (settings.isCanonical && !endsLine ? 1 : 0) else {
      if settings.ringsWhenFull { emit([7]) }
      return
    }
    if settings.isCanonical {
      if line.isEmpty { lineColumn = column }
      line.append(byte)
    } else {
      _ = input.append(byte)
    }
    if byte == 10, !wasLiteral { echoNewline() } else { echo(byte) }
  }

  private func endLine(isEndOfFile: Bool) {
    for byte in line { _ = input.append(byte) }
    line.removeAll(keepingCapacity: true)
    lineEnds.append((input.count, isEndOfFile))
  }

  // MARK: Editing

  private func eraseOne() {
    // The continuation bytes of UTF-8 go with their first byte (IUTF8).
    var last = line.popLast()
    while settings.isUTF8, let byte = last, byte & 0xc0 == 0x80, !line.isEmpty { last = line.popLast() }
    if let last { rubOut(last) }
  }

  private func rubOut(_ byte: UInt8) {
    guard settings.echoes else { return }
    guard settings.echoesErase else { return echo(settings.characters[TerminalSettings.Index.erase]) }
    if byte == 9 { return rubOutTab() }
    let isControl = byte < 32 || byte == 127
    let width = isControl ? (settings.echoesControls ? 2 : 0) : 1
    for _ in 0..<width { emit([8, 32, 8]) }
  }

  /// Back over what a tab had moved: to the column that the line before it ends in.
  private func rubOutTab() {
    var place = lineColumn
    for character in line {
      if character == 9 {
        place += 8 - place & 7
      } else if character < 32 || character == 127 {
        place += settings.echoesControls ? 2 : 0
      } else if !settings.isUTF8 || character & 0xc0 != 0x80 {
        place += 1
      }
    }
    for _ in 0..<(8 - place & 7) { emit([8]) }
  }

  /// A word is letters, digits and underscores, and what follows it (Linux: ALTWERASE of BSD).
  private func eraseWord() {
    func isWord(_ byte: UInt8) -> Bool {
      switch byte {
      case 0x30...0x39, 0x41...0x5a, 0x5f, 0x61...0x7a, 0xc0...0xff: true
      default: false
      }
    }
    var hasSeenWord = false
    while !line.isEmpty {
      var first = line.count - 1
      while settings.isUTF8, first > 0, line[first] & 0xc0 == 0x80 { first -= 1 }
      if isWord(line[first]) { hasSeenWord = true } else if hasSeenWord { return }
      eraseOne()
    }
  }

  private func killLine() {
    if settings.echoes, settings.echoesKill, settings.erasesLineOnKill, settings.echoesErase {
      while !line.isEmpty { eraseOne() }
      return
    }
    line.removeAll(keepingCapacity: true)
    guard settings.echoes else { return }
    echo(settings.characters[TerminalSettings.Index.kill])
    if settings.echoesKill { emit([10]) }
  }
}
