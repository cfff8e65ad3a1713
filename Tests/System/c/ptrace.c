// ptrace(2): stops of signals, calls, events and groups; registers and memory; attaching, seizing, letting go, and ends.
// Prints what a tracer sees, which must be what it sees on Linux.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define OPTIONS (PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)

static volatile long shared_value = 7;
static int handled;
static void handler(int number) { handled = number; }

static void say(const char *what, int status) {
  printf("%s: ", what);
  if (WIFEXITED(status)) printf("exit %d\n", WEXITSTATUS(status));
  else if (WIFSIGNALED(status)) printf("killed by %d\n", WTERMSIG(status));
  else if (WIFSTOPPED(status)) printf("stop %#x\n", status >> 8);
  else if (WIFCONTINUED(status)) printf("continued\n");
}

static int await(pid_t pid) {
  int status = 0;
  if (waitpid(pid, &status, __WALL) != pid) printf("waitpid: %s\n", strerror(errno));
  return status;
}

static void tell(const char *what, long result) { printf("%s: %s\n", what, result < 0 ? strerror(errno) : "done"); }

// A child that is traced, stopped by its own SIGSTOP.
static pid_t traced(void (*body)(void)) {
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    body();
    _exit(9);
  }
  await(pid);
  ptrace(PTRACE_SETOPTIONS, pid, 0, OPTIONS);
  return pid;
}

static int go(int request, pid_t pid, long signal) {
  if (ptrace(request, pid, 0, signal) < 0) tell("go", -1);
  return await(pid);
}

static void exit_body(void) { _exit(5); }

static void call_body(void) {
  for (int turn = 0; turn < 4; turn++) syscall(SYS_getppid);
  long id = syscall(SYS_getpid);
  _exit(id == 4321 ? 6 : 7);
}

static void calls(void) {
  pid_t pid = traced(call_body);
  struct user_regs_struct r;
  int entries = 0, status;
  while (WIFSTOPPED(status = go(PTRACE_SYSCALL, pid, 0))) {
    struct __ptrace_syscall_info info;
    long size = ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info);
    ptrace(PTRACE_GETREGS, pid, 0, &r);
    printf("call stop %#x, orig_rax %lld, op %d of %ld, ", status >> 8, r.orig_rax, info.op, size);
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) printf("rax %lld, nr %lld\n", r.rax, (long long)info.entry.nr);
    else printf("good %d, error %d\n", r.rax == info.exit.rval, info.exit.is_error);
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY && ++entries == 2) {
      r.orig_rax = SYS_getuid;  // another call
      ptrace(PTRACE_SETREGS, pid, 0, &r);
    }
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY && entries == 3) ptrace(PTRACE_POKEUSER, pid, 8 * 15, -1L);
    if (info.op == PTRACE_SYSCALL_INFO_EXIT && entries == 5) {
      r.rax = 4321;  // another result
      ptrace(PTRACE_SETREGS, pid, 0, &r);
    }
    // The instruction behind which the thread stands.
    long code = ptrace(PTRACE_PEEKTEXT, pid, r.rip - 2, 0);
    if ((code & 0xffff) != 0x050f) printf("no syscall: %#lx\n", code);
  }
  say("calls", status);
}

static void signal_body(void) {
  signal(SIGUSR1, handler);
  signal(SIGUSR2, SIG_IGN);
  raise(SIGUSR1);
  raise(SIGUSR2);
  raise(SIGTERM);
  raise(SIGTERM);
  _exit(handled);
}

static void signals(void) {
  pid_t pid = traced(signal_body);
  siginfo_t info;
  int status = go(PTRACE_CONT, pid, 0);
  say("caught", status);
  ptrace(PTRACE_GETSIGINFO, pid, 0, &info);
  printf("code %d, from itself %d\n", info.si_code, info.si_pid == pid);
  say("ignored", go(PTRACE_CONT, pid, SIGUSR1));
  say("deadly", go(PTRACE_CONT, pid, SIGUSR2));
  say("suppressed", go(PTRACE_CONT, pid, 0));
  say("changed", go(PTRACE_CONT, pid, SIGUSR1));
  pid = traced(signal_body);
  go(PTRACE_CONT, pid, 0);
  kill(pid, SIGKILL);
  say("killed", await(pid));
}

static void memory(void) {
  pid_t pid = traced(exit_body);
  long text = ptrace(PTRACE_PEEKTEXT, pid, exit_body, 0);
  printf("text %d\n", text == *(long *)exit_body);
  errno = 0;
  ptrace(PTRACE_PEEKDATA, pid, 16, 0);
  printf("nothing there: %s\n", strerror(errno));
  tell("poke nothing", ptrace(PTRACE_POKEDATA, pid, 16, 1));
  tell("poke data", ptrace(PTRACE_POKEDATA, pid, &shared_value, 8));
  printf("%ld here, %ld there\n", shared_value, ptrace(PTRACE_PEEKDATA, pid, &shared_value, 0));
  // A breakpoint where nobody may write.
  tell("poke text", ptrace(PTRACE_POKETEXT, pid, exit_body, (text & ~0xffL) | 0xcc));
  printf("own text %d\n", text == *(long *)exit_body);
  say("breakpoint", go(PTRACE_CONT, pid, 0));
  struct user_regs_struct r;
  siginfo_t info;
  ptrace(PTRACE_GETREGS, pid, 0, &r);
  ptrace(PTRACE_GETSIGINFO, pid, 0, &info);
  printf("behind it %d, code %#x, orig_rax %lld\n", r.rip == (unsigned long)exit_body + 1, info.si_code, r.orig_rax);
  ptrace(PTRACE_POKETEXT, pid, exit_body, text);
  r.rip--;
  ptrace(PTRACE_SETREGS, pid, 0, &r);
  say("one step", go(PTRACE_SINGLESTEP, pid, 0));
  ptrace(PTRACE_GETREGS, pid, 0, &r);
  ptrace(PTRACE_GETSIGINFO, pid, 0, &info);
  printf("further %d, code %d, no flag %d\n", r.rip > (unsigned long)exit_body, info.si_code, !(r.eflags & 0x100));
  say("end", go(PTRACE_CONT, pid, 0));
}

extern char step_first[], step_last[];
__asm__(".text\nstep_body:\nstep_first: mov $110, %eax\nsyscall\nadd $1, %rbx\nnop\nstep_last: mov $60, %eax\nxor %edi, %edi\nsyscall\n");
void step_body(void);

static void steps(void) {
  pid_t pid = traced(step_body);
  struct user_regs_struct r;
  ptrace(PTRACE_GETREGS, pid, 0, &r);
  r.rip = (unsigned long)step_first;
  r.orig_rax = -1;
  ptrace(PTRACE_SETREGS, pid, 0, &r);
  do {
    printf("at %lld\n", (long long)(r.rip - (unsigned long)step_first));
    say("step", go(PTRACE_SINGLESTEP, pid, 0));
    siginfo_t info;
    ptrace(PTRACE_GETREGS, pid, 0, &r);
    ptrace(PTRACE_GETSIGINFO, pid, 0, &info);
    printf("code %d, there %d\n", info.si_code, info.si_addr == (void *)r.rip);
  } while (r.rip != (unsigned long)step_last);
  say("end", go(PTRACE_CONT, pid, 0));
}

static void registers(void) {
  pid_t pid = traced(exit_body);
  struct user_regs_struct r, again;
  struct user_fpregs_struct f;
  ptrace(PTRACE_GETREGS, pid, 0, &r);
  printf("cs %#llx ss %#llx fs %d gs %#llx\n", r.cs, r.ss, r.fs_base != 0, r.gs_base);
  printf("peek %d\n", ptrace(PTRACE_PEEKUSER, pid, 8 * 16, 0) == (long)r.rip);
  r.r15 = 0x1234567890abcdef;
  r.r11 = 99;
  tell("set", ptrace(PTRACE_SETREGS, pid, 0, &r));
  struct iovec part = {&again, sizeof again};
  tell("set of registers", ptrace(PTRACE_GETREGSET, pid, 1, &part));
  printf("%llx %llu %zu\n", again.r15, again.r11, part.iov_len);
  tell("odd size", (part.iov_len = 12, ptrace(PTRACE_GETREGSET, pid, 1, &part)));
  tell("unknown set", (part.iov_len = 16, ptrace(PTRACE_GETREGSET, pid, 77, &part)));
  tell("outside", ptrace(PTRACE_PEEKUSER, pid, 4096, 0));
  tell("cs", ptrace(PTRACE_POKEUSER, pid, 8 * 17, 0));
  tell("vectors", ptrace(PTRACE_GETFPREGS, pid, 0, &f));
  f.xmm_space[8] = 77;
  f.mxcsr = 0x1fa0;
  tell("set vectors", ptrace(PTRACE_SETFPREGS, pid, 0, &f));
  memset(&f, 0, sizeof f);
  ptrace(PTRACE_GETFPREGS, pid, 0, &f);
  printf("%u %#x\n", f.xmm_space[8], f.mxcsr);
  static unsigned char area[16384];
  struct iovec all = {area, sizeof area};
  tell("XSAVE", ptrace(PTRACE_GETREGSET, pid, 0x202, &all));
  printf("x87 and SSE %d\n", (area[464] & 3) == 3);
  tell("set XSAVE", ptrace(PTRACE_SETREGSET, pid, 0x202, &all));
  area[530] = 1;
  tell("bad header", ptrace(PTRACE_SETREGSET, pid, 0x202, &all));
  f.mxcsr = 0x80000000;
  tell("bad MXCSR", ptrace(PTRACE_SETFPREGS, pid, 0, &f));
  unsigned long mask = 1;
  tell("mask", ptrace(PTRACE_GETSIGMASK, pid, 8, &mask));
  printf("%lu\n", mask);
  tell("mask of another size", ptrace(PTRACE_GETSIGMASK, pid, 4, &mask));
  say("end", go(PTRACE_CONT, pid, 0));
}

static void clone_body(void) {
  pid_t pid = fork();
  if (pid == 0) _exit(3);
  int status;
  waitpid(pid, &status, 0);
  pid = vfork();
  if (pid == 0) _exit(4);
  waitpid(pid, &status, 0);
  execl("/proc/self/exe", "ptrace", "end", (char *)0);
}

static void events(void) {
  pid_t pid = traced(clone_body);
  ptrace(PTRACE_SETOPTIONS, pid, 0,
         OPTIONS | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACECLONE |
             PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT);
  int status = go(PTRACE_CONT, pid, 0);
  for (int turn = 0; turn < 40 && WIFSTOPPED(status); turn++) {
    unsigned long message = 0;
    if (status >> 16) ptrace(PTRACE_GETEVENTMSG, pid, 0, &message);
    int event = status >> 16;
    say("parent", status);
    if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK) {
      pid_t child = message;
      say("child", await(child));
      say("child", go(PTRACE_CONT, child, 0));
      ptrace(PTRACE_GETEVENTMSG, child, 0, &message);
      printf("message %#lx\n", message);
      say("child", go(PTRACE_CONT, child, 0));
    } else if (event == PTRACE_EVENT_EXEC) {
      printf("as before %d\n", message == (unsigned long)pid);
    } else if (event == PTRACE_EVENT_EXIT) {
      printf("message %#lx\n", message);
    }
    status = go(PTRACE_CONT, pid, event || WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status));
  }
  say("events", status);
}

static void exec_body(void) { execl("/proc/self/exe", "ptrace", "end", (char *)0); }

static void execution(void) {
  pid_t pid = traced(exec_body);
  siginfo_t info;
  say("without options", go(PTRACE_CONT, pid, 0));
  ptrace(PTRACE_GETSIGINFO, pid, 0, &info);
  printf("code %d\n", info.si_code);
  say("end", go(PTRACE_CONT, pid, 0));
}

static void pause_body(void) {
  for (;;) pause();
}

static pid_t untraced(void) {
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) pause_body();
  usleep(50000);
  return pid;
}

static void line(pid_t pid, const char *name, int whole) {
  char path[64], text[256];
  snprintf(path, sizeof path, "/proc/%d/status", pid);
  FILE *file = fopen(path, "r");
  while (file && fgets(text, sizeof text, file))
    if (!strncmp(text, name, strlen(name))) printf("%s %s", name, whole ? text + strlen(name) : atoi(text + 11) == getpid() ? "me\n" : "not me\n");
  if (file) fclose(file);
}

static void attaching(void) {
  pid_t pid = untraced();
  tell("not traced", ptrace(PTRACE_CONT, pid, 0, 0));
  tell("attach", ptrace(PTRACE_ATTACH, pid, 0, 0));
  say("attached", await(pid));
  tell("again", ptrace(PTRACE_ATTACH, pid, 0, 0));
  line(pid, "TracerPid:", 0);
  line(pid, "State:", 1);
  tell("no signal", ptrace(PTRACE_CONT, pid, 0, 99));
  tell("interrupt", ptrace(PTRACE_INTERRUPT, pid, 0, 0));
  tell("unknown", ptrace(0x4299, pid, 0, 0));
  tell("detach", ptrace(PTRACE_DETACH, pid, 0, 0));
  line(pid, "TracerPid:", 0);
  tell("detached", ptrace(PTRACE_CONT, pid, 0, 0));
  kill(pid, SIGTERM);
  say("end", await(pid));
  tell("nobody", ptrace(PTRACE_ATTACH, pid, 0, 0));
  tell("oneself", ptrace(PTRACE_ATTACH, getpid(), 0, 0));
}

static void seizing(void) {
  pid_t pid = untraced();
  tell("address", ptrace(PTRACE_SEIZE, pid, 1, 0));
  tell("options", ptrace(PTRACE_SEIZE, pid, 0, 1 << 25));
  tell("seize", ptrace(PTRACE_SEIZE, pid, 0, OPTIONS));
  tell("runs", ptrace(PTRACE_CONT, pid, 0, 0));
  tell("interrupt", ptrace(PTRACE_INTERRUPT, pid, 0, 0));
  say("interrupted", await(pid));
  ptrace(PTRACE_CONT, pid, 0, 0);
  kill(pid, SIGSTOP);
  say("signal", await(pid));
  say("group", go(PTRACE_CONT, pid, SIGSTOP));
  tell("listen", ptrace(PTRACE_LISTEN, pid, 0, 0));
  tell("listening", ptrace(PTRACE_CONT, pid, 0, 0));
  kill(pid, SIGCONT);
  say("woken", await(pid));
  say("signal", go(PTRACE_CONT, pid, 0));
  ptrace(PTRACE_CONT, pid, 0, SIGCONT);
  kill(pid, SIGKILL);
  say("end", await(pid));
}

static void groups(void) {
  pid_t pid = traced(pause_body);
  ptrace(PTRACE_CONT, pid, 0, 0);
  kill(pid, SIGTSTP);
  say("signal", await(pid));
  say("group", go(PTRACE_CONT, pid, SIGSTOP));
  siginfo_t info;
  tell("information", ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
  ptrace(PTRACE_DETACH, pid, 0, 0);
  usleep(50000);
  line(pid, "State:", 1);
  kill(pid, SIGCONT);
  kill(pid, SIGTERM);
  say("end", await(pid));
}

// The real parent hears of the end after the tracer has.
static void parents(void) {
  fflush(stdout);
  pid_t child = untraced();
  int ready[2];
  if (pipe(ready)) return;
  pid_t tracer = fork();
  if (tracer == 0) {
    int status;
    ptrace(PTRACE_SEIZE, child, 0, 0);
    if (write(ready[1], "1", 1) != 1) _exit(1);
    waitpid(child, &status, 0);
    _exit(WTERMSIG(status));
  }
  char byte;
  if (read(ready[0], &byte, 1) != 1) return;
  line(child, "TracerPid:", 0);
  kill(child, SIGTERM);
  usleep(20000);
  say("tracer", (kill(child, SIGKILL), await(tracer)));
  say("child", await(child));
  // A tracer that ends lets its tracee go.
  child = untraced();
  tracer = fork();
  if (tracer == 0) {
    ptrace(PTRACE_ATTACH, child, 0, 0);
    waitpid(child, 0, 0);
    _exit(0);
  }
  say("tracer", await(tracer));
  line(child, "TracerPid:", 1);
  kill(child, SIGUSR1);
  say("child", await(child));
  child = untraced();
  tracer = fork();
  if (tracer == 0) {
    ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_EXITKILL);
    _exit(0);
  }
  say("tracer", await(tracer));
  say("child", await(child));
}

static void rights(void) {
  if (geteuid() != 0) return;
  pid_t pid = untraced();
  fflush(stdout);
  pid_t other = fork();
  if (other == 0) {
    if (setgid(1234) || setuid(1234)) _exit(1);
    tell("another's", ptrace(PTRACE_ATTACH, pid, 0, 0));
    tell("seize another's", ptrace(PTRACE_SEIZE, pid, 0, 0));
    fflush(stdout);
    _exit(0);
  }
  await(other);
  kill(pid, SIGKILL);
  await(pid);
}

static void waiting(void) {
  pid_t pid = traced(exit_body);
  siginfo_t info;
  ptrace(PTRACE_SYSCALL, pid, 0, 0);
  memset(&info, 0, sizeof info);
  printf("waitid %d: ", waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
  printf("code %d, status %#x\n", info.si_code, info.si_status);
  printf("waitid %d: ", waitid(P_ALL, 0, &info, WSTOPPED));
  printf("code %d, status %#x\n", info.si_code, info.si_status);
  printf("again %d\n", waitpid(pid, 0, WNOHANG));
  say("end", go(PTRACE_CONT, pid, 0));
}

int main(int count, char **arguments) {
  if (count > 1) return 8;
  calls();
  signals();
  memory();
  steps();
  registers();
  events();
  execution();
  attaching();
  seizing();
  groups();
  parents();
  rights();
  waiting();
  return 0;
}
