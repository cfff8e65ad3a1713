import CHostCommand
import Glibc

/// Between the user and the control channel of a virtual machine (`ControlChannel` in the bare host has the format).
///
/// Nothing here waits for one side only: a user who reads slowly still gets signals through, and a machine that takes
/// nothing any more can be ended.
final class Relay {
  static let signals = [
    SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGCONT, SIGWINCH, memory_limit_signal(),
  ]
  /// Signals after which the user expects an end.
  private static let ending = [SIGHUP, SIGINT, SIGQUIT, SIGTERM]
  private static let header = 4
  /// As much input as one wish allows.
  private static let portion = 3072
  /// Seconds in which a machine that is alive says that it has taken a signal, and so many ended it is given.
  private static let patience: Double = 20
  private static let shortPatience: Double = 1

  private let channel: Int32
  private let signalDescriptor: Int32
  private let process: pid_t
  private var monitor: MachineMonitor?
  /// What the exokernel says; -1 at its end.
  private var errors: Int32
  private var panicLines: PanicLines
  /// Where the size of the user's terminal is kept up to date; nil without one.
  private let terminalSize: UnsafePointer<UInt64>?
  /// Bytes that the machine has besides what is for programs.
  private let overhead: UInt64
  private var outputs = [RelayOutput(1), RelayOutput(2)]
  private var incoming: [UInt8] = []
  private var outgoing: [UInt8] = []
  /// Input that the machine has not wished for yet: of a terminal, where a control-C may be the last resort.
  private var held: [UInt8] = []
  private var wantsInput: Bool
  private var inputHasEnded = false
  private var hasToldEnd = false
  private var channelIsOpen = true
  /// Output that came and was not told of yet; the machine waits before too much is under way.
  private var taken = 0
  private static let mostUntold = 16384
  private var status: UInt8?
  private var machineStatus: Int32?
  /// When the first of the signals was sent that the machine has not taken yet, how many there are, and the last.
  private var unanswered: (since: Double, count: Int, signal: Int32)?
  /// When the machine said that its program has ended.
  private var endedAt: Double?

  init(
    channel: Int32, monitor: Int32, errors: Int32, image: Int32, signals: Int32, process: pid_t,
    terminalSize: UnsafePointer<UInt64>?, overhead: UInt64
  ) {
    self.channel = channel
    self.monitor = MachineMonitor(descriptor: monitor)
    self.errors = errors
    panicLines = PanicLines(image: image)
    signalDescriptor = signals
    self.process = process
    self.terminalSize = terminalSize
    self.overhead = overhead
    // A terminal's input is read ahead.
    wantsInput = terminalSize != nil
  }

  /// Passes everything on until the machine has ended, then ends with its status.
  func run() -> Never {
    while machineStatus == nil || channelIsOpen || errors >= 0 {
      let watchesInput = !inputHasEnded && (wantsInput || terminalSize != nil && held.count < Relay.portion)
      var set = [
        pollfd(fd: signalDescriptor, events: Int16(POLLIN), revents: 0),
        pollfd(fd: channelIsOpen ? channel : -1, events: 0, revents: 0),
        pollfd(fd: watchesInput ? STDIN_FILENO : -1, events: Int16(POLLIN), revents: 0),
        outputs[0].entry, outputs[1].entry,
        pollfd(fd: monitor?.descriptor ?? -1, events: Int16(POLLIN), revents: 0),
        pollfd(fd: outputs[1].isFull ? -1 : errors, events: Int16(POLLIN), revents: 0),
      ]
      if !outputs[0].isFull, !outputs[1].isFull { set[1].events |= Int16(POLLIN) }
      if !outgoing.isEmpty { set[1].events |= Int16(POLLOUT) }
      if poll(&set, 7, unanswered == nil && endedAt == nil ? -1 : 500) < 0 { continue }
      if set[0].revents != 0 { readSignal() }
      if set[1].revents & Int16(POLLOUT) != 0 { flush() }
      if set[1].revents & ~Int16(POLLOUT) != 0 { readChannel() }
      if set[2].revents != 0 { readInput() }
      for i in 0..<2 where set[3 + i].revents != 0 { outputs[i].flush() }
      if set[5].revents != 0, monitor?.drain() == false { monitor = nil }
      if set[6].revents != 0 { readErrors() }
      tellTaken()
      tellClosed()
      giveUp()
    }
    end()
  }

  private func end() -> Never {
    for i in 0..<2 { outputs[i].finish() }
    if let status { exit(Int32(status)) }
    let ended = machineStatus ?? 0
    // isa-debug-exit: status << 1 | 1
    if ended & 0x7f == 0, ended >> 8 & 1 == 1, ended >> 8 != 1 { exit(ended >> 9 & 0x7f) }
    writeLine("swiftlet: the virtual machine ended without a status", to: STDERR_FILENO)
    exit(125)
  }

  // MARK: The machine that does not answer

  private var now: Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }

  /// Sends a signal, or with 0 only the question whether somebody is there.
  private func send(signal: Int32) {
    if signal == 0 || Relay.ending.contains(signal) {
      let former = unanswered
      unanswered = (former?.since ?? now, (former?.count ?? 0) + 1, signal)
    }
    send(18, [UInt8(truncatingIfNeeded: signal)])
  }

  /// Ends a machine that takes no signals: at the user's second attempt, or when it has had time enough.
  private func giveUp() {
    if let endedAt, machineStatus == nil, now - endedAt > Relay.patience { kill(process, SIGKILL) }
    guard let unanswered, machineStatus == nil else { return }
    let time = now - unanswered.since
    let isPressed = unanswered.count > 2 || unanswered.count > 1 && time > Relay.shortPatience
    guard isPressed && time > Relay.shortPatience || time > Relay.patience else { return }
    self.unanswered = nil
    kill(process, SIGKILL)
    status = status ?? UInt8(128 + (unanswered.signal == 0 ? SIGINT : unanswered.signal))
    writeLine("swiftlet: the virtual machine does not answer; it has been killed\r", to: STDERR_FILENO)
  }

  // MARK: From the user

  private func readSignal() {
    var value: Int32 = 0
    let number = next_signal(signalDescriptor, &value)
    if number == SIGCHLD {
      var result: Int32 = 0
      if waitpid(process, &result, WNOHANG) == process { machineStatus = result }
      return
    }
    guard number > 0 else { return }
    if number == memory_limit_signal() {
      send(22, [UInt8(truncatingIfNeeded: value >> 24 & 0x7f)])
      monitor?.setMemory(overhead + UInt64(value & 0xff_ffff) << 20)
      return
    }
    if number == SIGWINCH, let terminalSize {
      send(19, bytes(terminalSize[0]) + bytes(terminalSize[1]))
    }
    send(signal: number)
  }

  private func bytes(_ word: UInt64) -> [UInt8] {
    (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) }
  }

  private func readInput() {
    var buffer = [UInt8](repeating: 0, count: Relay.portion - held.count)
    let count = read(STDIN_FILENO, &buffer, buffer.count)
    if count > 0 {
      held += buffer[..<count]
      // Three times control-C, and none of it taken: is anybody there?
      if !wantsInput, held.filter({ $0 == 3 }).count >= 3 { send(signal: 0) }
    } else if count == 0 || errno != EINTR && errno != EAGAIN {
      inputHasEnded = true
    }
    passInput()
  }

  private func passInput() {
    if wantsInput, !held.isEmpty {
      wantsInput = false
      send(16, held)
      held = []
    }
    if inputHasEnded, held.isEmpty, !hasToldEnd {
      hasToldEnd = true
      send(17, [])
    }
  }

  /// Nothing is told while the user has not taken what came before.
  private func tellTaken() {
    guard taken >= Relay.mostUntold, !outputs[0].isFull, !outputs[1].isFull else { return }
    send(21, (0..<4).map { UInt8(truncatingIfNeeded: taken >> (8 * $0)) })
    taken = 0
  }

  private func tellClosed() {
    for i in 0..<2 where outputs[i].isClosed && !toldClosed.contains(outputs[i].stream) {
      toldClosed.append(outputs[i].stream)
      send(20, [outputs[i].stream])
    }
  }
  private var toldClosed: [UInt8] = []

  // MARK: The channel

  private func send(_ type: UInt8, _ body: [UInt8]) {
    outgoing += [type, UInt8(body.count & 255), UInt8(body.count >> 8 & 255), 0] + body
    flush()
  }

  private func flush() {
    guard channelIsOpen, !outgoing.isEmpty else { return }
    let count = Glibc.send(channel, outgoing, outgoing.count, Int32(MSG_DONTWAIT))
    if count > 0 { outgoing.removeFirst(count) }
  }

  private func readErrors() {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = read(errors, &buffer, buffer.count)
    if count > 0 {
      outputs[1].add(panicLines.annotate(buffer[..<count])[...])
    } else if count == 0 || errno != EINTR {
      errors = -1
    }
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
      outputs[Int(type) - 1].add(body)
      taken += body.count
    case 3:
      status = body.first
      endedAt = now
    case 4:
      wantsInput = true
      passInput()
    case 5: unanswered = nil
    default: break
    }
  }
}
