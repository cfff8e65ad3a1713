// Calls of the exokernel with wild arguments, from a program that shares the libOS's privileges: `wild-calls ADDRESS SEED`
// is given where the libOS's own call site lies. What the libOS asks for may ruin the libOS, never ring 0.
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { END_THREAD = 9, PARK = 10, EXIT = 18, LEAVE = 19, ISOLATE = 20 };
static uint64_t state;

static uint64_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

static const uint64_t places[] = {
    0, 1, 3, 4095, 4096, 0x10000, 0x6ffffffff000, 0x700000000000, 0x7fffffffffff, 0x800000000000, 0xffff7fffffffffff,
    0xffff800000000000, 0xffff800000200000, 0xffffffff80100000, 0x100000000000, 0x100000400000, 0x180000000000,
    0x200000000000, 0x200000801000, 0x2d0000000000, 0x2e0000000000, 0x2e1000000000, 0x2f0000000000, 0x2ffffffff000,
    0x300000000000, ~0ul, ~0ul - 4095, 1ul << 63};

static uint64_t wild(void) {
  uint64_t chosen = places[next() % (sizeof places / sizeof *places)];
  switch (next() % 5) {
  case 0: return next() % 64;
  case 1: return chosen;
  case 2: return chosen + (next() % 64) * 4096;
  case 3: return (next() % 4096) << 12;
  default: return chosen + next() % 65536;
  }
}

int main(int count, char **arguments) {
  if (count < 3) return 2;
  long (*call)(long, long, long, long, long) = (void *)strtoul(arguments[1], 0, 16);
  state = strtoul(arguments[2], 0, 10) * 0x9e3779b97f4a7c15 + 1;
  setvbuf(stdout, 0, _IOLBF, 0);
  for (int round = 0; round < 30; round++) {
    next();
    pid_t child = fork();
    if (child == 0) {
      alarm(5);
      for (int i = 0; i < 500; i++) {
        long number = next() % 32;
        // These end the thread, the machine, or the attack.
        if (number == END_THREAD || number == EXIT || number == LEAVE || number == ISOLATE) continue;
        uint64_t a = wild(), b = wild(), c = wild(), d = wild();
        // Whoever sleeps for ever cannot be woken: nobody knows that it sleeps.
        if (number == PARK) c &= 0xffffff;
        call(number, a, b, c, d);
      }
      _exit(0);
    }
    if (child > 0) waitpid(child, 0, 0);
  }
  puts("alive");
}
