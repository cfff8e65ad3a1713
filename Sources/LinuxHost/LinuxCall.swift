// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
public import ABI
import CLinuxHost

/// Linux's system calls as the host uses them: the whole list that the seal lets through, and what start-up needs
/// before it. Results are Linux's: negative is an errno.
enum LinuxCall {
  @inline(__always) static func raw(
    _ number: Int, _ a: Int = 0, _ b: Int = 0, _ c: Int = 0, _ d: Int = 0, _ e: Int = 0, _ f: Int = 0
  ) -> Int {
    // Where keys isolate, the seal wants the secret in a register that the call leaves alone: the last one, or halves
    // of numbers that Linux takes as 32 bits.
    let secret = Int(bitPattern: UInt(secret_of_host_calls()))
    if number == futex { return host_syscall(number, a, b, c, d, secret, f) }
    if number == mmap, secret != 0 {
      return host_syscall(
        number, a, b, c, d & 0xffff_ffff | secret & ~0xffff_ffff, e & 0xffff_ffff | secret << 32, f)
    }
    return host_syscall(number, a, b, c, d, e, number == mmap ? f : secret)
  }

  static let lseek = 8, fdatasync = 75
  static let read = 0, write = 1, open = 2, close = 3, fstat = 5, poll = 7, mmap = 9, mprotect = 10,
    munmap = 11
  static let sigaction = 13, sigprocmask = 14, pread = 17, pwrite = 18, writev = 20, mremap = 25, madvise = 28
  static let getpid = 39, clone = 56, exit = 60, wait4 = 61, kill = 62, uname = 63, fcntl = 72, ftruncate = 77
  static let sigaltstack = 131, prctl = 157, archPrctl = 158, setrlimit = 160, gettid = 186, tkill = 200
  static let futex = 202, clockGettime = 228, exitGroup = 231, ppoll = 271, fallocate = 285, eventfd2 = 290
  static let seccomp = 317, getrandom = 318, memfdCreate = 319, ioctl = 16, schedYield = 24,
    getppid = 110
  static let pkeyMprotect = 329, pkeyAllocate = 330
  static let schedGetAffinity = 204, getrusage = 98, restart = 219

  static func check(_ result: Int) throws(Errno) -> Int {
    if result < 0 { throw Errno(rawValue: Int32(-result)) }
    return result
  }

  static func getrandom(_ bytes: UnsafeMutableRawBufferPointer) {
    var done = 0
    while done < bytes.count {
      let n = raw(getrandom, Int(bitPattern: bytes.baseAddress! + done), bytes.count - done)
      if n > 0 { done += n }
    }
  }
}

/// Ends the unikernel over a broken invariant.
func panic(_ text: StaticString) -> Never {
  Panic.begin()
  say(text)
  say("\n")
  Panic.walk(host_frame_address())
  Panic.finish()
}

/// Writes to standard error, without the heap.
public func say(_ text: StaticString) {
  text.withUTF8Buffer { _ = LinuxCall.raw(LinuxCall.write, 2, Int(bitPattern: $0.baseAddress), $0.count) }
}

public func sayHexadecimal(_ value: UInt64) {
  var digits: [18 of UInt8] = .init(repeating: 0x30)
  digits[1] = 0x78
  for i in 0..<16 {
    let nibble = UInt8((value >> UInt64(60 - 4 * i)) & 15)
    digits[2 + i] = nibble < 10 ? 0x30 + nibble : 0x57 + nibble
  }
  withUnsafeBytes(of: digits) { _ = LinuxCall.raw(LinuxCall.write, 2, Int(bitPattern: $0.baseAddress), 18) }
}
