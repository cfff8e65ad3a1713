import Glibc
import Image
import ImageBuilder
import Testing

@Suite("The root file system of an image")
struct RootFileSystemTests {
  /// A tree with every kind of file that needs no privilege to make.
  private func makeTree(_ directory: TemporaryDirectory) throws -> String {
    let tree = directory.path + "/tree"
    for name in ["", "/many", "/deep", "/deep/er"] { mkdir(tree + name, 0o755) }
    for index in 0..<700 {
      try directory.write("tree/many/a name that takes some room \(index)", bytes("\(index)"), mode: 0o640)
    }
    var big = [UInt8](repeating: 0, count: 3 << 20)
    for index in 0..<big.count { big[index] = UInt8(truncatingIfNeeded: index &* 7 &+ index >> 12) }
    try directory.write("tree/deep/er/big", big, mode: 0o4755)
    let sparse = open(tree + "/sparse", O_RDWR | O_CREAT, 0o600)
    pwrite(sparse, "end", 3, 40 << 20)
    close(sparse)
    link(tree + "/deep/er/big", tree + "/again")
    symlink(String(repeating: "x", count: 100), tree + "/long link")
    symlink("deep", tree + "/link")
    mkfifo(tree + "/fifo", 0o600)
    return tree
  }

  private func root(_ directory: TemporaryDirectory, _ name: String, _ tree: String) throws -> [UInt8] {
    let outcome = try runProcess(
      [
        swiftletPath(), "build", "-o", "\(directory.path)/\(name)", "--add", "\(tree):/tree", "env",
      ], environment: ["SWIFTLET_LIBOS=/bin/true"])
    #expect(outcome.status == 0, "\(outcome.errors)")
    return try directory.read(name).withUnsafeBytes { Array(try ImageReader($0).root) }
  }

  @Test("e2fsck finds nothing wrong, and the files are what they were")
  func files() throws {
    let directory = try TemporaryDirectory()
    let tree = try makeTree(directory)
    let bytes = try root(directory, "image", tree)
    #expect(bytes.count < 20 << 20)
    let file = try directory.write("root", bytes)
    let check = try runProcess(["/usr/sbin/e2fsck", "-fn", file], environment: [])
    #expect(check.status == 0, "\(check.output)")
    mkdir(directory.path + "/out", 0o755)
    let dump = try runProcess(
      ["/usr/sbin/debugfs", "-R", "rdump tree \(directory.path)/out", file], environment: [])
    #expect(dump.status == 0)
    let difference = try runProcess(
      ["/usr/bin/diff", "-r", "--no-dereference", tree, directory.path + "/out/tree"], environment: [])
    #expect(difference.status == 0 || difference.output.contains("fifo"), "\(difference.output)")
    let status = try runProcess(
      ["/usr/sbin/debugfs", "-R", "stat /tree/again", file], environment: []
    ).output
    #expect(status.contains("Mode:  04755") && status.contains("Links: 2"), "\(status)")
  }

  @Test("Equal files give equal bytes; other files another identity")
  func reproducible() throws {
    let directory = try TemporaryDirectory()
    let tree = try makeTree(directory)
    let first = try root(directory, "first", tree)
    let second = try root(directory, "second", tree)
    #expect(first == second)
    try directory.write("tree/many/a name that takes some room 8", bytes("9"), mode: 0o640)
    let third = try root(directory, "third", tree)
    // s_uuid
    #expect(first[1128..<1144] != third[1128..<1144])
  }
}
