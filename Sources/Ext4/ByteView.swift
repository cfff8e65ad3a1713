/// Bytes of an on-disk structure. Every access is checked: outside of the view, reads give 0 and writes do nothing, so
/// that a damaged image can never reach other memory. Little endian, as ext4 is; the journal's fields are big endian.
struct ByteView {
  let base: UnsafeMutableRawPointer
  let count: Int

  @inline(__always)
  func holds(_ offset: Int, _ size: Int) -> Bool { offset >= 0 && offset <= count &- size }

  @inline(__always)
  func u8(_ offset: Int) -> UInt8 {
    holds(offset, 1) ? base.load(fromByteOffset: offset, as: UInt8.self) : 0
  }
  @inline(__always)
  func u16(_ offset: Int) -> UInt16 {
    holds(offset, 2) ? UInt16(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt16.self)) : 0
  }
  @inline(__always)
  func u32(_ offset: Int) -> UInt32 {
    holds(offset, 4) ? UInt32(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) : 0
  }
  @inline(__always)
  func u64(_ offset: Int) -> UInt64 {
    holds(offset, 8) ? UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) : 0
  }
  @inline(__always)
  func big32(_ offset: Int) -> UInt32 { u32(offset).byteSwapped }

  @inline(__always)
  func set8(_ offset: Int, _ value: UInt8) {
    if holds(offset, 1) { base.storeBytes(of: value, toByteOffset: offset, as: UInt8.self) }
  }
  @inline(__always)
  func set16(_ offset: Int, _ value: UInt16) {
    if holds(offset, 2) { base.storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt16.self) }
  }
  @inline(__always)
  func set32(_ offset: Int, _ value: UInt32) {
    if holds(offset, 4) { base.storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt32.self) }
  }
  @inline(__always)
  func set64(_ offset: Int, _ value: UInt64) {
    if holds(offset, 8) { base.storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt64.self) }
  }
  @inline(__always)
  func setBig32(_ offset: Int, _ value: UInt32) { set32(offset, value.byteSwapped) }

  /// The part of `length` bytes at `offset`, as much of it as there is.
  func part(_ offset: Int, _ length: Int) -> ByteView {
    let start = min(max(0, offset), count)
    return ByteView(base: base + start, count: min(max(0, length), count - start))
  }

  func bytes(_ offset: Int, _ length: Int) -> [UInt8] {
    let part = part(offset, length)
    return [UInt8](UnsafeRawBufferPointer(start: part.base, count: part.count))
  }

  func store(_ bytes: [UInt8], at offset: Int) {
    guard holds(offset, bytes.count) else { return }
    for (i, byte) in bytes.enumerated() {
      base.storeBytes(of: byte, toByteOffset: offset + i, as: UInt8.self)
    }
  }

  func equals(_ bytes: [UInt8], at offset: Int) -> Bool {
    guard holds(offset, bytes.count) else { return false }
    for i in 0..<bytes.count where base.load(fromByteOffset: offset + i, as: UInt8.self) != bytes[i] {
      return false
    }
    return true
  }

  /// Moves `length` bytes within the view; they may overlap.
  func move(from: Int, to: Int, length: Int) {
    guard length > 0, holds(from, length), holds(to, length) else { return }
    (base + to).copyMemory(from: base + from, byteCount: length)
  }

  func clear(_ offset: Int, _ length: Int) {
    let part = part(offset, length)
    if part.count > 0 { part.base.initializeMemory(as: UInt8.self, repeating: 0, count: part.count) }
  }

  /// Copies all of `other`, as much as fits.
  func copy(_ other: ByteView) {
    let length = min(count, other.count)
    if length > 0 { base.copyMemory(from: other.base, byteCount: length) }
  }

  var raw: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }
  var mutable: UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(start: base, count: count) }
}
