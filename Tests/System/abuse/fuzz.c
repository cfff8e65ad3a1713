// Random system calls with hostile arguments: every number from FIRST to LAST, each from a child of its own. Prints
// "alive" at the end if the system is. Usage: fuzz SEED [FIRST LAST [CALLS]]
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned long state;
static unsigned long next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state * 0x2545f4914f6cdd1dUL;
}

static char *page;      // readable and writable, an unmapped page behind it
static char *readonly;  // text of a path, read-only
static int descriptors[16];

static unsigned long argument(void) {
  unsigned long r = next();
  switch (r % 24) {
    case 0: return 0;
    case 1: return r >> 60;
    case 2: return -1UL;
    case 3: return -(r >> 56);
    case 4: return (unsigned long)page;
    case 5: return (unsigned long)page + 4096 - (r >> 58);
    case 6: return (unsigned long)readonly;
    case 7: return 0x100000000000UL + (r >> 44);   // the libOS's text
    case 8: return 0x200000000000UL + (r >> 36);   // the arena
    case 9: return 0xffffffff80000000UL + (r >> 40);
    case 10: return 0x6ffffffff000UL + (r >> 50);
    case 11: return 1UL << (r >> 58);
    case 12: return (1UL << (r >> 58)) - 1;
    case 13: return r;
    case 14: return (int)(r >> 32);
    case 15: return descriptors[(r >> 32) % 16];
    case 16: return descriptors[(r >> 32) % 16];
    case 17: return (r >> 40) & ~4095UL;
    case 18: return 4096 * (r >> 60);
    case 19: return 0x7fffffffffffffffUL - (r >> 60);
    case 20: return (unsigned long)page + (r >> 54) % 4000;
    case 21: return (unsigned long)page + 8 * ((r >> 54) % 100);
    case 22: return (r >> 48);
    default: return r >> (r % 64);
  }
}

static void wake(int signal) { (void)signal; }

static void prepare(void) {
  page = mmap(0, 8192, 3, 0x22, -1, 0);
  munmap(page + 4096, 4096);
  readonly = mmap(0, 4096, 3, 0x22, -1, 0);
  strcpy(readonly, "/tmp/fuzz/file");
  mprotect(readonly, 4096, 1);
  int pipes[2], sockets[2];
  if (pipe(pipes) || socketpair(1, 1, 0, sockets)) return;
  int list[16] = {0, 1 + 1, pipes[0], pipes[1], sockets[0], sockets[1], open("/tmp/fuzz/file", O_RDWR | O_CREAT, 0600),
      open("/tmp/fuzz", O_RDONLY), socket(2, 1, 0), socket(2, 2, 0), (int)syscall(SYS_epoll_create1, 0),
      (int)syscall(SYS_eventfd2, 0, 0), (int)syscall(SYS_timerfd_create, 1, 0), (int)syscall(SYS_memfd_create, "m", 3),
      open("/dev/zero", O_RDWR), socket(1, 1, 0)};
  memcpy(descriptors, list, sizeof list);
  for (int i = 0; i < 16; i++) if (descriptors[i] > 2) fcntl(descriptors[i], F_SETFL, O_NONBLOCK | (next() % 2 ? O_APPEND : 0));
}

static void child(long number, unsigned long calls) {
  int own = getpid();
  struct sigaction action = {.sa_handler = wake};
  sigaction(SIGALRM, &action, 0);
  struct itimerval timer = {{0, 20000}, {0, 20000}};
  setitimer(ITIMER_REAL, &timer, 0);
  prepare();
  for (unsigned long i = 0; i < calls; i++) {
    for (int j = 0; j < 512; j++) ((unsigned long *)page)[j] = argument();
    long a = argument(), b = argument(), c = argument(), d = argument(), e = argument(), f = argument();
    if (number == SYS_pause || number == SYS_rt_sigsuspend) i = calls;
    if ((number == SYS_vfork || number == SYS_clone) && (i > 8)) break;
    if (number == SYS_write || number == SYS_writev || number == SYS_pwritev2) if ((int)a <= 2) a = descriptors[6];
    if (number == SYS_clone3 && i > 8) break;
    long result = syscall(number, a, b, c, d, e, f);
    (void)result;
    if (syscall(SYS_getpid) != own || (number == SYS_vfork && result == 0)) _exit(0);
  }
  _exit(0);
}

int main(int count, char **arguments) {
  unsigned long seed = count > 1 ? strtoul(arguments[1], 0, 0) : 1;
  long first = count > 3 ? atol(arguments[2]) : 0, last = count > 3 ? atol(arguments[3]) : 462;
  unsigned long calls = count > 4 ? strtoul(arguments[4], 0, 0) : 60;
  int verbose = getenv("FUZZ_VERBOSE") != 0;
  mkdir("/tmp", 0777);
  mkdir("/tmp/fuzz", 0777);
  signal(SIGPIPE, SIG_IGN);
  for (long number = first; number <= last; number++) {
    if (verbose) dprintf(2, "%ld\n", number);
    state = seed * 0x9e3779b97f4a7c15UL + number + 1;
    for (int i = 0; i < 8; i++) next();
    pid_t pid = fork();
    if (pid == 0) child(number, calls);
    if (pid < 0) { dprintf(1, "fork: %d before %ld\n", errno, number); return 1; }
    int status, waited = 0;
    while (waited < 1500 && waitpid(pid, &status, WNOHANG) != pid) { usleep(1000); waited++; }
    kill(-1, SIGCONT);
    kill(-1, SIGKILL);
    while (waitpid(-1, &status, __WALL) > 0) ;
    unlink("/tmp/fuzz/file");
  }
  dprintf(1, "alive\n");
  return 0;
}
