// One byte to another process and back, through two pipes.
#include <unistd.h>
#include "timing.h"

int main(int count, char **arguments) {
  long number = turns(count, arguments);
  int there[2], back[2];
  char byte = 0;
  if (pipe(there) || pipe(back)) return 1;
  pid_t child = fork();
  if (child < 0) return 1;
  if (child == 0) {
    close(there[1]);
    while (read(there[0], &byte, 1) == 1) {
      if (write(back[1], &byte, 1) != 1) _exit(1);
    }
    _exit(0);
  }
  double start = now();
  for (long i = 0; i < number; i++) {
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) return 1;
  }
  report(start, number);
}
