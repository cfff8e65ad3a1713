import CHostCommand
import Glibc

/// Between the user and the control channel of a virtual machine (`ControlChannel` in the bare host has the format).
final class Relay {
  static let signals = [SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGCONT, SIGWINCH]
  private static let header = 4

  private let channel: Int32
  private let signalDescriptor: Int32
  private let process: pid_t
  private var incoming: [UInt8] = []
  private var outgoing: [UInt8] = []
  private var wantsInput = false
  private var inputHasEnded = false
  private var channelIsOpen = true
  /// Output that was written and not told of yet; the machine waits before too much is under way.
  private var taken = 0
  private static let portion = 16384
  private var status: UInt8?
  private var machineStatus: Int32?

  init(channel: Int32, signals: Int32, process: pid_t) {
    self.channel = channel
    signalDescriptor = signals
    self.process = process
  }

  /// Passes everything on until the machine has ended, then ends with its status.
  func run() -> Never {
    while machineStatus == nil || channelIsOpen {
      var set = [
        pollfd(fd: signalDescriptor, events: Int16(POLLIN), revents: 0),
        pollfd(fd: channelIsOpen ? channel : -1, events: Int16(POLLIN), revents: 0),
        pollfd(fd: wantsInput && !inputHasEnded ? STDIN_FILENO : -1, events: Int16(POLLIN), revents: 0),
      ]
      if !outgoing.isEmpty { set[1].events |= Int16(POLLOUT) }
      if poll(&set, 3, -1) < 0 { continue }
      if set[0].revents != 0 { readSignal() }
      if set[1].revents & Int16(POLLOUT) != 0 { flush() }
      if set[1].revents & ~Int16(POLLOUT) != 0 { readChannel() }
      if set[2].revents != 0 { readInput() }
    }
    end()
  }

  private func end() -> Never {
    if let status { exit(Int32(status)) }
    let ended = machineStatus ?? 0
    // isa-debug-exit: status << 1 | 1
    if ended & 0x7f == 0, ended >> 8 & 1 == 1, ended >> 8 != 1 { exit(ended >> 9 & 0x7f) }
    writeLine("swiftlet: the virtual machine ended without a status", to: STDERR_FILENO)
    exit(125)
  }

  private func readSignal() {
    let number = next_signal(signalDescriptor)
    if number == SIGCHLD {
      var result: Int32 = 0
      if waitpid(process, &result, WNOHANG) == process { machineStatus = result }
    } else if number > 0 {
      send(18, [UInt8(truncatingIfNeeded: number)])
    }
  }

  private func readInput() {
    var buffer = [UInt8](repeating: 0, count: 3072)
    let count = read(STDIN_FILENO, &buffer, buffer.count)
    if count > 0 {
      wantsInput = false
      send(16, Array(buffer[..<count]))
    } else if count == 0 || errno != EINTR && errno != EAGAIN {
      inputHasEnded = true
      send(17, [])
    }
  }

  private func send(_ type: UInt8, _ body: [UInt8]) {
    outgoing += [type, UInt8(body.count & 255), UInt8(body.count >> 8 & 255), 0] + body
    flush()
  }

  private func flush() {
    guard channelIsOpen, !outgoing.isEmpty else { return }
    let count = Glibc.send(channel, outgoing, outgoing.count, Int32(MSG_DONTWAIT))
    if count > 0 { outgoing.removeFirst(count) }
  }

  private func readChannel() {
    var buffer = [UInt8](repeating: 0, count: 65536)
    let count = read(channel, &buffer, buffer.count)
    if count < 0 && errno == EINTR { return }
    guard count > 0 else {
      channelIsOpen = false
      return
    }
    incoming += buffer[..<count]
    var at = 0
    while incoming.count - at >= Relay.header {
      let length = Int(incoming[at + 1]) | Int(incoming[at + 2]) << 8 | Int(incoming[at + 3]) << 16
      let start = at + Relay.header
      guard incoming.count - start >= length else { break }
      take(incoming[at], incoming[start..<start + length])
      at = start + length
    }
    if at > 0 { incoming.removeFirst(at) }
  }

  private func take(_ type: UInt8, _ body: ArraySlice<UInt8>) {
    switch type {
    case 1, 2:
      writeAll(type == 1 ? STDOUT_FILENO : STDERR_FILENO, body)
      taken += body.count
      if taken >= Relay.portion { tellTaken() }
    case 3: status = body.first
    case 4: wantsInput = true
    default: break
    }
  }

  private func tellTaken() {
    send(21, (0..<4).map { UInt8(truncatingIfNeeded: taken >> (8 * $0)) })
    taken = 0
  }

  private func writeAll(_ descriptor: Int32, _ body: ArraySlice<UInt8>) {
    body.withUnsafeBytes { bytes in
      var done = 0
      while done < bytes.count {
        let count = write(descriptor, bytes.baseAddress.map { $0 + done }, bytes.count - done)
        if count < 0 && errno == EINTR { continue }
        if count <= 0 { return }
        done += count
      }
    }
  }
}
