// What the measured programs share: a monotonic clock, and one line of output: nanoseconds per turn.
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e9 + time.tv_nsec;
}

static inline long turns(int count, char **arguments) { return count > 1 ? atol(arguments[1]) : 1000; }

static inline void report(double start, long count) { printf("%.1f\n", (now() - start) / count); }
