// NUMBER processes at once that do the same amount of work each: the time until all are done.
#include <sys/wait.h>
#include <unistd.h>
#include "timing.h"

int main(int count, char **arguments) {
  long number = turns(count, arguments);
  double start = now();
  for (long i = 0; i < number; i++) {
    if (fork() == 0) {
      for (volatile long step = 0; step < 50000000; step++) ;
      _exit(0);
    }
  }
  while (wait(0) > 0) ;
  report(start, 1);
}
