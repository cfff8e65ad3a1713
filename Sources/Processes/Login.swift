/// Who logged in, for records (proc(5), /proc/PID/loginuid and sessionid): set once by what lets a user in, handed on to
/// everything that is started from there.
public struct Login {
  public private(set) var user = Login.none
  public private(set) var session = Login.none

  /// Nobody has.
  public static var none: UInt32 { .max }
  nonisolated(unsafe) private static var lastSession: UInt32 = 0

  public init() {}

  /// A login of `user` begins, or the login is forgotten.
  public mutating func change(to user: UInt32) {
    self.user = user
    session = Login.none
    if user == Login.none { return }
    Login.lastSession &+= 1
    if Login.lastSession == Login.none { Login.lastSession = 1 }
    session = Login.lastSession
  }
}
