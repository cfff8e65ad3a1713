/// The capability sets of a process (capabilities(7)): kept, inherited and reported as Linux does. They
/// decide who may change ids; all else that a process may do is decided by its effective user id.
public struct Capabilities {
  public var effective = Capabilities.all
  public var permitted = Capabilities.all
  public var inheritable: UInt64 = 0
  public var bounding = Capabilities.all
  public var ambient: UInt64 = 0
  /// PR_SET_KEEPCAPS
  public var isKept = false
  public var secureBits: UInt32 = 0

  public init() {}
  /// CAP_LAST_CAP of Linux 6.1 is 40.
  public static var lastNumber: UInt { 40 }
  public static var setGroup: UInt64 { 1 << 6 }
  public static var setUser: UInt64 { 1 << 7 }
  /// CAP_SYS_ADMIN
  public static var administration: UInt64 { 1 << 21 }
  public static var all: UInt64 { (1 << 41) - 1 }

  /// Effect of user id changes on capabilities.
  public mutating func change(from old: ProcessCredentials, to new: ProcessCredentials) {
    let hadRoot = old.realUser == 0 || old.effectiveUser == 0 || old.savedUser == 0
    let hasRoot = new.realUser == 0 || new.effectiveUser == 0 || new.savedUser == 0
    if hadRoot, !hasRoot {
      if !isKept { permitted = 0 }
      effective = 0
      ambient = 0
    }
    if old.effectiveUser == 0, new.effectiveUser != 0 { effective = 0 }
    if old.effectiveUser != 0, new.effectiveUser == 0 { effective = permitted }
  }

  /// Transformation of capabilities during execve(2), for files without capabilities of their own.
  public mutating func execute(_ credentials: ProcessCredentials) {
    if credentials.effectiveUser == 0 || credentials.realUser == 0 {
      permitted = inheritable | bounding
      effective = credentials.effectiveUser == 0 ? permitted : 0
    } else {
      permitted = ambient
      effective = ambient
    }
    isKept = false
  }
}
