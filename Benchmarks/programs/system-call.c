// getpid(2) through the C library's wrapper, whose site the gate patches on first use.
#include <unistd.h>
#include "timing.h"

int main(int count, char **arguments) {
  long number = turns(count, arguments);
  getpid();
  double start = now();
  for (long i = 0; i < number; i++) getpid();
  report(start, number);
}
