import Testing

@testable import Processes

@Suite("Executable memory under a guard")
struct CodeTests {
  private static let all: ForbiddenInstructions = [.writeKeys, .writeGSBase, .restoreState]
  /// Padding, so that nothing is cut off.
  private func padded(_ code: [UInt8]) -> [UInt8] {
    [UInt8](repeating: 0x90, count: 16) + code + [UInt8](repeating: 0x90, count: 32)
  }

  @Test(
    "Forbidden instructions are found at whatever byte they begin",
    arguments: [
      [0x0f, 0x01, 0xef],  // wrpkru
      [0xbb, 0x0f, 0x01, 0xef, 0x90],  // inside a constant
      [0x2e, 0x48, 0x0f, 0x01, 0xef],  // with prefixes
      [0xf3, 0x48, 0x0f, 0xae, 0xd8],  // wrgsbase %rax
      [0xf3, 0x0f, 0xae, 0xdf], [0xf3, 0x2e, 0x41, 0x0f, 0xae, 0xdb],
      [0x0f, 0xae, 0x2f], [0x48, 0x0f, 0xae, 0x6c, 0x24, 0x40], [0x0f, 0xae, 0xad, 0, 0, 0, 0],  // xrstor
    ] as [[UInt8]])
  func found(code: [UInt8]) {
    #expect(CodeTests.all.first(in: padded(code), from: 0) != nil)
  }

  @Test(
    "What is near to them is not",
    arguments: [
      [0x0f, 0x01, 0xee],  // rdpkru
      [0x58, 0x0f, 0xae, 0xdc],  // no F3 before: no wrgsbase
      // lfence, mfence, xsave, fxrstor
      [0x0f, 0xae, 0xe8], [0x0f, 0xae, 0xf0], [0x0f, 0xae, 0x27], [0x0f, 0xae, 0x0f],
      [0xf3, 0x48, 0x0f, 0xae, 0xd0],  // wrfsbase
    ] as [[UInt8]])
  func notFound(code: [UInt8]) {
    #expect(CodeTests.all.first(in: padded(code), from: 0) == nil)
  }

  @Test("An XRSTOR is let be when a check of its mask follows, and only then")
  func checkedRestore() {
    let tail = ForbiddenInstructions.checkedRestoreTail(jump: [0xe9, 1, 2, 3, 4])
    #expect(CodeTests.all.first(in: padded([0x0f, 0xae, 0x6c, 0x24, 0x40] + tail), from: 0) == nil)
    for index in tail.indices where !(8...11).contains(index) {
      var broken = tail
      broken[index] ^= 0x11
      #expect(CodeTests.all.first(in: padded([0x0f, 0xae, 0x6c, 0x24, 0x40] + broken), from: 0) != nil)
    }
  }

  @Test(
    "Lengths of instructions",
    arguments: [
      ([0x90], 1), ([0xc3], 1), ([0x48, 0x89, 0xe5], 3), ([0xe8, 1, 2, 3, 4], 5), ([0x74, 0x0f], 2),
      ([0x41, 0xc1, 0xc7, 0x0f], 4), ([0x48, 0x8d, 0x3d, 1, 2, 3, 4], 7),
      ([0xf2, 0x0f, 0x10, 0x0d, 1, 2, 3, 4], 8),
      ([0x48, 0xb9, 1, 2, 3, 4, 5, 6, 7, 8], 10), ([0x66, 0xb8, 1, 2], 4), ([0x66, 0x81, 0xc1, 1, 2], 5),
      ([0xc7, 0x44, 0x24, 4, 1, 2, 3, 4], 8), ([0xf6, 0xc1, 1], 3), ([0xf6, 0xd1], 2),
      ([0xf7, 0x05, 1, 2, 3, 4, 5, 6, 7, 8], 10),
      ([0x0f, 0x84, 1, 2, 3, 4], 6), ([0x0f, 0xba, 0xe0, 1], 4), ([0x66, 0x0f, 0x3a, 0x0f, 0xc1, 8], 6),
      ([0x66, 0x0f, 0x38, 0x00, 0xc1], 5), ([0xc5, 0xf8, 0x77], 3),
      ([0xc5, 0xfd, 0x6f, 0x05, 1, 2, 3, 4], 8),
      ([0xc4, 0xe3, 0x7d, 0x19, 0xc1, 1], 6), ([0x62, 0xf1, 0x7c, 0x48, 0x10, 0x00], 6),
      ([0xc8, 1, 2, 3], 4),
      ([0x8b, 0x04, 0x25, 1, 2, 3, 4], 7), ([0x8b, 0x44, 0x8b, 1], 4),
      ([0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0], 9),
      ([0xf3, 0x0f, 0x1e, 0xfa], 4), ([0xd9, 0x7d, 0xfe], 3), ([0xff, 0x25, 1, 2, 3, 4], 6),
      ([0x0f, 0x05], 2),
    ] as [([UInt8], Int)])
  func lengths(code: [UInt8], length: Int) {
    #expect(Instruction(padded(code), at: 16)?.length == length)
  }

  @Test("Code that is moved does what it did: distances, return addresses")
  func moved() throws {
    func moved(_ code: [UInt8]) throws -> [UInt8]? {
      try #require(Instruction(padded(code), at: 16)).moved(code, from: 0x1_0000_1000, to: 0x1_0000_2000)
    }
    #expect(try moved([0x41, 0xc1, 0xc7, 0x0f]) == [0x41, 0xc1, 0xc7, 0x0f])
    // lea 0x100(%rip), %rdi at 0x1000: 0x1107, which is 0xf00 before 0x2007
    #expect(try moved([0x48, 0x8d, 0x3d, 0, 1, 0, 0]) == [0x48, 0x8d, 0x3d, 0, 0xf1, 0xff, 0xff])
    // je +15: 0x1011, which is 0xff5 before 0x2006
    #expect(try moved([0x74, 0x0f]) == [0x0f, 0x84, 0x0b, 0xf0, 0xff, 0xff])
    // call: the return address 0x1_0000_1005 is pushed
    #expect(
      try moved([0xe8, 0, 0, 0, 0]) == [
        0x68, 5, 0x10, 0, 0, 0xc7, 0x44, 0x24, 4, 1, 0, 0, 0, 0xe9, 0xf3, 0xef, 0xff, 0xff,
      ])
    #expect(try moved([0xe3, 0x10]) == nil)  // jrcxz has no long form
  }

  @Test("The instruction around a byte is the one that all ways lead to")
  func around() throws {
    // nettle's: rol $15, %r15d; add %ebp, %edi: wrpkru across both
    let code: [UInt8] =
      [UInt8](repeating: 0x90, count: 40) + [0x41, 0xc1, 0xc7, 0x0f, 0x01, 0xef]
      + [UInt8](repeating: 0x90, count: 32)
    let found = try #require(Instruction.around(43, in: code, from: 0))
    #expect(found.start == 40)
    #expect(found.instruction.length == 4)
  }

  @Test("A fault that comes back and back is told from one that makes progress")
  func repeated() {
    var faults = RepeatedFaults()
    var progresses = true
    for page in 0..<10_000 as Range<UInt> where !faults.isNew(1, page << 12) { progresses = false }
    #expect(progresses)
    var isNew = true
    for i in 0..<200 as Range<UInt> { isNew = faults.isNew(2, i & 1) }
    #expect(!isNew)
  }
}
