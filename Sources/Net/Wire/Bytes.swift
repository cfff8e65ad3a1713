// Checked access to network-order fields: outside the bounds a load gives zero, so hostile lengths cannot trap.

extension UnsafeRawBufferPointer {
  @inline(__always)
  func byte(_ offset: Int) -> UInt8 {
    guard offset >= 0, offset < count, let baseAddress else { return 0 }
    return baseAddress.load(fromByteOffset: offset, as: UInt8.self)
  }

  @inline(__always)
  func word16(_ offset: Int) -> UInt16 {
    guard offset >= 0, offset &+ 2 <= count, let baseAddress else { return 0 }
    return UInt16(bigEndian: baseAddress.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  @inline(__always)
  func word32(_ offset: Int) -> UInt32 {
    guard offset >= 0, offset &+ 4 <= count, let baseAddress else { return 0 }
    return UInt32(bigEndian: baseAddress.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  @inline(__always)
  func word64(_ offset: Int) -> UInt64 {
    guard offset >= 0, offset &+ 8 <= count, let baseAddress else { return 0 }
    return UInt64(bigEndian: baseAddress.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  /// Sixteen bytes of an IPv6 header.
  @inline(__always)
  func address(_ offset: Int) -> IPAddress { IPAddress(high: word64(offset), low: word64(offset &+ 8)) }

  /// Six bytes of an Ethernet header or a link-layer address option.
  @inline(__always)
  func mac(_ offset: Int) -> MACAddress {
    MACAddress(rawValue: UInt64(word16(offset)) << 32 | UInt64(word32(offset &+ 2)))
  }

  /// The bytes from `start` up to `end`, clipped to what there is.
  @inline(__always)
  func part(_ start: Int, _ end: Int) -> UnsafeRawBufferPointer {
    let last = Swift.min(end, count)
    guard start >= 0, start < last, let baseAddress else {
      return UnsafeRawBufferPointer(start: nil, count: 0)
    }
    return UnsafeRawBufferPointer(start: baseAddress + start, count: last - start)
  }
}

extension UnsafeMutableRawPointer {
  @inline(__always)
  func put8(_ offset: Int, _ value: UInt8) { storeBytes(of: value, toByteOffset: offset, as: UInt8.self) }

  @inline(__always)
  func put16(_ offset: Int, _ value: UInt16) {
    storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
  }

  @inline(__always)
  func put32(_ offset: Int, _ value: UInt32) {
    storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
  }

  @inline(__always)
  func putAddress(_ offset: Int, _ address: IPAddress) {
    storeBytes(of: address.high.bigEndian, toByteOffset: offset, as: UInt64.self)
    storeBytes(of: address.low.bigEndian, toByteOffset: offset &+ 8, as: UInt64.self)
  }

  @inline(__always)
  func putMAC(_ offset: Int, _ address: MACAddress) {
    put16(offset, UInt16(truncatingIfNeeded: address.rawValue >> 32))
    put32(offset + 2, UInt32(truncatingIfNeeded: address.rawValue))
  }
}
