#include "host_command.h"
#include <signal.h>
#include <sys/prctl.h>

int start_companion(const char *program, char *const arguments[]) {
  int process = fork();
  if (process != 0) return process;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, 0);
  int input = open("/dev/null", O_RDONLY);
  dup2(input, 0);
  dup2(2, 1);
  execv(program, arguments);
  _exit(127);
}
