import Image
import Testing

@Suite("The image reader")
struct ImageReaderTests {
  @Test("What the layout writes, the reader reads")
  func roundTrip() throws {
    let fixture = ImageFixture()
    try fixture.image.withUnsafeBytes { buffer in
      let reader = try ImageReader(buffer)
      #expect(reader.manifest == sampleManifest())
      #expect(reader.rootOffset == 4096 && reader.root.count == 64 << 10)
      #expect(reader.root[0] == 42)
    }
  }

  @Test("An image cut off anywhere is refused")
  func truncation() throws {
    let whole = ImageFixture()
    for length in stride(from: 0, to: whole.image.count, by: 61) {
      var fixture = whole
      fixture.image.removeLast(fixture.image.count - length)
      #expect(throws: ImageError.self) { try fixture.read() }
    }
  }

  @Test(
    "A wrong field of the trailer is refused",
    arguments: [
      (0, 0, ImageError.notAnImage), (8, 3, .unsupportedVersion), (8, 2 | 1 << 32, .unknownFlags),
      (16, 1, .misalignedSection), (16, 1 << 40, .sectionOutOfBounds),
      (16, UInt64.max << 12, .sectionOutOfBounds),
      (24, UInt64.max, .misalignedSection), (24, UInt64.max << 12, .sectionOutOfBounds),
      (32, 0, .sectionOutOfBounds), (32, UInt64.max, .sectionOutOfBounds),
      (40, UInt64.max, .sectionOutOfBounds), (48, 0, .wrongChecksum), (56, 1, .unknownFlags),
      (24, 0, .missingRoot), (24, 4096, .missingRoot),
    ] as [(Int, UInt64, ImageError)])
  func trailer(field: Int, value: UInt64, error: ImageError) throws {
    var fixture = ImageFixture()
    fixture.set(fixture.trailer + field, value)
    #expect(throws: error) { try fixture.read() }
  }

  @Test("Random damage never traps, whether or not the checksum is repaired")
  func fuzz() throws {
    let whole = ImageFixture()
    var generator = SeededGenerator(seed: 1)
    let tail = Int(whole.get(whole.trailer + 32))..<whole.image.count
    for round in 0..<4000 {
      var fixture = whole
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        let offset = tail.randomElement(using: &generator) ?? 0
        fixture.image[offset] = UInt8.random(in: 0...255, using: &generator)
      }
      let isRepairable =
        fixture.get(fixture.trailer + 32) < fixture.image.count
        && fixture.get(fixture.trailer + 40) < 200
        && fixture.get(fixture.trailer + 32) + 200 < fixture.image.count
      if round % 2 == 0 && isRepairable { fixture.repairChecksum() }
      _ = try? fixture.read()
    }
  }

  @Test("A layer's header is read as it was written; damage, a cut file and other files are refused")
  func layerHeader() throws {
    var header = LayerHeader(identity: Array(0..<16), lowerBlocks: 40_000, blocks: 100_000)
    header.isReady = true
    func parse(_ bytes: [UInt8], _ length: UInt64) throws -> LayerHeader {
      try bytes.withUnsafeBytes { try LayerHeader(parsing: $0, fileLength: length) }
    }
    let bytes = header.serialise()
    #expect(bytes.count == 512 && header.dataOffset == 3 * 4096)
    #expect(try parse(bytes, header.fileLength) == header)
    #expect(throws: ImageError.sectionOutOfBounds) { try parse(bytes, header.fileLength - 1) }
    #expect(throws: ImageError.notALayer) { try parse(Array(bytes[..<511]), header.fileLength) }
    #expect(throws: ImageError.notALayer) { try parse([UInt8](repeating: 0, count: 512), 1 << 40) }
    for offset in 0..<56 {
      var damaged = bytes
      damaged[offset] ^= 0x10
      #expect(throws: ImageError.self) { try parse(damaged, header.fileLength) }
    }
  }
}
