/// /etc/ld.so.cache in the format glibc writes since 2.2, alone or after the older table.
struct LibraryCache {
  private var paths: [Path: Path] = [:]

  /// No file or a damaged one is an empty cache, as for ld.so(8).
  init(_ bytes: UnsafeRawBufferPointer) {
    guard let start = LibraryCache.findHeader(bytes) else { return }
    let cache = UnsafeRawBufferPointer(rebasing: bytes[start...])
    let count = Int(LibraryCache.load32(cache, 20))
    // Header 48 bytes, entries 24: flags, key, value, OS version, hardware capabilities.
    guard count <= (cache.count - 48) / 24 else { return }
    for index in 0..<count {
      let entry = 48 + index * 24
      // 0x0303: FLAG_X8664_LIB64 | FLAG_ELF_LIBC6. Entries for hardware capabilities have a plain twin.
      guard LibraryCache.load32(cache, entry) == 0x0303,
        cache.loadUnaligned(fromByteOffset: entry + 16, as: UInt64.self) == 0
      else { continue }
      let name = LibraryCache.string(cache, Int(LibraryCache.load32(cache, entry + 4)))
      if paths[name] == nil {
        paths[name] = LibraryCache.string(cache, Int(LibraryCache.load32(cache, entry + 8)))
      }
    }
  }

  func path(of name: Path) -> Path? { paths[name] }

  private static func findHeader(_ bytes: UnsafeRawBufferPointer) -> Int? {
    if isHeader(bytes, 0) { return 0 }
    // Old table: "ld.so-1.7.0", then at 12 the number of 12-byte entries; the new one follows, 8-byte
    // aligned.
    guard bytes.count >= 16, bytes.starts(with: "ld.so-1.7.0".utf8) else { return nil }
    let start = (16 + Int(load32(bytes, 12)) * 12 + 7) & ~7
    return isHeader(bytes, start) ? start : nil
  }

  private static func isHeader(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Bool {
    bytes.count - start >= 48 && bytes[start...].starts(with: "glibc-ld.so.cache1.1".utf8)
  }

  private static func load32(_ bytes: UnsafeRawBufferPointer, _ offset: Int) -> UInt32 {
    bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
  }

  private static func string(_ bytes: UnsafeRawBufferPointer, _ offset: Int) -> Path {
    guard offset < bytes.count else { return [] }
    return Path(bytes[offset...].prefix { $0 != 0 })
  }
}
