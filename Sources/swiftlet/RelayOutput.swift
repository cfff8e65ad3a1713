import Glibc

/// Standard output or error of the user: what it does not take at once waits here, so that nothing else has to.
struct RelayOutput {
  /// 1 or 2.
  let stream: UInt8
  private(set) var isClosed = false
  private let descriptor: Int32
  private var pending: [UInt8] = []
  private var start = 0
  private let isPatient: Bool
  /// The most that poll(2) promises to be taken (PIPE_BUF).
  private static let portion = 4096
  private static let most = 1 << 16

  init(_ stream: UInt8) {
    self.stream = stream
    var status = stat()
    let own = Int32(stream)
    let isPipe = fstat(own, &status) == 0 && status.st_mode & S_IFMT == S_IFIFO
    // A terminal or pipe is opened anew, so that writing never waits and the flag stays ours.
    let again =
      isPipe || isatty(own) == 1
      ? open("/proc/self/fd/\(own)", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) : -1
    isPatient = again < 0
    descriptor = again < 0 ? own : again
  }

  var isWaiting: Bool { !isClosed && start < pending.count }
  var isFull: Bool { pending.count - start > RelayOutput.most }

  /// What to watch while something waits.
  var entry: pollfd { pollfd(fd: isWaiting ? descriptor : -1, events: Int16(POLLOUT), revents: 0) }

  mutating func add(_ bytes: ArraySlice<UInt8>) {
    guard !isClosed else { return }
    pending += bytes
    flush()
  }

  /// Hands on what is taken without waiting.
  mutating func flush() {
    while isWaiting, write() {}
    if start == pending.count {
      pending.removeAll(keepingCapacity: true)
      start = 0
    }
  }

  /// False when no more is taken now.
  private mutating func write() -> Bool {
    if isPatient {
      var entry = entry
      guard poll(&entry, 1, 0) > 0 else { return false }
    }
    let size = min(pending.count - start, isPatient ? RelayOutput.portion : pending.count)
    let count = pending.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress.map { $0 + start }, size) }
    if count >= 0 {
      start += count
      return true
    }
    if errno == EINTR { return true }
    if errno == EAGAIN { return false }
    isClosed = true
    pending = []
    start = 0
    return false
  }

  /// Waits until everything has been taken.
  mutating func finish() {
    while isWaiting {
      var entry = entry
      _ = poll(&entry, 1, -1)
      flush()
    }
  }
}
