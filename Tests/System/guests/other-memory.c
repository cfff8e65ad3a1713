// The memory of other processes: their titles, /proc/PID/mem, process_vm_readv(2). What it prints natively it must print in
// an image.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile char *page;
static const char constant[] = "cannot be written";
static int tell[2];

static void child(int kind, char **argv) {
  strcpy((char *)page, "the child's own");
  memset(argv[0], 0, 8);
  strcpy(argv[0], kind ? "busy" : "idle");
  write(tell[1], "x", 1);
  if (kind == 0) for (;;) pause();
  if (kind == 1) for (;;) if (page[0] == 'T') _exit(7);
}

static void look(pid_t pid) {
  char path[64], text[256] = {0};
  sprintf(path, "/proc/%d/cmdline", pid);
  int f = open(path, O_RDONLY);
  ssize_t n = read(f, text, sizeof text);
  printf("title %s\n", n > 0 ? text : "none");
  close(f);
  sprintf(path, "/proc/%d/mem", pid);
  f = open(path, O_RDWR);
  char back[16] = {0};
  printf("mem %zd ", pread(f, back, 15, (off_t)page));
  printf("%s\n", back);
  printf("constant %zd ", pwrite(f, "CAN", 3, (off_t)constant));
  printf("%zd ", pread(f, back, 15, (off_t)constant));
  printf("%.15s, own %.6s\n", back, constant);
  printf("nothing %zd %d\n", pread(f, back, 15, 4096), errno);
  char a[4], b[12] = {0};
  struct iovec local[2] = {{a, 4}, {b, 11}}, remote[2] = {{(char *)page, 9}, {(char *)page + 9, 6}};
  printf("readv %zd ", process_vm_readv(pid, local, 2, remote, 2, 0));
  printf("%.4s%s\n", a, b);
  struct iovec wild = {(void *)4096, 8}, here = {b, 8};
  printf("wild %zd %d\n", process_vm_readv(pid, &here, 1, &wild, 1, 0), errno);
  struct iovec from = {"T", 1}, to = {(char *)page, 1};
  printf("writev %zd\n", process_vm_writev(pid, &from, 1, &to, 1, 0));
  close(f);
}

int main(int argc, char **argv) {
  page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  pipe(tell);
  setvbuf(stdout, 0, _IONBF, 0);
  for (int kind = 0; kind < 2; kind++) {
    pid_t pid = fork();
    if (!pid) child(kind, argv);
    char c;
    read(tell[0], &c, 1);
    look(pid);
    if (kind == 0) kill(pid, SIGKILL);
    int status;
    waitpid(pid, &status, 0);
    printf("status %x\n", status);
    struct iovec here = {&c, 1}, there = {(char *)page, 1};
    printf("gone %zd %d\n", process_vm_readv(pid, &here, 1, &there, 1, 0), errno);
  }
  // A child of vfork shares the memory of its parent, which sleeps.
  pid_t pid = vfork();
  if (!pid) {
    struct iovec here = {tell, 4}, there = {(char *)page, 4};
    printf("vfork %zd\n", process_vm_readv(getppid(), &here, 1, &there, 1, 0));
    _exit(0);
  }
  waitpid(pid, 0, 0);
  // Time in calls and out of them, and memory, are told.
  struct rusage usage;
  do {
    for (int i = 0; i < 1000; i++) getppid();
    getrusage(RUSAGE_SELF, &usage);
  } while (usage.ru_stime.tv_sec == 0 && usage.ru_stime.tv_usec < 20000);
  long before = usage.ru_utime.tv_usec + 1000000 * usage.ru_utime.tv_sec;
  do getrusage(RUSAGE_SELF, &usage);
  while (usage.ru_utime.tv_usec + 1000000 * usage.ru_utime.tv_sec < before);
  printf("user and system, resident %d\n", usage.ru_maxrss > 500);
  return 0;
}
