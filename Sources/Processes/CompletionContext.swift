public import Tasks

/// Results of asynchronous input and output that a program has not fetched yet (io_getevents(2)).
public final class CompletionContext {
  public struct Event {
    public var data: UInt64
    /// The address of the struct iocb.
    public var control: UInt64
    /// Bytes, or an error below 0.
    public var result: Int64
    public init(data: UInt64, control: UInt64, result: Int64) {
      self.data = data
      self.control = control
      self.result = result
    }
  }

  public var events: [Event] = []
  public let queue = WaitQueue()

  public init() {}
}
