// launch TURNS PROGRAM ARGUMENT...: runs the program to its end, again and again.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include "timing.h"

extern char **environ;

int main(int count, char **arguments) {
  long number = turns(count, arguments);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  double start = now();
  for (long i = 0; i < number; i++) {
    pid_t child;
    int status;
    if (posix_spawn(&child, arguments[2], &actions, 0, arguments + 2, environ)) return 1;
    if (waitpid(child, &status, 0) != child || status != 0) return 1;
  }
  report(start, number);
}
