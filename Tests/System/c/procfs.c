// Files of /proc and /sys as programs use them: says what is wrong, the same on Linux.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int ok, const char *what) {
  if (!ok) printf("wrong: %s (errno %d)\n", what, errno);
}

static char text[65536];
static ssize_t contents(const char *path) {
  int fd = open(path, O_RDONLY);
  if (fd < 0) return -1;
  ssize_t n = 0, part;
  while ((part = read(fd, text + n, sizeof text - 1 - n)) > 0) n += part;
  text[n < 0 ? 0 : n] = 0;
  close(fd);
  return part < 0 ? -1 : n;
}

static char *target(int fd) {
  static char name[64], link[256];
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(name, link, sizeof link - 1);
  link[n < 0 ? 0 : n] = 0;
  return link;
}

static int reopen(int fd, int flags) {
  char name[64];
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  return open(name, flags, 0600);
}

static void descriptors(void) {
  int ends[2], sockets[2];
  char byte, expected[64];
  struct stat s;
  check(pipe(ends) == 0, "pipe");
  fstat(ends[0], &s);
  snprintf(expected, sizeof expected, "pipe:[%lu]", (unsigned long)s.st_ino);
  check(!strcmp(target(ends[0]), expected) && !strcmp(target(ends[1]), expected), "pipe link");
  int other = reopen(ends[0], O_WRONLY | O_CREAT | O_TRUNC);
  check(other >= 0 && write(other, "x", 1) == 1, "pipe reopened for writing");
  close(ends[1]);
  check(read(ends[0], &byte, 1) == 1 && byte == 'x', "reading what the new end wrote");
  close(other);
  check(read(ends[0], &byte, 1) == 0, "the new end was the last writer");
  socketpair(AF_UNIX, SOCK_STREAM, 0, sockets);
  fstat(sockets[0], &s);
  snprintf(expected, sizeof expected, "socket:[%lu]", (unsigned long)s.st_ino);
  check(!strcmp(target(sockets[0]), expected), "socket link");
  check(reopen(sockets[0], O_RDWR) < 0 && errno == ENXIO, "sockets do not reopen");
  check(!strcmp(target(epoll_create1(0)), "anon_inode:[eventpoll]"), "epoll link");
  check(!strcmp(target(eventfd(0, 0)), "anon_inode:[eventfd]"), "eventfd link");
  char name[] = "/tmp/procfsXXXXXX";
  int file = mkstemp(name);
  check(write(file, "hello", 5) == 5 && !strcmp(target(file), name), "file link");
  other = reopen(file, O_RDONLY);
  check(read(other, text, 9) == 5, "a file opened anew has its own offset");
  unlink(name);
  snprintf(expected, sizeof expected, "%s (deleted)", name);
  check(!strcmp(target(file), expected), "deleted link");
  check((other = reopen(file, O_RDWR)) >= 0 && pread(other, text, 9, 0) == 5, "deleted file reopened");
  int memory = memfd_create("m", 0);
  check(!strcmp(target(memory), "/memfd:m (deleted)"), "memfd link");
  check(reopen(memory, O_RDWR) >= 0, "memfd reopened");
  check(reopen(1000, O_RDONLY) < 0 && errno == ENOENT, "a descriptor that is not there");
  check(open("/proc/self/fd/0", O_RDONLY | O_NOFOLLOW) < 0 && errno == ELOOP, "O_NOFOLLOW");
  check(lstat("/proc/self/fd/0", &s) == 0 && S_ISLNK(s.st_mode), "links are links");
}

static void controls(void) {
  int fd = open("/proc/self/comm", O_WRONLY | O_TRUNC);
  check(write(fd, "new name", 8) == 8, "writing comm");
  check(contents("/proc/self/comm") == 9 && !strcmp(text, "new name\n"), "reading comm");
  fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CREAT | O_TRUNC, 0644);
  check(fd >= 0 && write(fd, "500\n", 4) == 4, "writing oom_score_adj");
  check(contents("/proc/self/oom_score_adj") == 4 && atoi(text) == 500, "reading oom_score_adj");
  check(write(fd, "5000", 4) < 0 && errno == EINVAL, "EINVAL for a wrong value");
  check(open("/proc/nothing", O_WRONLY | O_CREAT, 0644) < 0 && errno == ENOENT, "no new files in /proc");
  check(unlink("/proc/version") < 0, "no removing from /proc");
}

static void parts(void) {
  check(contents("/proc/self/status") > 500, "status");
  check(strstr(text, "\nPid:\t") && strstr(text, "\nVmRSS:\t") && strstr(text, "\nThreads:\t1\n"), "status lines");
  contents("/proc/self/stat");
  char *whole = strdup(text);
  int fields = 0;
  for (char *p = strrchr(text, ')'); *p; p++) fields += *p == ' ';
  check(fields == 50, "stat has 52 fields");
  int fd = open("/proc/self/stat", O_RDONLY);
  int same = 1;
  for (int i = 0; i < 5; i++) same &= read(fd, text + i, 1) == 1;
  check(same && !memcmp(text, whole, 5), "stat in single bytes");
  check(lseek(fd, 0, SEEK_SET) == 0 && read(fd, text, 5) == 5, "stat again");
  struct stat s;
  check(fstat(fd, &s) == 0 && s.st_size == 0 && S_ISREG(s.st_mode), "size 0");
  struct statfs f;
  check(statfs("/proc", &f) == 0 && f.f_type == 0x9fa0, "magic of proc");
  check(statfs("/sys", &f) == 0 && f.f_type == 0x62656572, "magic of sysfs");
  char name[64], link[64];
  snprintf(name, sizeof name, "%d", getpid());
  ssize_t n = readlink("/proc/self", link, sizeof link);
  check(n == (ssize_t)strlen(name) && !memcmp(link, name, n), "self");
  snprintf(name, sizeof name, "%d/task/%d", getpid(), gettid());
  n = readlink("/proc/thread-self", link, sizeof link);
  check(n == (ssize_t)strlen(name) && !memcmp(link, name, n), "thread-self");
  check(contents("/proc/self/auxv") % 16 == 0 && contents("/proc/self/auxv") > 100, "auxv");
  check(contents("/proc/self/limits") > 1000, "limits");
  check(contents("/proc/self/mounts") > 10 && contents("/proc/mounts") > 10, "mounts");
  int memory = open("/proc/self/mem", O_RDWR);
  static volatile int value = 42;
  int seen = 0, wanted = 43;
  check(pread(memory, &seen, 4, (off_t)&value) == 4 && seen == 42, "reading mem");
  check(pwrite(memory, &wanted, 4, (off_t)&value) == 4 && value == 43, "writing mem");
}

static void *thread(void *unused) {
  pthread_attr_t attributes;
  void *stack;
  size_t size;
  check(pthread_getattr_np(pthread_self(), &attributes) == 0, "getattr of a thread");
  check(pthread_attr_getstack(&attributes, &stack, &size) == 0, "stack of a thread");
  char here;
  check(&here >= (char *)stack && &here < (char *)stack + size, "a thread's stack");
  char name[64];
  snprintf(name, sizeof name, "/proc/self/task/%d/comm", gettid());
  check(contents(name) > 0, "comm of a task");
  return unused;
}

static void others(void) {
  pthread_attr_t attributes;
  void *stack;
  size_t size;
  check(pthread_getattr_np(pthread_self(), &attributes) == 0, "getattr of main");
  pthread_attr_getstack(&attributes, &stack, &size);
  char here;
  check(&here >= (char *)stack && &here < (char *)stack + size, "main's stack");
  pthread_t other;
  pthread_create(&other, 0, thread, 0);
  pthread_join(other, 0);
  cpu_set_t set;
  check(sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) <= sysconf(_SC_NPROCESSORS_ONLN), "processors");
  check(contents("/sys/devices/system/cpu/online") > 0, "online processors");
  int ends[2];
  check(pipe(ends) == 0, "pipe");
  pid_t child = fork();
  if (child == 0) {
    char byte;
    close(ends[1]);
    read(ends[0], &byte, 1);
    _exit(0);
  }
  close(ends[0]);
  char name[64], mine[4096];
  ssize_t length = contents("/proc/self/cmdline");
  memcpy(mine, text, length);
  snprintf(name, sizeof name, "/proc/%d/cmdline", child);
  check(contents(name) == length && !memcmp(text, mine, length), "cmdline of a child");
  snprintf(name, sizeof name, "/proc/%d/stat", child);
  int fd = open(name, O_RDONLY);
  close(ends[1]);
  siginfo_t information;
  waitid(P_PID, child, &information, WEXITED | WNOWAIT);
  snprintf(name, sizeof name, "/proc/%d/cmdline", child);
  check(contents(name) == 0, "cmdline of a zombie");
  snprintf(name, sizeof name, "/proc/%d/maps", child);
  check(contents(name) == 0, "maps of a zombie");
  snprintf(name, sizeof name, "/proc/%d/exe", child);
  check(readlink(name, text, 99) < 0 && errno == ENOENT, "exe of a zombie");
  check(read(fd, text, 99) > 0 && strstr(text, ") Z "), "state of a zombie");
  waitpid(child, 0, 0);
  lseek(fd, 0, SEEK_SET);
  check(read(fd, text, 99) < 0 && errno == ESRCH, "stat of a process that has gone");
  check(contents(name) < 0 && errno == ENOENT, "a directory that has gone");
}

int main(void) {
  descriptors();
  controls();
  parts();
  others();
  return 0;
}
