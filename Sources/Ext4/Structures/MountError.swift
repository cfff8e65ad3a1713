public import ABI

/// Why a device was not mounted.
public struct MountError: Error {
  public let errno: Errno
  /// For people: the feature or the structure at fault.
  public let reason: StaticString

  public init(_ errno: Errno, _ reason: StaticString) {
    self.errno = errno
    self.reason = reason
  }
}
