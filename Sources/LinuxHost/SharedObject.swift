// Addresses here come from the host or the arena and are never nil.
// swift-format-ignore-file: NeverForceUnwrap
import CLinuxHost

/// A shared object that Linux mapped: its vDSO (vdso(7)).
enum SharedObject {
  /// Where its only segment ends. `base` is as below.
  static func end(at base: UInt) -> UInt {
    guard let header = UnsafeRawPointer(bitPattern: base) else { return base }
    let programHeaders = header + header.load(fromByteOffset: 32, as: Int.self)
    for i in 0..<Int(header.load(fromByteOffset: 56, as: UInt16.self)) {
      let entry = programHeaders + i * 56
      if entry.load(as: UInt32.self) == 1 {
        let end = entry.load(fromByteOffset: 8, as: UInt.self) + entry.load(fromByteOffset: 40, as: UInt.self)
        return base + (end + 4095) & ~4095
      }
    }
    return base
  }

  /// The address of `name`, 0 if there is none. `base` is Linux's AT_SYSINFO_EHDR, and so trusted.
  static func symbol(_ name: StaticString, at base: UInt) -> UInt64 {
    guard let header = UnsafeRawPointer(bitPattern: base) else { return 0 }
    let count = Int(header.load(fromByteOffset: 56, as: UInt16.self))
    let programHeaders = header + header.load(fromByteOffset: 32, as: Int.self)
    var bias = 0
    var dynamic: UnsafeRawPointer? = nil
    for i in 0..<count {
      let entry = programHeaders + i * 56
      let offset = entry.load(fromByteOffset: 8, as: Int.self)
      switch entry.load(as: UInt32.self) {
      case 1: bias = Int(base) + offset - entry.load(fromByteOffset: 16, as: Int.self)
      case 2: dynamic = header + offset
      default: break
      }
    }
    guard var tag = dynamic else { return 0 }
    var strings = 0
    var symbols = 0
    while tag.load(as: Int.self) != 0 {
      if tag.load(as: Int.self) == 5 { strings = bias + tag.load(fromByteOffset: 8, as: Int.self) }
      if tag.load(as: Int.self) == 6 { symbols = bias + tag.load(fromByteOffset: 8, as: Int.self) }
      tag += 16
    }
    return find(name, symbols: symbols, strings: strings, bias: bias)
  }

  // The string table follows the symbol table in every vDSO that Linux has shipped; there need be no DT_HASH.
  private static func find(_ name: StaticString, symbols: Int, strings: Int, bias: Int) -> UInt64 {
    var symbol = symbols
    while symbol + 24 <= strings {
      let entry = UnsafeRawPointer(bitPattern: symbol)!
      let text = UnsafePointer<UInt8>(bitPattern: strings + Int(entry.load(as: UInt32.self)))!
      var same = true
      for i in 0..<name.utf8CodeUnitCount where same && text[i] != name.utf8Start[i] { same = false }
      if same, text[name.utf8CodeUnitCount] == 0 {
        return UInt64(bias + entry.load(fromByteOffset: 8, as: Int.self))
      }
      symbol += 24
    }
    return 0
  }
}
