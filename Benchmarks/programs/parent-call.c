// getppid(2): a call that takes the kernel lock and looks at shared state.
#include <unistd.h>
#include "timing.h"

int main(int count, char **arguments) {
  long number = turns(count, arguments);
  getppid();
  double start = now();
  for (long i = 0; i < number; i++) getppid();
  report(start, number);
}
