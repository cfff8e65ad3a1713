// Two processes answer each other over pipes while a third waits for input. Who sleeps watches the devices meanwhile, and
// must hear an answer that comes before its wait has begun.
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int there[2], back[2];

static pid_t reader(void) {
  pid_t child = fork();
  if (child == 0) {
    char byte;
    while (read(0, &byte, 1) == 1) {}
    for (;;) pause();
  }
  return child;
}

static pid_t answerer(void) {
  pid_t child = fork();
  if (child == 0) {
    char byte;
    while (read(there[0], &byte, 1) == 1) {
      for (volatile int i = 0; i < (byte & 63) * 40; i++) {}
      if (write(back[1], &byte, 1) != 1) _exit(1);
    }
    _exit(0);
  }
  return child;
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 20000, missed = 0;
  if (pipe(there) || pipe(back)) return 1;
  pid_t children[] = {reader(), answerer()};
  for (int i = 0; i < rounds; i++) {
    char byte = i;
    struct pollfd entry = {back[0], POLLIN, 0};
    if (write(there[1], &byte, 1) != 1) return 2;
    for (volatile int k = 0; k < (i % 97) * 10; k++) {}
    if (poll(&entry, 1, 10000) != 1) missed++;
    if (read(back[0], &byte, 1) != 1) return 3;
  }
  for (int i = 0; i < 2; i++) {
    kill(children[i], SIGKILL);
    waitpid(children[i], 0, 0);
  }
  printf("%d of %d answers missed\n", missed, rounds);
  return missed != 0;
}
