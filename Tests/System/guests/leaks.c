// Processes of many kinds come and go: how many bytes of memory each leaves behind. Prints the kinds that leave more than
// a KiB, then "done".
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <pthread.h>
#include <unistd.h>

static long available(void) {
  FILE *f = fopen("/proc/meminfo", "r");
  char line[200];
  long value = 0;
  while (fgets(line, sizeof line, f)) if (sscanf(line, "MemAvailable: %ld", &value) == 1) break;
  fclose(f);
  return value;
}

static void *thread(void *unused) { return unused; }

static int watched(int descriptor) {
  struct epoll_event event = {EPOLLIN, {0}};
  int e = epoll_create1(0);
  epoll_ctl(e, EPOLL_CTL_ADD, descriptor, &event);
  return epoll_wait(e, &event, 1, 1);
}

static void work(int kind) {
  int ends[2];
  sigset_t set;
  struct itimerval timer = {{0, 0}, {60, 0}};
  struct flock lock = {F_WRLCK};
  pthread_t made;
  switch (kind) {
  case 1: pipe(ends); watched(ends[0]); break;
  case 2:
    sigemptyset(&set); sigaddset(&set, SIGURG); sigprocmask(SIG_BLOCK, &set, 0);
    kill(getpid(), SIGURG); watched(signalfd(-1, &set, 0)); break;
  case 3: setitimer(ITIMER_REAL, &timer, 0); break;
  case 4: socketpair(AF_UNIX, SOCK_STREAM, 0, ends); write(ends[0], "hi", 2); break;
  case 5: memset(mmap(0, 1 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1, 1 << 20); break;
  case 6: execl("/proc/self/exe", "leaks", "exit", (char *)0); break;
  case 7: raise(SIGKILL); break;
  case 8: abort(); break;
  case 9: fcntl(open("/tmp/l", O_RDWR | O_CREAT, 0600), F_SETLK, &lock); open("/proc/self/status", O_RDONLY); break;
  case 10: for (int i = 0; i < 4; i++) { pthread_create(&made, 0, thread, 0); pthread_join(made, 0); } break;
  case 11: for (int i = 0; i < 3; i++) pthread_create(&made, 0, thread, 0); break;
  }
  _exit(0);
}

static void one(int kind) {
  extern char **environ;
  char *arguments[] = {"leaks", "exit", 0};
  pid_t pid;
  if (kind == 12) posix_spawn(&pid, "/proc/self/exe", 0, 0, arguments, environ);
  else if (kind == 13) { if (!(pid = vfork())) _exit(1); }
  else if (!(pid = fork())) work(kind);
  waitpid(pid, 0, 0);
}

int main(int count, char **arguments) {
  if (count > 1) return 0;
  for (int kind = 0; kind < 14; kind++) {
    for (int i = 0; i < 200; i++) one(kind);
    long before = available();
    for (int i = 0; i < 800; i++) one(kind);
    long left = (before - available()) * 1024 / 800;
    if (left > 1024) printf("kind %d leaves %ld bytes\n", kind, left);
  }
  puts("done");
  return 0;
}
