import Image
import Testing

@Suite("The image reader")
struct ImageReaderTests {
  @Test("What the layout writes, the reader reads")
  func roundTrip() throws {
    let fixture = try ImageFixture()
    try fixture.image.withUnsafeBytes { buffer in
      let reader = try ImageReader(buffer)
      #expect(reader.manifest == sampleManifest())
      #expect(reader.entryCount == 7)
      let program = reader.entry(2)
      #expect(Array(program.path) == bytes("bin/pro gram"))
      #expect(program.mode == 0o100755 && program.uid == 1 && program.gid == 2)
      #expect(program.mtimeSeconds == 3 && program.mtimeNanoseconds == 4)
      #expect(program.data.count == 5000 && program.data[257] == 1)
      #expect(Array(reader.entry(3).data) == bytes("pro gram"))
      #expect(reader.entry(4).hardLinkIndex == 2)
      #expect(reader.entry(5).rdev == 0x103)
      #expect(reader.entry(6).data.isEmpty)
    }
  }

  @Test("An image cut off anywhere is refused")
  func truncation() throws {
    let whole = try ImageFixture()
    for length in stride(from: 0, to: whole.image.count, by: 61) {
      var fixture = whole
      fixture.image.removeLast(fixture.image.count - length)
      #expect(throws: ImageError.self) { try fixture.read() }
    }
  }

  @Test(
    "A wrong field of the trailer is refused",
    arguments: [
      (0, 0, ImageError.notAnImage), (8, 2, .unsupportedVersion), (8, 1 | 1 << 32, .unknownFlags),
      (16, 1, .misalignedSection), (16, 1 << 40, .sectionOutOfBounds),
      (16, UInt64.max << 12, .sectionOutOfBounds),
      (24, UInt64.max, .sectionOutOfBounds), (32, 0, .sectionOutOfBounds),
      (32, UInt64.max, .sectionOutOfBounds),
      (40, UInt64.max, .sectionOutOfBounds), (48, 0, .wrongChecksum), (56, 1, .unknownFlags),
      (24, 16, .notAnArchive), (16, 0, .notAnArchive),
    ] as [(Int, UInt64, ImageError)])
  func trailer(field: Int, value: UInt64, error: ImageError) throws {
    var fixture = try ImageFixture()
    fixture.set(fixture.trailer + field, value)
    #expect(throws: error) { try fixture.read() }
  }

  @Test(
    "A wrong field of an index record is refused",
    arguments: [
      // record, offset in it, width, value
      (2, 0, 4, 1 << 31, ImageError.pathOutOfBounds), (2, 4, 4, 0xffff_ffff, .pathOutOfBounds),
      (2, 4, 4, 0, .invalidPath), (0, 4, 4, 3, .missingRoot), (0, 8, 4, 0o100644, .missingRoot),
      (1, 8, 4, 0o100755, .missingParent), (2, 8, 4, 0o150644, .invalidFileType),
      (2, 8, 4, 1 << 20, .invalidFileType), (2, 8, 4, 0o040755, .unexpectedData),
      (2, 24, 8, UInt64.max, .invalidTimestamp), (2, 52, 4, 1_000_000_000, .invalidTimestamp),
      (2, 32, 8, 4097, .misalignedData), (2, 32, 8, UInt64.max, .dataOutOfBounds),
      (2, 40, 8, UInt64.max, .dataOutOfBounds), (3, 40, 8, 0, .emptySymbolicLink),
      (4, 48, 4, 4, .invalidHardLink), (4, 48, 4, 6, .invalidHardLink), (4, 48, 4, 1, .invalidHardLink),
      (4, 48, 4, 3, .invalidHardLink), (4, 40, 8, 1, .invalidHardLink), (2, 56, 8, 1, .invalidTimestamp),
      (0, 48, 4, 0, .invalidHardLink),
    ] as [(Int, Int, Int, UInt64, ImageError)])
  func record(index: Int, field: Int, width: Int, value: UInt64, error: ImageError) throws {
    var fixture = try ImageFixture()
    fixture.set(fixture.archiveOffset + 32 + index * 64 + field, value, width: width)
    #expect(throws: ImageError.wrongChecksum) { try fixture.read() }
    fixture.repairChecksum()
    #expect(throws: error) { try fixture.read() }
  }

  @Test(
    "A path with an empty, . or .. component, a leading slash, a zero byte or a twin is refused",
    arguments: [
      "bin/../gram", "bin//ro gram", "/in/pro gram", "bin/pro gra\0", "bin/./o gram", "bin/pro gra/",
    ])
  func paths(path: String) throws {
    var fixture = try ImageFixture()
    let pool = fixture.archiveOffset + 32 + 7 * 64
    let text = bytes(path)
    fixture.image.replaceSubrange((pool + 3)..<(pool + 3 + text.count), with: text)
    fixture.repairChecksum()
    let error = #expect(throws: ImageError.self) { try fixture.read() }
    #expect(error == .invalidPath || path == "bin/../gram" && error == .missingParent)
  }

  @Test("Two entries of one path are refused")
  func duplicate() throws {
    var fixture = try ImageFixture()
    // Record 6 takes the path of record 5.
    let record = fixture.archiveOffset + 32 + 5 * 64
    fixture.set(record + 64, fixture.get(record))
    fixture.repairChecksum()
    #expect(throws: ImageError.duplicatePath) { try fixture.read() }
  }

  @Test("Too many entries and an index beyond the archive are refused")
  func archiveHeader() throws {
    var fixture = try ImageFixture()
    fixture.set(fixture.archiveOffset + 8, 0xffff_ffff, width: 4)
    #expect(throws: ImageError.tooManyEntries) { try fixture.read() }
    fixture = try ImageFixture()
    fixture.set(fixture.archiveOffset + 16, UInt64.max)
    #expect(throws: ImageError.indexOutOfBounds) { try fixture.read() }
    fixture = try ImageFixture()
    fixture.set(fixture.archiveOffset + 8, 0, width: 4)
    fixture.repairChecksum()
    #expect(throws: ImageError.missingRoot) { try fixture.read() }
  }

  @Test("Random damage never traps, whether or not the checksum is repaired")
  func fuzz() throws {
    let whole = try ImageFixture()
    var generator = SeededGenerator(seed: 1)
    let index = whole.archiveOffset..<(whole.archiveOffset + 600)
    for round in 0..<2000 {
      var fixture = whole
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        let isIndex = Bool.random(using: &generator)
        let offset =
          (isIndex ? index : fixture.trailer..<fixture.image.count).randomElement(using: &generator) ?? 0
        fixture.image[offset] = UInt8.random(in: 0...255, using: &generator)
      }
      let isRepairable =
        fixture.get(fixture.archiveOffset + 16) < 4000
        && fixture.get(fixture.trailer + 32) < fixture.image.count
        && fixture.get(fixture.trailer + 40) < 200
        && fixture.get(fixture.trailer + 32) + 200 < fixture.image.count
      if round % 2 == 0 && isRepairable { fixture.repairChecksum() }
      _ = try? fixture.read()
    }
  }
}
