// A read of one byte from /dev/zero.
#include <fcntl.h>
#include <unistd.h>
#include "timing.h"

int main(int count, char **arguments) {
  long number = turns(count, arguments);
  int zero = open("/dev/zero", O_RDONLY);
  char byte;
  double start = now();
  for (long i = 0; i < number; i++) {
    if (read(zero, &byte, 1) != 1) return 1;
  }
  report(start, number);
}
