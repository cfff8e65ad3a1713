import ABI
import CMachine
import Processes
import Tasks

/// Signals (signal(7)).
extension SystemCall {
  func dispatchSignal() throws(Errno) -> Int? {
    switch number {
    case 13:
      guard d == 8 else { throw .invalid }
      let new: SignalAction? = b == 0 ? nil : try UserSlice.load(b, SignalAction())
      let old = try thread.signalAction(int(a), new: new)
      if c != 0 { try UserSlice.store(old, at: c) }
      return 0
    case 14:
      guard d == 8 else { throw .invalid }
      let set: SignalSet? = b == 0 ? nil : try signalSet(b)
      let old = try thread.changeMask(int(a), set)
      if c != 0 { try UserSlice.store(old, at: c) }
      return 0
    case 34:
      try thread.pause()
      return 0
    case 62:
      try thread.kill(int(a), int(b))
      return 0
    case 200:
      try thread.kill(thread: int(a), in: nil, int(b))
      return 0
    case 234:
      try thread.kill(thread: int(b), in: int(a), int(c))
      return 0
    case 127:
      try UserSlice.store(thread.pendingAndBlocked, at: a)
      return 0
    case 128: return try sigtimedwait()
    case 129:
      try thread.queue(try information(c, int(b)), process: int(a))
      return 0
    case 297:
      try thread.queue(try information(d, int(c)), thread: int(b), in: int(a))
      return 0
    case 130:
      guard b == 8 else { throw .invalid }
      try thread.suspend(try signalSet(a))
      return 0
    case 131: return try sigaltstack()
    case 219:
      guard let number = thread.restartedCall else { throw .interrupted }
      return try SystemCall(frame: frame, number: Int(number)).dispatch()
    default: return nil
    }
  }

  private func signalSet(_ address: UInt) throws(Errno) -> SignalSet {
    try UserSlice.load(address, SignalSet(rawValue: 0))
  }

  private func information(_ address: UInt, _ signal: Int32) throws(Errno) -> SignalInformation {
    SignalInformation(signal: signal, encoded: try UserSlice(address, 128).bytes())
  }

  private func sigtimedwait() throws(Errno) -> Int {
    guard d == 8 else { throw .invalid }
    let deadline = c == 0 ? UInt64.max : host.monotonicNanoseconds &+ (try duration(c))
    let result = try thread.waitForSignal(try signalSet(a), deadline: deadline)
    if b != 0 { try UserSlice(b, 128).store(result.encoded()) }
    return Int(result.signal)
  }

  private func sigaltstack() throws(Errno) -> Int {
    let pointer = UInt(frame.pointee.rsp)
    let old = thread.alternateStack(at: pointer)
    if a != 0 { try thread.setAlternateStack(try UserSlice.load(a, AlternateStack()), stackPointer: pointer) }
    if b != 0 { try UserSlice.store(old, at: b) }
    return 0
  }
}
