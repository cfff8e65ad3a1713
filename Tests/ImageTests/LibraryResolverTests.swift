import Image
import ImageBuilder
import Testing

@Suite("The library resolver")
struct LibraryResolverTests {
  /// What the dynamic loader itself would load: the oracle.
  private func loaderList(_ program: String) throws -> Set<String> {
    let list = try runProcess(["/lib64/ld-linux-x86-64.so.2", "--list", program])
    var paths: Set<String> = []
    for line in list.output.split(separator: "\n") {
      if let word = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).first(where: { $0.hasPrefix("/") }
      ) {
        paths.insert(String(word))
      }
    }
    return paths
  }

  @Test(
    "It finds what the dynamic loader finds", arguments: ["/usr/bin/env", "/usr/bin/git", "/usr/bin/python3"])
  func sameAsLoader(program: String) throws {
    guard try FileTree().findProgramIfPresent(program) else { return }
    let found = try LibraryResolver(FileTree()).dependencies(of: Path(program)).map { $0.text }
    #expect(try Set(found) == loaderList(program))
    #expect(found.first == "/lib64/ld-linux-x86-64.so.2")
  }

  @Test("A program's damaged ELF file is refused wherever it is cut")
  func truncatedProgram() throws {
    let directory = try TemporaryDirectory()
    let whole = try MappedFile(Path("/usr/bin/env")).copy()
    for length in stride(from: 4, to: whole.count, by: whole.count / 50) {
      let file = try directory.write("cut", Array(whole[..<length]))
      #expect(throws: BuildError("\(file) is a truncated ELF file", exitStatus: 126)) {
        try LibraryResolver(FileTree()).dependencies(of: Path(file))
      }
    }
  }

  @Test("Random damage of an ELF file never traps")
  func fuzz() throws {
    let whole = try MappedFile(Path("/usr/bin/env")).copy()
    let elf = try whole.withUnsafeBytes { try ELFFile($0, name: []) }
    #expect(elf.needed == [Path("libc.so.6")])
    var generator = SeededGenerator(seed: 3)
    for _ in 0..<3000 {
      var damaged = whole
      for _ in 0..<4 {
        let offset = Int.random(in: 4..<1024, using: &generator)
        damaged[offset] = UInt8.random(in: 0...255, using: &generator)
      }
      damaged.withUnsafeBytes { _ = try? ELFFile($0, name: []) }
    }
  }
}

extension FileTree {
  fileprivate func findProgramIfPresent(_ path: String) throws -> Bool {
    (try? findProgram(Path(path), searching: [])) != nil
  }
}
