import CHostCommand
import Glibc
import Image
import ImageBuilder

/// The user's terminal while an image has it (`run -t`): in raw mode, because the image edits lines itself, and as it
/// was before when the image has ended, however that happened.
///
/// The command stays as the image's parent for this. It passes on the signals that it gets itself, and the
/// terminal's size in a page of memory that the image has mapped: processes under the seal never call ioctl(2).
struct TerminalSession {
  private let saved: termios
  private let page: UnsafeMutablePointer<UInt64>
  private let watched: sigset_t

  /// What ends or changes the session; SIGTSTP, SIGTTIN and SIGTTOU are taken and dropped, so that the command never
  /// stops with the terminal in raw mode.
  private static let signals = [
    SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD, SIGWINCH, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU,
  ]

  /// Looks at the terminal on standard input; nothing changes yet.
  init(_ options: inout LaunchOptions) throws(BuildError) {
    var settings = termios()
    guard isatty(STDIN_FILENO) == 1, tcgetattr(STDIN_FILENO, &settings) == 0 else {
      throw BuildError("-t needs a terminal on standard input; leave it out")
    }
    saved = settings
    let descriptor = memfd_create("swiftlet-terminal-size", 0)
    guard descriptor >= 0, ftruncate(descriptor, 4096) == 0,
      let memory = mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0), memory != MAP_FAILED
    else { throw BuildError("cannot make memory for the terminal's size") }
    page = memory.bindMemory(to: UInt64.self, capacity: 2)
    page[1] = UInt64(settings.c_iflag & tcflag_t(IUTF8))
    options.sizeDescriptor = descriptor
    var set = sigset_t()
    sigemptyset(&set)
    for signal in TerminalSession.signals + [memory_limit_signal()] { sigaddset(&set, signal) }
    watched = set
    updateSize()
  }

  /// Where the size stands.
  var size: UnsafePointer<UInt64> { UnsafePointer(page) }

  private func updateSize() {
    var size = winsize()
    guard ioctl_pointer(STDIN_FILENO, UInt(TIOCGWINSZ), &size) == 0 else { return }
    page.pointee =
      UInt64(size.ws_row) | UInt64(size.ws_col) << 16 | UInt64(size.ws_xpixel) << 32
      | UInt64(size.ws_ypixel) << 48
  }

  private func setRaw() {
    var raw = saved
    cfmakeraw(&raw)
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw)
  }

  private func restore() {
    var settings = saved
    tcsetattr(STDIN_FILENO, TCSANOW, &settings)
  }

  /// Runs `start`, which becomes the image or throws, in a child; ends the command with the image's status.
  func run(_ start: () throws -> Void) throws -> Never {
    var set = watched
    var before = sigset_t()
    setRaw()
    sigprocmask(SIG_BLOCK, &set, &before)
    let child = fork_process()
    if child == 0 {
      set_parent_death_signal(SIGKILL)
      sigprocmask(SIG_SETMASK, &before, nil)
      try start()
      _exit(126)
    }
    guard child > 0 else {
      restore()
      throw BuildError("cannot start a process: \(String(cString: strerror(errno)))")
    }
    let status = watch(child)
    restore()
    exit(status)
  }

  /// Passes signals on until the child has ended; its exit status as a shell has it.
  private func watch(_ child: pid_t) -> Int32 {
    var set = watched
    while true {
      var value: Int32 = 0
      let signal = wait_signal(&set, &value)
      guard signal > 0 else { continue }
      switch signal {
      case memory_limit_signal(): queue_signal(child, signal, value)
      case SIGCHLD:
        var status: Int32 = 0
        guard waitpid(child, &status, WNOHANG) == child else { continue }
        return status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
      case SIGWINCH:
        updateSize()
        kill(child, SIGWINCH)
      case SIGCONT:
        // Whoever continued the command may have changed the terminal meanwhile.
        setRaw()
        updateSize()
        kill(child, SIGWINCH)
      case SIGTSTP, SIGTTIN, SIGTTOU: continue
      default: kill(child, signal)
      }
    }
  }
}
