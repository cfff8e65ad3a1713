// Signals that find a program on its way into a system call, in a short one or in the vDSO: each handler returns there,
// and each call does what it should.
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned long count;
static void handle(int number) { count++; }

int main(void) {
  struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
  sigaction(SIGALRM, &action, 0);
  struct itimerval often = {{0, 20}, {0, 20}};
  setitimer(ITIMER_REAL, &often, 0);
  pid_t process = getpid();
  unsigned long wrong = 0;
  struct timespec start, now;
  clock_gettime(CLOCK_MONOTONIC, &start);
  do {
    for (int turn = 0; turn < 100; turn++) {
      wrong += getpid() != process;
      wrong += syscall(SYS_gettid) != process;
      wrong += getppid() == process;
      wrong += clock_gettime(CLOCK_MONOTONIC, &now) != 0;
    }
  } while (now.tv_sec - start.tv_sec < 2);
  printf("%lu wrong, signals: %s\n", wrong, count > 100 ? "many" : "few");
}
