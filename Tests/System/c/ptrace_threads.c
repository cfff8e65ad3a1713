// ptrace(2) of programs with threads: each is traced by itself, new ones too; stops of all, an exec by one that is not the
// leader, ends, watchpoints, and calls that a stop interrupts. Prints what a tracer sees.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void say(const char *what, int status) {
  printf("%s: ", what);
  if (WIFEXITED(status)) printf("exit %d\n", WEXITSTATUS(status));
  else if (WIFSIGNALED(status)) printf("killed by %d\n", WTERMSIG(status));
  else if (WIFSTOPPED(status)) printf("stop %#x\n", status >> 8);
}

static int await(pid_t pid) {
  int status = 0;
  if (waitpid(pid, &status, __WALL) != pid) printf("waitpid: %s\n", strerror(errno));
  return status;
}

static int go(int request, pid_t pid, long signal) {
  if (ptrace(request, pid, 0, signal) < 0) printf("go: %s\n", strerror(errno));
  return await(pid);
}

static pid_t traced(void (*body)(void), long options) {
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    body();
    _exit(9);
  }
  await(pid);
  ptrace(PTRACE_SETOPTIONS, pid, 0, options | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  return pid;
}

static void *quick(void *p) { syscall(SYS_exit, 3); return p; }
static void *forever(void *p) { for (;;) pause(); return p; }
static void *execute(void *p) {
  execl("/proc/self/exe", "ptrace_threads", "end", (char *)0);
  return p;
}

static void join_body(void) {
  pthread_t thread;
  pthread_create(&thread, 0, quick, 0);
  pthread_join(thread, 0);
  _exit(4);
}

static pid_t new_thread(pid_t pid) {
  unsigned long message = 0;
  int status = go(PTRACE_CONT, pid, 0);
  say("clone", status);
  ptrace(PTRACE_GETEVENTMSG, pid, 0, &message);
  say("first stop", await(message));
  return message;
}

static void clones(void) {
  pid_t pid = traced(join_body, PTRACE_O_TRACECLONE), thread = new_thread(pid);
  struct user_regs_struct one, two;
  ptrace(PTRACE_GETREGS, pid, 0, &one);
  ptrace(PTRACE_GETREGS, thread, 0, &two);
  printf("other stack %d, other storage %d\n", one.rsp != two.rsp, one.fs_base != two.fs_base);
  say("thread", go(PTRACE_CONT, thread, 0));
  say("leader", go(PTRACE_CONT, pid, 0));
}

static void exec_body(void) {
  pthread_t thread;
  pthread_create(&thread, 0, execute, 0);
  for (;;) pause();
}

static void execution(void) {
  pid_t pid = traced(exec_body, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC), thread = new_thread(pid);
  ptrace(PTRACE_CONT, pid, 0, 0);
  ptrace(PTRACE_CONT, thread, 0, 0);
  say("exec", await(pid));
  unsigned long message = 0;
  ptrace(PTRACE_GETEVENTMSG, pid, 0, &message);
  printf("by the thread %d\n", message == (unsigned long)thread);
  say("end", go(PTRACE_CONT, pid, 0));
}

static void two_body(void) {
  pthread_t thread;
  pthread_create(&thread, 0, forever, 0);
  for (;;) pause();
}

static void ends(void) {
  pid_t pid = traced(two_body, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXIT), thread = new_thread(pid);
  ptrace(PTRACE_CONT, pid, 0, 0);
  ptrace(PTRACE_CONT, thread, 0, 0);
  usleep(20000);
  kill(pid, SIGTERM);
  // Who takes it is not said.
  int status;
  pid_t taker = waitpid(-1, &status, __WALL);
  printf("a thread of it %d, ", taker == pid || taker == thread);
  say("signal", status);
  ptrace(PTRACE_CONT, taker, 0, SIGTERM);
  int exits = 0, killed = 0;
  while (killed < 2) {
    pid_t who = waitpid(-1, &status, __WALL);
    if (who < 0) break;
    if (WIFSTOPPED(status)) {
      exits += status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8);
      ptrace(PTRACE_CONT, who, 0, 0);
    } else {
      killed++;
      if (killed == 1) printf("the thread first %d\n", who == thread);
      say("end", status);
    }
  }
  printf("%d exit stops\n", exits);
}

static void stops(void) {
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) two_body();
  usleep(50000);
  ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_EXITKILL);
  kill(pid, SIGSTOP);
  int status;
  // The thread that is not traced may take the signal: then the leader only joins.
  say("stop", (status = await(pid)) >> 16 ? status : go(PTRACE_CONT, pid, SIGSTOP));
  ptrace(PTRACE_LISTEN, pid, 0, 0);
  kill(pid, SIGKILL);
  say("end", await(pid));
}

static volatile long watched;
static void watch_body(void) {
  for (int turn = 0; turn < 3; turn++) {
    for (volatile int other = 0; other < 50; other++) {}
    watched += 5;
  }
  _exit(2);
}

static void watches(void) {
  pid_t pid = traced(watch_body, 0);
  size_t place = offsetof(struct user, u_debugreg);
  printf("unused %ld\n", ptrace(PTRACE_PEEKUSER, pid, place + 56, 0) & 0xff);
  int bad = ptrace(PTRACE_POKEUSER, pid, place, &watched) | ptrace(PTRACE_POKEUSER, pid, place + 56, 0x90001L);
  for (int turn = 0; turn < 3; turn++) {
    say("watch", go(PTRACE_CONT, pid, 0));
    siginfo_t info;
    ptrace(PTRACE_GETSIGINFO, pid, 0, &info);
    printf("%ld, code %d, register %ld\n", ptrace(PTRACE_PEEKDATA, pid, &watched, 0), info.si_code,
           ptrace(PTRACE_PEEKUSER, pid, place + 48, 0) & 15);
    bad |= ptrace(PTRACE_POKEUSER, pid, place + 48, 0);
  }
  bad |= ptrace(PTRACE_POKEUSER, pid, place + 56, 0);
  printf("bad %d\n", bad);
  say("end", go(PTRACE_CONT, pid, 0));
}

static void sleep_body(void) {
  struct timespec time = {0, 300000000}, start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  int result = nanosleep(&time, 0);
  clock_gettime(CLOCK_MONOTONIC, &end);
  long passed = (end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000;
  _exit(result == 0 && passed >= 300 && passed < 3000 ? 1 : 2);
}

static void restarts(void) {
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) sleep_body();
  ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD);
  for (int turn = 0; turn < 3; turn++) {
    usleep(30000);
    ptrace(PTRACE_INTERRUPT, pid, 0, 0);
    say("interrupted", await(pid));
    ptrace(PTRACE_CONT, pid, 0, 0);
  }
  say("slept", await(pid));
}

static void busy_body(void) {
  signal(SIGALRM, SIG_IGN);
  for (volatile long turn = 0;; turn++) getpid();
}

// Threads that are on their way into calls when they are stopped.
static void busy(void) {
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) busy_body();
  usleep(20000);
  int good = 0;
  for (int turn = 0; turn < 50; turn++) {
    if (ptrace(PTRACE_ATTACH, pid, 0, 0)) break;
    int status = await(pid);
    good += WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP;
    for (int step = 0; step < 20; step++) good += go(PTRACE_SINGLESTEP, pid, 0) >> 8 == SIGTRAP;
    for (int call = 0; call < 4; call++) good += go(PTRACE_SYSCALL, pid, 0) >> 8 == SIGTRAP;
    struct user_regs_struct r;
    ptrace(PTRACE_GETREGS, pid, 0, &r);
    good += r.orig_rax == SYS_getpid;
    ptrace(PTRACE_DETACH, pid, 0, 0);
    usleep(500);
  }
  printf("%d good\n", good);
  kill(pid, SIGKILL);
  say("end", await(pid));
}

int main(int count, char **arguments) {
  if (count > 1) return 8;
  clones();
  execution();
  ends();
  stops();
  watches();
  restarts();
  busy();
  return 0;
}
