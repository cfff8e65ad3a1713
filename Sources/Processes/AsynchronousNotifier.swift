import ABI
public import Tasks
public import VFS

/// Sends SIGIO, or what F_SETSIG chose, when an open file with O_ASYNC becomes ready (fcntl(2)).
public final class AsynchronousNotifier: Waiter {
  private unowned(unsafe) let file: OpenFile

  private init(_ file: OpenFile) { self.file = file }

  /// Follows O_ASYNC in the file's flags; call after they have changed.
  public static func follow(_ file: OpenFile) {
    if file.flags & 0o20000 == 0 {
      if let waiter = file.asynchronous {
        waiter.queue?.remove(waiter)
        file.asynchronous = nil
      }
    } else if file.asynchronous == nil, let queue = file.waitQueue {
      let waiter = AsynchronousNotifier(file)
      file.asynchronous = waiter
      queue.add(waiter)
    }
  }

  public override func notify(_ events: UInt32) -> Bool {
    // POLL_IN, POLL_OUT
    let isInput = events == 0 || events & Readiness.readable.rawValue != 0
    AsynchronousNotifier.send(
      code: isInput ? 1 : 2, band: isInput ? 0x41 : 0x104, descriptor: file.signalDescriptor, of: file)
    return false
  }

  /// SIGIO tells nothing; a signal that F_SETSIG chose tells why and of which descriptor.
  static func send(code: Int32, band: Int32, descriptor: Int32, of file: OpenFile) {
    let isChosen = file.ownerSignal != 0
    var information = SignalInformation(
      isChosen ? file.ownerSignal : 29, code: isChosen ? code : SignalInformation.kernel)
    if isChosen {
      // si_band and si_fd lie where a sender and a value would.
      information.pid = band
      information.value = UInt64(UInt32(bitPattern: descriptor))
    }
    send(information, to: file)
  }

  /// To the file's owner: a thread, a process or a group.
  static func send(_ information: SignalInformation, to file: OpenFile) {
    guard file.signalOwner != 0 else { return }
    switch file.ownerKind {
    case 0:
      do throws(Errno) { try ProcessTable.thread(file.signalOwner)?.send(information) } catch {}
    case 1: ProcessTable.process(file.signalOwner)?.notify(information)
    default: for process in ProcessTable.members(ofGroup: file.signalOwner) { process.notify(information) }
    }
  }
}
