import Image
import Testing

private func parseManifest(_ text: String) throws -> Manifest {
  try bytes(text).withUnsafeBytes { try Manifest(parsing: $0) }
}

private func parseOptions(_ text: [UInt8]) throws -> LaunchOptions {
  try text.withUnsafeBytes { try LaunchOptions(parsing: $0) }
}

@Suite("The manifest and the launch record")
struct ManifestTests {
  @Test("A manifest survives its text")
  func manifestRoundTrip() throws {
    let text = String(decoding: sampleManifest().serialise(), as: UTF8.self)
    #expect(try parseManifest(text) == sampleManifest())
    #expect(text.contains("program /bin/pro%20gram\n"))
    #expect(text.contains("arg 100%25%20%C3%BC%0A\n"))
    #expect(text.contains("arg \n"))
  }

  @Test(
    "A malformed manifest is refused",
    arguments: [
      ("", ImageError.missingProgram), ("program /a\n", .missingProgram), ("arg a\n", .missingProgram),
      ("program a\narg a\n", .missingProgram), ("program /a", .missingValue), ("program\n", .missingValue),
      ("\n", .missingValue), (" x\n", .missingValue), ("colour red\n", .unknownKey),
      ("program /a\nprogram /a\n", .duplicateKey), ("arg %\n", .invalidEncoding),
      ("arg %0\n", .invalidEncoding),
      ("arg %00\n", .invalidEncoding), ("arg %zz\n", .invalidEncoding), ("arg a b\n", .invalidEncoding),
      ("arg ü\n", .invalidEncoding), ("memory 1k\n", .invalidNumber), ("memory -1\n", .invalidNumber),
      ("memory 99999999999999999999\n", .invalidNumber), ("memory \n", .invalidNumber),
      ("user 1\n", .invalidNumber), ("user 1:4294967295\n", .invalidNumber), ("workdir a\n", .invalidPath),
      ("env A\n", .missingValue), ("env =A\n", .missingValue), ("isolation strong\n", .unknownKey),
    ])
  func malformedManifest(text: String, error: ImageError) {
    #expect(throws: error) { try parseManifest(text) }
  }

  @Test("A launch record survives its text")
  func optionsRoundTrip() throws {
    var options = LaunchOptions()
    #expect(try parseOptions(options.serialise()) == options)
    options.program = bytes("/p")
    options.arguments = [bytes("a"), bytes("b c")]
    options.environment = [bytes("K=V")]
    options.workingDirectory = bytes("/w")
    options.user = UserIdentity(uid: 1, gid: 2)
    options.memory = 1 << 30
    options.processes = 4
    options.isolation = Isolation.none
    options.network = .tap
    options.networkDescriptor = 7
    options.networkOffloads = true
    options.hardwareAddress = [2, 0xab, 3, 4, 5, 0xff]
    options.address = IPv4Address(value: 0x0a00_020f)
    options.prefixLength = 16
    options.gateway = IPv4Address(value: 0xffff_ffff)
    options.nameservers = [IPv4Address(value: 0), IPv4Address(value: 0x0102_0304)]
    options.hostname = bytes("h")
    options.terminal = true
    options.trace = .systemCalls
    #expect(try parseOptions(options.serialise()) == options)
  }

  @Test(
    "A malformed launch record is refused",
    arguments: [
      ("network stream\n", ImageError.missingValue), ("network wifi\n", .unknownKey),
      ("network-fd 4294967296\n", .invalidNumber), ("mac 02:00:00:00:00\n", .invalidAddress),
      ("mac 02-00-00-00-00-00\n", .invalidAddress), ("address 10.0.2.15\n", .invalidAddress),
      ("address 10.0.2.15/33\n", .invalidNumber), ("address 10.0.2.256/8\n", .invalidAddress),
      ("gateway 10.0.2\n", .invalidAddress), ("gateway 10.0.2.1.\n", .invalidAddress),
      ("gateway 1.2.3.4.5\n", .invalidAddress), ("gateway ...\n", .invalidAddress),
      ("gateway \n", .invalidAddress),
      ("terminal 2\n", .invalidNumber), ("trace all\n", .unknownKey), ("hostname \n", .missingValue),
      ("terminal 0\nterminal 0\n", .duplicateKey), ("x y\n", .unknownKey),
    ])
  func malformedOptions(text: String, error: ImageError) {
    #expect(throws: error) { try parseOptions(bytes(text)) }
  }

  @Test("A launch record replaces arguments and variables of the manifest and keeps the rest")
  func overrides() {
    var options = LaunchOptions()
    #expect(options.applied(to: sampleManifest()) == sampleManifest())
    options.arguments = [bytes("x")]
    options.environment = [bytes("A=new"), bytes("AB=1")]
    options.memory = 1
    let result = options.applied(to: sampleManifest())
    #expect(result.arguments == [bytes("x")])
    #expect(result.environment == [bytes("A=new"), bytes("EMPTY="), bytes("AB=1")])
    #expect(result.memory == 1)
    #expect(result.program == sampleManifest().program)
  }

  @Test("Random text never traps the parsers")
  func fuzz() {
    var generator = SeededGenerator(seed: 2)
    let words = [
      "program", "arg", "address", "mac", "gateway", "user", "env", " ", "%", "\n", "1", ".", ":", "/", "ü",
    ]
    for _ in 0..<3000 {
      var text = ""
      for _ in 0..<8 { text += words.randomElement(using: &generator) ?? "" }
      _ = try? parseManifest(text)
      _ = try? parseOptions(bytes(text))
    }
  }
}
