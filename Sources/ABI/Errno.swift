/// A Linux error number: the one error type that crosses the system-call boundary (errno(3), asm-generic/errno.h).
public struct Errno: Error, Equatable {
  public let rawValue: Int32

  @inlinable
  public init(rawValue: Int32) { self.rawValue = rawValue }
}

extension Errno {
  /// EPERM
  @inlinable public static var notPermitted: Errno { Errno(rawValue: 1) }
  /// ENOENT
  @inlinable public static var noSuchFile: Errno { Errno(rawValue: 2) }
  /// ESRCH
  @inlinable public static var noSuchProcess: Errno { Errno(rawValue: 3) }
  /// EINTR
  @inlinable public static var interrupted: Errno { Errno(rawValue: 4) }
  /// EIO
  @inlinable public static var inputOutput: Errno { Errno(rawValue: 5) }
  /// ENXIO
  @inlinable public static var noSuchDevice: Errno { Errno(rawValue: 6) }
  /// E2BIG
  @inlinable public static var argumentListTooLong: Errno { Errno(rawValue: 7) }
  /// ENOEXEC
  @inlinable public static var notExecutable: Errno { Errno(rawValue: 8) }
  /// EBADF
  @inlinable public static var badFileDescriptor: Errno { Errno(rawValue: 9) }
  /// ECHILD
  @inlinable public static var noChild: Errno { Errno(rawValue: 10) }
  /// EAGAIN
  @inlinable public static var again: Errno { Errno(rawValue: 11) }
  /// ENOMEM
  @inlinable public static var noMemory: Errno { Errno(rawValue: 12) }
  /// EACCES
  @inlinable public static var accessDenied: Errno { Errno(rawValue: 13) }
  /// EFAULT
  @inlinable public static var badAddress: Errno { Errno(rawValue: 14) }
  /// ENOTBLK
  @inlinable public static var notBlockDevice: Errno { Errno(rawValue: 15) }
  /// EBUSY
  @inlinable public static var busy: Errno { Errno(rawValue: 16) }
  /// EEXIST
  @inlinable public static var fileExists: Errno { Errno(rawValue: 17) }
  /// EXDEV
  @inlinable public static var crossDevice: Errno { Errno(rawValue: 18) }
  /// ENODEV
  @inlinable public static var operationNotOnDevice: Errno { Errno(rawValue: 19) }
  /// ENOTDIR
  @inlinable public static var notDirectory: Errno { Errno(rawValue: 20) }
  /// EISDIR
  @inlinable public static var isDirectory: Errno { Errno(rawValue: 21) }
  /// EINVAL
  @inlinable public static var invalid: Errno { Errno(rawValue: 22) }
  /// ENFILE
  @inlinable public static var tooManyFilesInSystem: Errno { Errno(rawValue: 23) }
  /// EMFILE
  @inlinable public static var tooManyFiles: Errno { Errno(rawValue: 24) }
  /// ENOTTY
  @inlinable public static var notTerminal: Errno { Errno(rawValue: 25) }
  /// ETXTBSY
  @inlinable public static var textBusy: Errno { Errno(rawValue: 26) }
  /// EFBIG
  @inlinable public static var fileTooLarge: Errno { Errno(rawValue: 27) }
  /// ENOSPC
  @inlinable public static var noSpace: Errno { Errno(rawValue: 28) }
  /// ESPIPE
  @inlinable public static var illegalSeek: Errno { Errno(rawValue: 29) }
  /// EROFS
  @inlinable public static var readOnlyFileSystem: Errno { Errno(rawValue: 30) }
  /// EMLINK
  @inlinable public static var tooManyLinks: Errno { Errno(rawValue: 31) }
  /// EPIPE
  @inlinable public static var brokenPipe: Errno { Errno(rawValue: 32) }
  /// EDOM
  @inlinable public static var domain: Errno { Errno(rawValue: 33) }
  /// ERANGE
  @inlinable public static var outOfRange: Errno { Errno(rawValue: 34) }
  /// EDEADLK
  @inlinable public static var deadlock: Errno { Errno(rawValue: 35) }
  /// ENAMETOOLONG
  @inlinable public static var nameTooLong: Errno { Errno(rawValue: 36) }
  /// ENOLCK
  @inlinable public static var noLocks: Errno { Errno(rawValue: 37) }
  /// ENOSYS
  @inlinable public static var notImplemented: Errno { Errno(rawValue: 38) }
  /// ENOTEMPTY
  @inlinable public static var notEmpty: Errno { Errno(rawValue: 39) }
  /// ELOOP
  @inlinable public static var tooManySymlinks: Errno { Errno(rawValue: 40) }
  /// No message of desired type.
  @inlinable public static var noMessage: Errno { Errno(rawValue: 42) }
  /// Identifier removed.
  @inlinable public static var identifierRemoved: Errno { Errno(rawValue: 43) }
  /// ENODATA
  @inlinable public static var noData: Errno { Errno(rawValue: 61) }
  /// ETIME
  @inlinable public static var timerExpired: Errno { Errno(rawValue: 62) }
  /// EPROTO
  @inlinable public static var protocolError: Errno { Errno(rawValue: 71) }
  /// EBADMSG
  @inlinable public static var badMessage: Errno { Errno(rawValue: 74) }
  /// EOVERFLOW
  @inlinable public static var overflow: Errno { Errno(rawValue: 75) }
  /// EUSERS
  @inlinable public static var tooManyUsers: Errno { Errno(rawValue: 87) }
  /// ENOTSOCK
  @inlinable public static var notSocket: Errno { Errno(rawValue: 88) }
  /// EDESTADDRREQ
  @inlinable public static var destinationRequired: Errno { Errno(rawValue: 89) }
  /// EMSGSIZE
  @inlinable public static var messageTooLong: Errno { Errno(rawValue: 90) }
  /// EPROTOTYPE
  @inlinable public static var wrongProtocolType: Errno { Errno(rawValue: 91) }
  /// ENOPROTOOPT
  @inlinable public static var noProtocolOption: Errno { Errno(rawValue: 92) }
  /// EPROTONOSUPPORT
  @inlinable public static var protocolNotSupported: Errno { Errno(rawValue: 93) }
  /// ESOCKTNOSUPPORT
  @inlinable public static var socketTypeNotSupported: Errno { Errno(rawValue: 94) }
  /// EOPNOTSUPP
  @inlinable public static var notSupported: Errno { Errno(rawValue: 95) }
  /// EPFNOSUPPORT
  @inlinable public static var protocolFamilyNotSupported: Errno { Errno(rawValue: 96) }
  /// EAFNOSUPPORT
  @inlinable public static var addressFamilyNotSupported: Errno { Errno(rawValue: 97) }
  /// EADDRINUSE
  @inlinable public static var addressInUse: Errno { Errno(rawValue: 98) }
  /// EADDRNOTAVAIL
  @inlinable public static var addressNotAvailable: Errno { Errno(rawValue: 99) }
  /// ENETDOWN
  @inlinable public static var networkDown: Errno { Errno(rawValue: 100) }
  /// ENETUNREACH
  @inlinable public static var networkUnreachable: Errno { Errno(rawValue: 101) }
  /// ECONNABORTED
  @inlinable public static var connectionAborted: Errno { Errno(rawValue: 103) }
  /// ECONNRESET
  @inlinable public static var connectionReset: Errno { Errno(rawValue: 104) }
  /// ENOBUFS
  @inlinable public static var noBuffers: Errno { Errno(rawValue: 105) }
  /// EISCONN
  @inlinable public static var isConnected: Errno { Errno(rawValue: 106) }
  /// ENOTCONN
  @inlinable public static var notConnected: Errno { Errno(rawValue: 107) }
  /// ESHUTDOWN
  @inlinable public static var shutdown: Errno { Errno(rawValue: 108) }
  /// ETIMEDOUT
  @inlinable public static var timedOut: Errno { Errno(rawValue: 110) }
  /// ECONNREFUSED
  @inlinable public static var connectionRefused: Errno { Errno(rawValue: 111) }
  /// EHOSTUNREACH
  @inlinable public static var hostUnreachable: Errno { Errno(rawValue: 113) }
  /// EALREADY
  @inlinable public static var already: Errno { Errno(rawValue: 114) }
  /// EINPROGRESS
  @inlinable public static var inProgress: Errno { Errno(rawValue: 115) }
  /// ESTALE
  @inlinable public static var stale: Errno { Errno(rawValue: 116) }
  /// EDQUOT
  @inlinable public static var quota: Errno { Errno(rawValue: 122) }
  /// ECANCELED
  @inlinable public static var canceled: Errno { Errno(rawValue: 125) }
  /// EOWNERDEAD
  @inlinable public static var ownerDead: Errno { Errno(rawValue: 130) }
  /// ENOTRECOVERABLE
  @inlinable public static var notRecoverable: Errno { Errno(rawValue: 131) }
}
