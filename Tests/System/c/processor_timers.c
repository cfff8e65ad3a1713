/* Timers on processor time: they count for who works and stand for who sleeps. Prints the checks that fail. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CK(e) do { if (!(e)) printf("%d: %s (errno %d)\n", __LINE__, #e, errno); } while (0)
static volatile int signals;
static void count(int signal) { signals++; }

static double used(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

static void work(double seconds) {
  double end = used(CLOCK_THREAD_CPUTIME_ID) + seconds;
  while (used(CLOCK_THREAD_CPUTIME_ID) < end)
    for (volatile int i = 0; i < 10000; i++) {}
}

static void doze(double seconds) {
  struct timespec left = {(int)seconds, (seconds - (int)seconds) * 1e9};
  while (nanosleep(&left, &left)) {}
}

static void interval(int which, int signal) {
  struct itimerval every = {{0, 20000}, {0, 20000}}, off = {{0, 0}, {0, 0}}, left;
  struct sigaction action = {.sa_handler = count};
  sigaction(signal, &action, 0);
  signals = 0;
  CK(setitimer(which, &every, 0) == 0);
  doze(0.4);
  CK(signals <= 1);
  CK(getitimer(which, &left) == 0 && left.it_interval.tv_usec >= 20000 && left.it_value.tv_usec > 0 && left.it_value.tv_usec < 30000);
  signals = 0;
  work(0.6);
  CK(signals >= 8 && signals <= 32);
  CK(setitimer(which, &off, &left) == 0 && left.it_interval.tv_usec > 0);
  signals = 0;
  work(0.1);
  CK(signals == 0);
}

static void posix(clockid_t clock) {
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  struct sigaction action = {.sa_handler = count};
  struct itimerspec once = {{0, 0}, {0, 200000000}}, left;
  timer_t timer;
  sigaction(SIGUSR1, &action, 0);
  signals = 0;
  CK(timer_create(clock, &event, &timer) == 0);
  CK(timer_settime(timer, 0, &once, 0) == 0);
  doze(0.5);
  CK(signals == 0);
  CK(timer_gettime(timer, &left) == 0 && left.it_value.tv_nsec > 100000000 && left.it_value.tv_nsec <= 200000000);
  work(0.35);
  CK(signals == 1);
  CK(timer_gettime(timer, &left) == 0 && left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0);
  /* a time that has passed */
  struct timespec now;
  clock_gettime(clock, &now);
  struct itimerspec past = {{0, 0}, now};
  CK(timer_settime(timer, TIMER_ABSTIME, &past, 0) == 0);
  work(0.1);
  CK(signals == 2);
  CK(timer_delete(timer) == 0);
}

static void *sleeper(void *unused) {
  struct timespec half = {0, 300000000};
  CK(clock_nanosleep(CLOCK_PROCESS_CPUTIME_ID, 0, &half, 0) == 0);
  return 0;
}

int main() {
  interval(ITIMER_PROF, SIGPROF);
  interval(ITIMER_VIRTUAL, SIGVTALRM);
  posix(CLOCK_PROCESS_CPUTIME_ID);
  posix(CLOCK_THREAD_CPUTIME_ID);
  clockid_t own;
  CK(clock_getcpuclockid(0, &own) == 0);
  posix(own);
  CK(pthread_getcpuclockid(pthread_self(), &own) == 0);
  posix(own);
  /* by the processor time of others: a child's, and of other threads */
  timer_t timer;
  CK(timer_create(CLOCK_MONOTONIC_RAW, 0, &timer) == -1 && (errno == EOPNOTSUPP || errno == EINVAL));
  CK(timer_create(1234, 0, &timer) == -1 && errno == EINVAL);
  double before = used(CLOCK_PROCESS_CPUTIME_ID);
  pthread_t thread;
  pthread_create(&thread, 0, sleeper, 0);
  work(0.1);
  CK(pthread_tryjoin_np(thread, 0) == EBUSY);
  work(0.5);
  pthread_join(thread, 0);
  CK(used(CLOCK_PROCESS_CPUTIME_ID) - before >= 0.3);
  struct timespec some = {0, 1000};
  CK(syscall(SYS_clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &some, 0) == -1);
  /* a child has none of them, a new program keeps the interval timer */
  struct itimerval every = {{0, 0}, {5, 0}}, left;
  CK(setitimer(ITIMER_PROF, &every, 0) == 0);
  if (fork() == 0) {
    CK(getitimer(ITIMER_PROF, &left) == 0 && left.it_value.tv_sec == 0 && left.it_value.tv_usec == 0);
    _exit(0);
  }
  wait(0);
  puts("done");
  return 0;
}
