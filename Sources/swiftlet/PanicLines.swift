import Image
import ImageBuilder

/// What the exokernel says: passed on as it is, with the names of functions behind the addresses of a backtrace.
struct PanicLines {
  private let image: Int32
  private var line: [UInt8] = []

  /// `image` is the descriptor of the image that runs.
  init(image: Int32) { self.image = image }

  /// What to say for the next bytes.
  mutating func annotate(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
    var result: [UInt8] = []
    for byte in bytes {
      guard byte == 0x0a else {
        result.append(byte)
        line.append(byte)
        continue
      }
      if let name = name(line) { result += [0x20] + Array(name.utf8) }
      result.append(byte)
      line = []
    }
    return result
  }

  /// Of a line `  #N 0xADDRESS`.
  private func name(_ line: [UInt8]) -> String? {
    let words = String(decoding: line, as: UTF8.self).split(separator: " ")
    guard line.starts(with: [0x20, 0x20, 0x23]), words.count == 2, words[1].hasPrefix("0x"),
      let address = UInt64(words[1].dropFirst(2), radix: 16),
      let file = try? MappedFile(descriptor: image, Path("the image"))
    else { return nil }
    defer { file.keepAlive() }
    guard let symbol = SymbolTable(file.bytes)?.name(of: address) else { return nil }
    var parts: [String] = []
    symbol.forEachPart { text, count in
      parts.append(String(decoding: UnsafeBufferPointer(start: text, count: count), as: UTF8.self))
    }
    let mangled = String(
      decoding: UnsafeBufferPointer(start: symbol.text, count: symbol.count), as: UTF8.self)
    return parts.isEmpty ? mangled : parts.joined(separator: ".") + " " + mangled
  }
}
