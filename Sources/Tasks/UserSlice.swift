public import ABI
import CMachine

/// A range of a program's memory: a claim, turned into bytes only by copies that answer `EFAULT`.
///
/// The range has been checked to lie in user space when it was made from a program's numbers; whether memory is
/// there is found out by copying. Kernel memory may be wrapped too (`kernel:`), so that the libOS's own reads and
/// writes go the same way.
public struct UserSlice {
  public private(set) var address: UInt
  public private(set) var count: Int

  /// First address above what programs may use; a host that keeps some of it for itself lowers it at start.
  nonisolated(unsafe) public static var limit: UInt = 0x7fff_ffff_f000
  /// The libOS's own range, image and arena; no program memory lies there.
  @inlinable public static var reserved: Range<UInt> { 0x1000_0000_0000..<0x3000_0000_0000 }

  /// Checks a program's pointer and length. `EFAULT` outside user space.
  public init(_ address: UInt, _ count: Int) throws(Errno) {
    guard count >= 0 else { throw .invalid }
    let (end, overflow) = address.addingReportingOverflow(UInt(bitPattern: count))
    guard !overflow, end <= UserSlice.limit else { throw .badAddress }
    guard count == 0 || end <= UserSlice.reserved.lowerBound || address >= UserSlice.reserved.upperBound
    else {
      throw .badAddress
    }
    self.address = address
    self.count = count
  }

  /// Memory of the libOS itself.
  public init(kernel bytes: UnsafeMutableRawBufferPointer) {
    address = UInt(bitPattern: bytes.baseAddress)
    count = bytes.count
  }

  public init(kernel bytes: UnsafeRawBufferPointer) {
    address = UInt(bitPattern: bytes.baseAddress)
    count = bytes.count
  }

  /// Drops the first `n` bytes.
  public mutating func advance(_ n: Int) {
    address &+= UInt(bitPattern: n)
    count -= n
  }

  public func prefix(_ n: Int) -> UserSlice {
    var slice = self
    slice.count = min(n, count)
    return slice
  }

  public func dropFirst(_ n: Int) -> UserSlice {
    var slice = self
    slice.advance(min(n, count))
    return slice
  }

  /// Copies `source` to the start of the slice; `source` must not be longer.
  public func copyOut(_ source: UnsafeRawBufferPointer) throws(Errno) {
    precondition(source.count <= count, "a copy longer than the program's buffer")
    guard let base = source.baseAddress, source.count > 0 else { return }
    guard let target = UnsafeMutableRawPointer(bitPattern: address),
      machine_copy_user(target, base, source.count) == 0
    else { throw .badAddress }
  }

  /// Fills `target` from the start of the slice; `target` must not be longer.
  public func copyIn(_ target: UnsafeMutableRawBufferPointer) throws(Errno) {
    precondition(target.count <= count, "a copy longer than the program's buffer")
    guard let base = target.baseAddress, target.count > 0 else { return }
    guard let source = UnsafeRawPointer(bitPattern: address),
      machine_copy_user(base, source, target.count) == 0
    else { throw .badAddress }
  }

  /// Fills the first `n` bytes with zeros.
  public func clear(_ n: Int) throws(Errno) {
    guard n > 0 else { return }
    guard n <= count, let target = UnsafeMutableRawPointer(bitPattern: address),
      machine_clear_user(target, n) == 0
    else { throw .badAddress }
  }

  /// The most that `bytes` copies into the libOS at once.
  @inlinable public static var longestCopy: Int { 4 << 20 }

  /// The whole slice as an array. ENOMEM when it is longer than any call needs.
  public func bytes() throws(Errno) -> [UInt8] {
    guard count <= UserSlice.longestCopy else { throw .noMemory }
    var result = [UInt8](repeating: 0, count: count)
    let slice = self
    var failure = false
    result.withUnsafeMutableBytes { buffer in
      do throws(Errno) { try slice.copyIn(buffer) } catch { failure = true }
    }
    if failure { throw .badAddress }
    return result
  }

  /// Writes `array` to the start of the slice.
  public func store(_ array: [UInt8]) throws(Errno) {
    let slice = self
    var failure = false
    array.withUnsafeBytes { buffer in
      do throws(Errno) { try slice.copyOut(buffer) } catch { failure = true }
    }
    if failure { throw .badAddress }
  }

  /// Reads a plain value (an ABI structure or an integer) at a program's address.
  @inline(__always)
  public static func load<T: BitwiseCopyable>(_ address: UInt, _ initial: T) throws(Errno) -> T {
    let slice = try UserSlice(address, MemoryLayout<T>.size)
    var value = initial
    var failure = false
    withUnsafeMutableBytes(of: &value) { buffer in
      do throws(Errno) { try slice.copyIn(buffer) } catch { failure = true }
    }
    if failure { throw .badAddress }
    return value
  }

  /// Writes a plain value at a program's address.
  @inline(__always)
  public static func store<T: BitwiseCopyable>(_ value: T, at address: UInt) throws(Errno) {
    let slice = try UserSlice(address, MemoryLayout<T>.size)
    var copy = value
    var failure = false
    withUnsafeMutableBytes(of: &copy) { buffer in
      do throws(Errno) { try slice.copyOut(UnsafeRawBufferPointer(buffer)) } catch { failure = true }
    }
    if failure { throw .badAddress }
  }

  /// Reads a NUL-terminated string of at most `limit` bytes, a part of a page at a time; `ENAMETOOLONG` beyond. Names are
  /// mostly short: the first part is, too.
  public static func string(_ address: UInt, limit: Int = 4096) throws(Errno) -> [UInt8] {
    var result: [UInt8] = []
    var part: [256 of UInt8] = .init(repeating: 0)
    var next = address
    while result.count < limit {
      let wanted = min(limit - result.count, result.isEmpty ? 64 : 256)
      let slice = try UserSlice(next, min(4096 - Int(next & 4095), wanted))
      var end = -1
      withUnsafeMutableBytes(of: &part) { bytes in
        let target = UnsafeMutableRawBufferPointer(rebasing: bytes[..<slice.count])
        do throws(Errno) { try slice.copyIn(target) } catch { return }
        end = 0
        while end < target.count, target[end] != 0 { end &+= 1 }
        result.append(contentsOf: UnsafeRawBufferPointer(rebasing: target[..<end]))
      }
      guard end >= 0 else { throw .badAddress }
      if end < slice.count { return result }
      next &+= UInt(slice.count)
    }
    throw .nameTooLong
  }
}
