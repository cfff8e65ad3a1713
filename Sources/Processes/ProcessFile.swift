public import ABI
public import Tasks
public import VFS

/// pidfd_open(2): a process as a descriptor, readable when it has ended.
public final class ProcessFile: OpenFile {
  public let process: Process

  public init(_ process: Process, flags: UInt32) {
    self.process = process
    super.init(inode: PipeInodes.anonymous(mode: 0o600), flags: flags & 0o4000 | 2)
  }

  public override var anonymousName: StaticString { "[pidfd]" }
  public override var waitQueue: WaitQueue? { process.exitQueue }
  public override func readiness() -> Readiness { process.isZombie ? .readable : [] }
}
