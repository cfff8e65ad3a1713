/// A virtio-mmio device as the kernel command line names it.
public struct DeviceParameter: Equatable {
  /// Bytes of registers.
  public var size: UInt64
  /// Physical address.
  public var base: UInt64
  public var interrupt: UInt64

  public init(size: UInt64, base: UInt64, interrupt: UInt64) {
    self.size = size
    self.base = base
    self.interrupt = interrupt
  }
}

/// The `virtio_mmio.device=SIZE@BASE:INTERRUPT[:ID]` parameters of a kernel command line, as Firecracker and QEMU's
/// microvm pass them (Linux, Documentation/admin-guide/kernel-parameters.txt). Numbers are decimal, octal with 0 or
/// hexadecimal with 0x; K, M and G multiply the size. What is not understood is passed over.
public struct DeviceParameters {
  private let text: UnsafeRawBufferPointer
  private var position = 0

  public init(_ text: UnsafeRawBufferPointer) { self.text = text }

  /// The next device; nil at the end.
  public mutating func next() -> DeviceParameter? {
    while let word = nextWord() {
      // Everything behind "--" is for the first program.
      if word.count == 2, word.first == 0x2d, word.last == 0x2d { position = text.count }
      if let device = DeviceParameters.parse(UnsafeRawBufferPointer(rebasing: word)) { return device }
    }
    return nil
  }

  private mutating func nextWord() -> Slice<UnsafeRawBufferPointer>? {
    while position < text.count, isBlank(text[position]) { position += 1 }
    let start = position
    while position < text.count, !isBlank(text[position]) { position += 1 }
    return start < position ? text[start..<position] : nil
  }

  private func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 || byte == 0x0a }

  private static func parse(_ word: UnsafeRawBufferPointer) -> DeviceParameter? {
    let key: StaticString = "virtio_mmio.device="
    guard word.count > key.utf8CodeUnitCount else { return nil }
    for i in 0..<key.utf8CodeUnitCount {
      // Linux takes dashes for underscores in names.
      let byte = word[i] == 0x2d ? 0x5f : word[i]
      if byte != key.utf8Start[i] { return nil }
    }
    var at = key.utf8CodeUnitCount
    guard var size = number(word, &at) else { return nil }
    if at < word.count, let shift = unit(word[at]) {
      guard size <= UInt64.max >> shift else { return nil }
      size <<= shift
      at += 1
    }
    guard at < word.count, word[at] == 0x40 else { return nil }
    at += 1
    guard let base = number(word, &at), at < word.count, word[at] == 0x3a else { return nil }
    at += 1
    guard let interrupt = number(word, &at), at == word.count || word[at] == 0x3a else { return nil }
    return DeviceParameter(size: size, base: base, interrupt: interrupt)
  }

  private static func unit(_ byte: UInt8) -> UInt64? {
    switch byte | 0x20 {
    case 0x6b: 10
    case 0x6d: 20
    case 0x67: 30
    default: nil
    }
  }

  private static func number(_ word: UnsafeRawBufferPointer, _ at: inout Int) -> UInt64? {
    var radix: UInt64 = 10
    if at + 2 < word.count, word[at] == 0x30, word[at + 1] | 0x20 == 0x78 {
      radix = 16
      at += 2
    } else if at + 1 < word.count, word[at] == 0x30 {
      radix = 8
    }
    let start = at
    var value: UInt64 = 0
    while at < word.count, let digit = digit(word[at]), digit < radix {
      let (product, tooLarge) = value.multipliedReportingOverflow(by: radix)
      let (sum, overflow) = product.addingReportingOverflow(digit)
      if tooLarge || overflow { return nil }
      value = sum
      at += 1
    }
    return at > start ? value : nil
  }

  private static func digit(_ byte: UInt8) -> UInt64? {
    switch byte {
    case 0x30...0x39: UInt64(byte - 0x30)
    case 0x41...0x46: UInt64(byte - 0x41 + 10)
    case 0x61...0x66: UInt64(byte - 0x61 + 10)
    default: nil
    }
  }
}
