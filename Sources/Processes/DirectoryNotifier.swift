public import VFS

/// F_NOTIFY as fcntl(2) has it: a signal.
public final class DirectoryNotifier: DirectoryWatch {
  public override func tell() {
    // POLL_MSG
    AsynchronousNotifier.send(code: 3, band: 0x440, descriptor: descriptor, of: file)
  }
}
