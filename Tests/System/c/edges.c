// What Linux answers at the edges of calls: arguments that mean nothing, and what is asked of a stopped process.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static void show(const char *what, long result) {
  printf("%s: %ld %s\n", what, result, result < 0 ? strerrorname_np(errno) : "");
}

static void directories(void) {
  char bytes[16];
  struct iovec vector = {bytes, sizeof bytes};
  int directory = open("/", O_RDONLY | O_DIRECTORY);
  show("pread of a directory", pread(directory, bytes, sizeof bytes, 0));
  show("preadv of a directory", preadv(directory, &vector, 1, 0));
  close(directory);
  struct timespec times[2] = {{1000, 0}, {2000, 0}};
  show("utimensat of nothing", utimensat(AT_FDCWD, NULL, times, 0));
}

static void controls(void) {
  show("slack", prctl(PR_GET_TIMERSLACK));
  show("slack set", prctl(PR_SET_TIMERSLACK, 70000));
  if (fork() == 0) {
    show("child's slack", prctl(PR_GET_TIMERSLACK));
    prctl(PR_SET_TIMERSLACK, 1);
    prctl(PR_SET_TIMERSLACK, 0);
    show("child's usual slack", prctl(PR_GET_TIMERSLACK));
    fflush(stdout);
    _exit(0);
  }
  wait(NULL);
  prctl(PR_SET_TIMERSLACK, 0);
  show("slack again", prctl(PR_GET_TIMERSLACK));
  show("no_new_privs with more", prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0));
  show("thp_disable with more", prctl(PR_SET_THP_DISABLE, 0, 1, 0, 0));
  show("ambient clear with more", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 1, 0, 0));
}

static void sockets(void) {
  int pair[2];
  show("pair of raw", socketpair(AF_INET, SOCK_RAW, 0, pair));
  show("pair of streams", socketpair(AF_INET, SOCK_STREAM, 0, pair));
  int mark, datagrams = socket(AF_INET, SOCK_DGRAM, 0);
  show("mark of datagrams", ioctl(datagrams, 0x8905, &mark));
  close(datagrams);
}

static void memory(void) {
  struct shmid_ds status;
  int segment = shmget(IPC_PRIVATE, 4096, 0600 | IPC_CREAT);
  show("lock", shmctl(segment, SHM_LOCK, NULL));
  shmctl(segment, IPC_STAT, &status);
  printf("mode %o\n", status.shm_perm.mode & 07777);
  show("unlock", shmctl(segment, SHM_UNLOCK, NULL));
  shmctl(segment, IPC_STAT, &status);
  printf("mode %o\n", status.shm_perm.mode & 07777);
  shmctl(segment, IPC_RMID, NULL);
}

// Who attaches to a process that has stopped may ask of it at once.
static void stopped(void) {
  int status;
  pid_t child = fork();
  if (child == 0) {
    raise(SIGSTOP);
    _exit(3);
  }
  waitpid(child, &status, WUNTRACED);
  show("attach", ptrace(PTRACE_ATTACH, child, NULL, NULL));
  show("poke", ptrace(PTRACE_POKEUSER, child, (void *)offsetof(struct user, u_debugreg[0]), (void *)2));
  show("peek", ptrace(PTRACE_PEEKUSER, child, (void *)offsetof(struct user, u_debugreg[0]), NULL));
  show("detach", ptrace(PTRACE_DETACH, child, NULL, NULL));
  kill(child, SIGCONT);
  waitpid(child, &status, 0);
  printf("status %x\n", status);
}

int main(void) {
  directories();
  fflush(stdout);
  controls();
  sockets();
  memory();
  fflush(stdout);
  stopped();
}
