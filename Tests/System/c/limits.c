/* RLIMIT_CPU: the signals at its soft and its hard limit, what a sleeper is left, what children inherit: prints the checks that fail. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#define CK(x) do { if (!(x)) { printf("FAIL %s line %d errno %s\n", #x, __LINE__, strerror(errno)); fails++; } } while (0)
static int fails;
static volatile long *shared;
static void count(int signal) {
  struct rlimit now;
  getrlimit(RLIMIT_CPU, &now);
  shared[0]++;
  shared[1] = now.rlim_cur;
}
static void *spin(void *none) {
  for (;;) ;
  return none;
}
static void limit(long soft, long hard) {
  struct rlimit wanted = {soft, hard};
  CK(setrlimit(RLIMIT_CPU, &wanted) == 0);
}
static double seconds(struct rusage *used) {
  return used->ru_utime.tv_sec + used->ru_stime.tv_sec + (used->ru_utime.tv_usec + used->ru_stime.tv_usec) / 1e6;
}
int main(void) {
  shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  // Without a handler the soft limit ends it; of a limit that the parent has, the child's own time counts.
  pid_t plain = fork();
  if (!plain) {
    limit(1, 10);
    if (!fork()) spin(0);
    int status;
    wait(&status);
    shared[2] = WIFSIGNALED(status) ? WTERMSIG(status) : -1;
    spin(0);
  }
  int status;
  struct rusage used;
  CK(wait4(plain, &status, 0, &used) == plain);
  CK(WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU);
  CK(shared[2] == SIGXCPU);
  // Its child's too. Linux counts by ticks where others have the processor as well.
  CK(seconds(&used) > 1.5 && seconds(&used) < 4);
  // With a handler it hears of the soft limit, which moves on by a second, and is killed at the hard one, for all threads'.
  pid_t handler = fork();
  if (!handler) {
    signal(SIGXCPU, count);
    limit(1, 2);
    pthread_t thread;
    pthread_create(&thread, 0, spin, 0);
    spin(0);
  }
  CK(wait4(handler, &status, 0, &used) == handler);
  CK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  CK(shared[0] == 1 && shared[1] == 2);
  CK(seconds(&used) > 1.5 && seconds(&used) < 4);
  // Sleeping takes none of it, and a limit that is lifted does nothing.
  pid_t sleeper = fork();
  if (!sleeper) {
    limit(1, RLIM_INFINITY);
    usleep(1300000);
    limit(RLIM_INFINITY, RLIM_INFINITY);
    _exit(5);
  }
  CK(wait4(sleeper, &status, 0, &used) == sleeper);
  CK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
  printf("%d failed\n", fails);
  return fails != 0;
}
