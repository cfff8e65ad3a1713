// Programs that take all they can get, one by the first argument; each prints what the libOS answered.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *text) { if (write(1, text, strlen(text)) < 0) _exit(9); }

// Forks until it is refused, everybody sleeping; then ends all and says whether a fork works again.
static int forks(int limited) {
  if (limited) {
    if (setgid(1000) || setuid(1000)) return 8;
    struct rlimit limit = {20, 20};
    setrlimit(RLIMIT_NPROC, &limit);
  }
  static int children[100000];
  int n = 0, error = 0;
  while (n < 100000) {
    pid_t p = fork();
    if (p == 0) for (;;) pause();
    if (p < 0) { error = errno; break; }
    children[n++] = p;
  }
  printf("%s %s\n", limited ? (n >= 15 && n <= 20 ? "limited" : "WRONG NUMBER") : n > 50 ? "many" : "FEW",
         error == EAGAIN ? "EAGAIN" : error == ENOMEM ? "ENOMEM" : "OTHER");
  for (int i = 0; i < n; i++) kill(children[i], SIGKILL);
  for (int i = 0; i < n; i++) waitpid(children[i], 0, 0);
  pid_t p = fork();
  if (p == 0) _exit(5);
  int status;
  waitpid(p, &status, 0);
  printf("again %d\n", WEXITSTATUS(status));
  return 0;
}

// Everybody forks twice for ever: pid 1 must still be able to end them.
static int bomb(void) {
  for (int i = 0; i < 4; i++)
    if (fork() == 0) for (;;) { fork(); if (getppid() == 0) _exit(0); }
  usleep(700000);
  for (int round = 0; round < 50; round++) {
    kill(-1, SIGKILL);
    while (waitpid(-1, 0, WNOHANG) > 0) ;
    usleep(1000);
  }
  int left = 0;
  while (waitpid(-1, 0, 0) > 0) left++;
  say("survived\n");
  return 0;
}

static int descriptors(void) {
  int n = 0, error;
  while (open("/", O_RDONLY) >= 0) n++;
  error = errno;
  printf("%d %s\n", n > 1000 && n < 1024, error == EMFILE ? "EMFILE" : "OTHER");
  for (int i = 3; i < 1024; i++) close(i);
  struct rlimit limit = {1 << 20, 1 << 20};
  setrlimit(RLIMIT_NOFILE, &limit);
  int pipes[2];
  n = 0;
  while (n < 1 << 19 && pipe(pipes) == 0) n++;
  error = errno;
  printf("%s\n", error == EMFILE || error == ENFILE || error == ENOMEM ? "refused" : "OTHER");
  for (int i = 3; i < 1 << 20; i++) close(i);
  printf("%d\n", pipe(pipes));
  return 0;
}

static void *sleeper(void *x) { for (;;) pause(); return x; }

static int threads(void) {
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 65536);
  pthread_t thread;
  int n = 0, error;
  while ((error = pthread_create(&thread, &small, sleeper, 0)) == 0 && n < 100000) n++;
  printf("%s %s\n", n > 50 ? "many" : "FEW", error == EAGAIN ? "EAGAIN" : "OTHER");
  return 0;
}

// A child takes memory for ever, by malloc or by touching what it has mapped; its brother lives on.
static int hog(int touches) {
  int pipes[2];
  if (pipe(pipes)) return 8;
  pid_t brother = fork();
  if (brother == 0) { char c; _exit(read(pipes[0], &c, 1) == 1 ? 7 : 8); }
  pid_t child = fork();
  if (child == 0) {
    if (touches) {
      size_t size = 4UL << 30;
      char *p = mmap(0, size, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) _exit(9);
      for (size_t i = 0; i < size; i += 4096) p[i] = 1;
      _exit(1);
    }
    for (;;) {
      char *p = malloc(1 << 20);
      if (!p) _exit(errno == ENOMEM ? 2 : 3);
      memset(p, 1, 1 << 20);
    }
  }
  int status;
  waitpid(child, &status, 0);
  printf("%s\n", WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? "killed"
                 : WIFEXITED(status) && WEXITSTATUS(status) == 2 ? "ENOMEM" : "WRONG");
  if (write(pipes[1], "x", 1) != 1) return 9;
  waitpid(brother, &status, 0);
  printf("brother %d\n", WEXITSTATUS(status));
  char *p = malloc(16 << 20);
  if (p) memset(p, 1, 16 << 20);
  printf("%s\n", p ? "given back" : "NOT GIVEN BACK");
  return 0;
}

// Copies after fork count: the parent holds 60%, the child writes to all of it.
static int copies(long megabytes) {
  size_t size = megabytes << 20;
  char *p = mmap(0, size, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return 9;
  memset(p, 1, size);
  pid_t child = fork();
  if (child == 0) { usleep(100000); _exit(p[5] == 1 ? 4 : 5); }
  int status;
  waitpid(child, &status, 0);
  printf("shared %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
  fflush(stdout);
  child = fork();
  if (child == 0) { memset(p, 2, size); usleep(300000); _exit(4); }
  waitpid(child, &status, 0);
  printf("copied %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
  return 0;
}

static int tmpfs(void) {
  static char block[65536];
  int file = open("/tmp/big", O_CREAT | O_WRONLY, 0600);
  long written = 0, n;
  while ((n = write(file, block, sizeof block)) > 0) written += n;
  printf("%s %s\n", written > 20 << 20 ? "much" : "LITTLE", errno == ENOSPC ? "ENOSPC" : "OTHER");
  n = fork();
  if (n == 0) _exit(0);
  int status = -1;
  if (n > 0) waitpid(n, &status, 0);
  close(file);
  unlink("/tmp/big");
  file = open("/tmp/huge", O_CREAT | O_RDWR, 0600);
  printf("%ld", (long)pwrite(file, "x", 1, 1L << 43));
  printf(" %ld", (long)pwrite(file, "x", 1, 1L << 45));
  printf(" %s\n", errno == EFBIG ? "EFBIG" : "OTHER");
  long files = 0;
  char name[64];
  mkdir("/tmp/many", 0700);
  for (;; files++) {
    sprintf(name, "/tmp/many/%ld", files);
    int f = open(name, O_CREAT | O_WRONLY, 0600);
    if (f < 0 || files == 300000) break;
    close(f);
  }
  printf("%s\n", files == 300000 || errno == ENOMEM || errno == ENOSPC ? "refused" : "OTHER");
  for (long i = 0; i < files; i++) { sprintf(name, "/tmp/many/%ld", i); unlink(name); }
  printf("%s\n", open("/tmp/again", O_CREAT | O_WRONLY, 0600) >= 0 ? "again" : "NOT AGAIN");
  return 0;
}

static volatile int depth;
#pragma GCC diagnostic ignored "-Winfinite-recursion"
static int recurse(int n) { volatile char room[4096]; room[0] = n; depth = n; return recurse(n + 1) + room[0]; }

static int recursion(void) {
  pid_t child = fork();
  if (child == 0) _exit(recurse(0));
  int status;
  waitpid(child, &status, 0);
  printf("%s\n", WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV ? "SIGSEGV" : "WRONG");
  return 0;
}

// 65530 mappings are allowed, and refused after that.
static int mappings(void) {
  int n = 0;
  while (n < 70000 && mmap(0, 4096, n & 1 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) n++;
  printf("%s %s\n", n > 20000 && n < 66000 ? "many" : "WRONG", errno == ENOMEM ? "ENOMEM" : "OTHER");
  return 0;
}

int main(int count, char **arguments) {
  const char *what = count > 1 ? arguments[1] : "";
  mkdir("/tmp", 0777);
  if (!strcmp(what, "forks")) return forks(0);
  if (!strcmp(what, "limited-forks")) return forks(1);
  if (!strcmp(what, "bomb")) return bomb();
  if (!strcmp(what, "descriptors")) return descriptors();
  if (!strcmp(what, "threads")) return threads();
  if (!strcmp(what, "hog")) return hog(0);
  if (!strcmp(what, "toucher")) return hog(1);
  if (!strcmp(what, "copies")) return copies(atol(arguments[2]));
  if (!strcmp(what, "tmpfs")) return tmpfs();
  if (!strcmp(what, "recursion")) return recursion();
  if (!strcmp(what, "mappings")) return mappings();
  return 100;
}
