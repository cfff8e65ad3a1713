public import VFS

/// What uname(2) and /proc/sys/kernel tell of the system. Kernel lock held.
public enum SystemIdentity {
  /// Empty until start-up or sethostname(2) gives one.
  nonisolated(unsafe) public static var configuredHostName: [UInt8] = []

  public static var hostName: [UInt8] {
    configuredHostName.isEmpty ? bytes("swiftlet") : configuredHostName
  }
  public static var domainName: [UInt8] { bytes("(none)") }
  /// The oldest Linux whose behaviour programs may count on.
  public static var release: [UInt8] { bytes("6.1.0-swiftlet") }
  /// How programs are kept apart from the libOS; set at start.
  nonisolated(unsafe) public static var isolation: StaticString = "none"
  public static var version: [UInt8] { bytes("#1 SMP") }
}
