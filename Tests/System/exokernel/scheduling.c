#define _GNU_SOURCE
// Policies and nice values reach the scheduler: counted by what busy processes get done beside each other.
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned long *counts;

static void work(int index, int policy, int priority, int niceness) {
  struct sched_param parameter = {priority};
  if (policy && sched_setscheduler(0, policy, &parameter)) _exit(1);
  if (niceness && setpriority(PRIO_PROCESS, 0, niceness)) _exit(2);
  for (;;) {
    for (volatile int i = 0; i < 1000; i++) ;
    counts[index]++;
  }
}

// Two busy children for a while, on one processor; how much more the first got done.
static double compare(int policy, int priority, int niceness) {
  counts[0] = counts[1] = 0;
  pid_t other = fork();
  if (other == 0) work(1, 0, 0, 0);
  pid_t child = fork();
  if (child == 0) work(0, policy, priority, niceness);
  struct timespec time = {1, 0};
  nanosleep(&time, 0);
  unsigned long a = counts[0], b = counts[1];
  kill(child, SIGKILL);
  kill(other, SIGKILL);
  waitpid(child, 0, 0);
  waitpid(other, 0, 0);
  printf("# %lu %lu\n", a, b);
  return (double)a / (b ? b : 1);
}

int main(void) {
  setvbuf(stdout, 0, _IOLBF, 0);
  counts = mmap(0, 4096, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  // The parent must run while real-time children do.
  struct sched_param most = {50};
  if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &most)) perror("SCHED_FIFO");
  double same = compare(0, 0, 0), nice = compare(0, 0, 10), idle = compare(SCHED_IDLE, 0, 0),
         fifo = compare(SCHED_FIFO, 10, 0), batch = compare(SCHED_BATCH, 0, 0), robin = compare(SCHED_RR, 10, 0);
  printf("alike %s\n", same > 0.6 && same < 1.6 ? "share" : "DIFFER");
  printf("batch %s\n", batch > 0.6 && batch < 1.6 ? "shares" : "DIFFERS");
  printf("nice 10 %s\n", nice < 0.35 && nice > 0.02 ? "gets less" : "DIFFERS");
  printf("SCHED_IDLE %s\n", idle < 0.1 ? "gets what is left" : "DIFFERS");
  printf("SCHED_FIFO %s\n", fifo > 10 ? "goes before" : "DIFFERS");
  printf("SCHED_RR %s\n", robin > 10 ? "goes before" : "DIFFERS");
}
