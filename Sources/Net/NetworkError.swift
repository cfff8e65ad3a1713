/// Why a network operation did not happen. The socket layer maps each case to the error number of the same name.
public enum NetworkError: Error, Equatable {
  /// Nothing to read, no room to write, or no connection to accept yet.
  case wouldBlock
  case connectionRefused
  case connectionReset
  case connectionAborted
  case timedOut
  case notConnected
  case isConnected
  case addressInUse
  case addressNotAvailable
  case hostUnreachable
  case networkUnreachable
  /// Writing after the sending side was shut down.
  case brokenPipe
  case messageTooLong
  case invalid
  /// A connection attempt has begun; the observer hears of its end.
  case inProgress
  /// A connection attempt was already under way.
  case already
  case destinationRequired
  /// A broadcast address without permission to broadcast.
  case accessDenied
  case noBufferSpace
}
