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
  /// CAP_SYS_PTRACE
  public static var trace: UInt64 { 1 << 19 }
  /// CAP_SYS_ADMIN
  public static var administration: UInt64 { 1 << 21 }
  public static var auditControl: UInt64 { 1 << 30 }
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

  /// Transformation of capabilities during execve(2); `file` are the program file's own.
  public mutating func execute(_ credentials: ProcessCredentials, file: FileCapabilities? = nil) {
    if credentials.effectiveUser == 0 || credentials.realUser == 0 {
      permitted = inheritable | bounding
      effective = credentials.effectiveUser == 0 ? permitted : 0
    } else if let file {
      ambient = 0
      permitted = inheritable & file.inheritable | file.permitted & bounding
      effective = file.isEffective ? permitted : 0
    } else {
      permitted = ambient
      effective = ambient
    }
    isKept = false
  }
}

/// What a program's file gives who executes it: security.capability (struct vfs_cap_data, linux/capability.h).
public struct FileCapabilities: Equatable {
  public var permitted: UInt64
  public var inheritable: UInt64
  /// Permitted ones are effective at once.
  public var isEffective: Bool

  /// Nil for what is damaged, or meant for another user namespace's root.
  public init?(_ value: [UInt8]) {
    func word(_ index: Int) -> UInt64 {
      var result: UInt64 = 0
      for i in 0..<4 { result |= UInt64(value[index * 4 + i]) << UInt64(8 * i) }
      return result
    }
    guard value.count >= 12 else { return nil }
    let (revision, size) = (word(0) >> 24, value.count)
    guard revision == 1 && size == 12 || revision == 2 && size == 20 || revision == 3 && size == 24,
      revision < 3 || word(5) == 0
    else { return nil }
    isEffective = word(0) & 1 != 0
    permitted = word(1) | (revision > 1 ? word(3) << 32 : 0)
    inheritable = word(2) | (revision > 1 ? word(4) << 32 : 0)
    permitted &= Capabilities.all
    inheritable &= Capabilities.all
  }
}
