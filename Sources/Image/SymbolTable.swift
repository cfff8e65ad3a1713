/// The symbol table of an ELF file in memory (elf(5)). Nothing here uses the heap: panics ask.
public struct SymbolTable {
  private let table: UnsafeRawBufferPointer
  private let names: UnsafeRawBufferPointer

  public init?(_ file: UnsafeRawBufferPointer) {
    guard file.count > 64, file[0] == 0x7f else { return nil }
    let sections = Int(file.loadUnaligned(fromByteOffset: 40, as: UInt64.self))
    let count = Int(file.loadUnaligned(fromByteOffset: 60, as: UInt16.self))
    guard sections > 0, sections + 64 * count <= file.count else { return nil }
    func section(_ index: Int) -> UnsafeRawBufferPointer {
      let header = sections + 64 * index
      let offset = Int(file.loadUnaligned(fromByteOffset: header + 24, as: UInt64.self))
      let size = Int(file.loadUnaligned(fromByteOffset: header + 32, as: UInt64.self))
      guard offset >= 0, size >= 0, offset <= file.count, size <= file.count - offset else {
        return UnsafeRawBufferPointer(start: nil, count: 0)
      }
      return UnsafeRawBufferPointer(rebasing: file[offset..<offset + size])
    }
    for index in 0..<count {
      let header = sections + 64 * index
      // SHT_SYMTAB
      guard file.loadUnaligned(fromByteOffset: header + 4, as: UInt32.self) == 2 else { continue }
      let link = Int(file.loadUnaligned(fromByteOffset: header + 40, as: UInt32.self))
      guard link < count else { return nil }
      table = section(index)
      names = section(link)
      return
    }
    return nil
  }

  /// The symbol that `address` lies behind or at.
  public func name(of address: UInt64) -> SymbolName? {
    var best: UInt64 = 0
    var found: Int?
    var at = 0
    while at + 24 <= table.count {
      let value = table.loadUnaligned(fromByteOffset: at + 8, as: UInt64.self)
      let kind = table[at + 4] & 15
      if value <= address, value >= best, kind < 3 {
        best = value
        found = Int(table.loadUnaligned(fromByteOffset: at, as: UInt32.self))
      }
      at += 24
    }
    guard let found, found < names.count, names[names.count - 1] == 0 else { return nil }
    return names.baseAddress.map { SymbolName(text: $0.assumingMemoryBound(to: UInt8.self) + found) }
  }
}

/// A symbol's name, which a NUL ends.
public struct SymbolName {
  public let text: UnsafePointer<UInt8>

  public var count: Int {
    var count = 0
    while text[count] != 0 { count += 1 }
    return count
  }

  /// Calls `body` with each of the names in a mangled Swift symbol: module, type, function. What is abbreviated in it is
  /// left out.
  public func forEachPart(_ body: (UnsafePointer<UInt8>, Int) -> Void) {
    guard text[0] == 0x24, text[1] == 0x65 || text[1] == 0x73 else { return }
    var position = 2
    while text[position] >= 0x31, text[position] <= 0x39 {
      var length = 0
      while text[position] >= 0x30, text[position] <= 0x39, length < 1000 {
        length = length * 10 + Int(text[position] - 0x30)
        position += 1
      }
      for i in 0..<length where text[position + i] == 0 { return }
      // Of what is private to a file the mangling has the file's hash.
      if length != 33 || text[position] != 0x5f { body(text + position, length) }
      position += length
      // One-letter kinds of the names before: class, structure, enumeration, protocol.
      while [0x43, 0x56, 0x4f, 0x50].contains(text[position]) { position += 1 }
    }
  }
}
