// What one part of Linux's interface calls a thing, another understands: mounts, processes, logins, interfaces, terminals' settings.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termio.h>
#include <unistd.h>

// TIOCGLCKTRMIOS and TIOCSLCKTRMIOS take the kernel's structure.
struct kernel_termios {
  unsigned input, output, control, local;
  unsigned char line, characters[19];
};

// Whether /proc/self/mountinfo has the mount of `path` under the number that statx and /proc/self/fdinfo give.
static int is_listed(const char *path) {
  struct statx status;
  if (statx(AT_FDCWD, path, 0, 0x1000, &status)) return 0;
  char line[512];
  unsigned long number, parent, own = 0, parents = 0, told = 0;
  FILE *list = fopen("/proc/self/mountinfo", "r");
  while (fgets(line, sizeof line, list))
    if (sscanf(line, "%lu %lu", &number, &parent) == 2 && number == status.stx_mnt_id) own++;
  rewind(list);
  while (fgets(line, sizeof line, list))
    if (sscanf(line, "%lu %lu", &number, &parent) == 2 && parent == status.stx_mnt_id) parents++;
  fclose(list);
  int descriptor = open(path, O_RDONLY);
  sprintf(line, "/proc/self/fdinfo/%d", descriptor);
  list = fopen(line, "r");
  while (fgets(line, sizeof line, list)) sscanf(line, "mnt_id: %lu", &told);
  fclose(list);
  close(descriptor);
  if (strcmp(path, "/dev") == 0 && parents == 0) return 0;  // /dev/pts lies on it
  return own == 1 && told == status.stx_mnt_id;
}

static void tell(const char *what, int descriptor, int number, siginfo_t *information) {
  errno = 0;
  long result = syscall(SYS_pidfd_send_signal, descriptor, number, information, 0);
  printf("%s: %ld %d\n", what, result, errno);
}

static void processes(void) {
  pid_t child = fork();
  if (child == 0) {
    for (;;) pause();
  }
  char path[64];
  sprintf(path, "/proc/%d", child);
  int directory = open(path, O_DIRECTORY);
  sprintf(path, "/proc/%d/task/%d", child, child);
  int task = open(path, O_DIRECTORY), other = open("/proc/self", O_DIRECTORY), file = open("/dev/null", O_RDONLY);
  tell("signal 0", directory, 0, 0);
  tell("to a thread's directory", task, 0, 0);
  tell("to a file", file, 0, 0);
  tell("to oneself", other, 0, 0);
  siginfo_t information = {.si_signo = SIGUSR1, .si_code = SI_QUEUE};
  tell("of another number", directory, SIGUSR2, &information);
  tell("kill", directory, SIGKILL, 0);
  int status;
  waitpid(child, &status, 0);
  printf("status %x\n", status);
  tell("after its end", directory, 0, 0);
}

static unsigned number(const char *path) {
  unsigned value = 0;
  FILE *file = fopen(path, "r");
  fscanf(file, "%u", &value);
  fclose(file);
  return value;
}

static void log_in(const char *path, const char *user) {
  int file = open(path, O_WRONLY);
  errno = 0;
  long result = write(file, user, strlen(user));
  printf("login of %s: %ld %d\n", user, result, errno);
  close(file);
}

static void logins(void) {
  fflush(stdout);
  if (fork() == 0) {
    char parent[64];
    sprintf(parent, "/proc/%d/loginuid", getppid());
    log_in(parent, "1");
    log_in("/proc/self/loginuid", "x");
    log_in("/proc/self/loginuid", "99999999999");
    log_in("/proc/self/loginuid", "7");
    unsigned session = number("/proc/self/sessionid");
    if (fork() == 0) {
      printf("%u, the same session %d\n", number("/proc/self/loginuid"), session == number("/proc/self/sessionid"));
      exit(0);
    }
    wait(0);
    log_in("/proc/self/loginuid", "8");
    printf("%u, another session %d\n", number("/proc/self/loginuid"), session != number("/proc/self/sessionid"));
    log_in("/proc/self/loginuid", "4294967295");
    printf("%u %u\n", number("/proc/self/loginuid"), number("/proc/self/sessionid"));
    exit(0);
  }
  wait(0);
}

static void interfaces(void) {
  int socket_descriptor = socket(AF_INET, SOCK_DGRAM, 0);
  struct ifreq request;
  memset(&request, 0, sizeof request);
  strcpy(request.ifr_name, "lo");
  printf("SIOCGIFTXQLEN %d", ioctl(socket_descriptor, SIOCGIFTXQLEN, &request));
  printf(" %d\n", request.ifr_qlen);
  printf("SIOCGIFMETRIC %d", ioctl(socket_descriptor, SIOCGIFMETRIC, &request));
  printf(" %d\n", request.ifr_metric);
  printf("SIOCGIFDSTADDR %d", ioctl(socket_descriptor, SIOCGIFDSTADDR, &request));
  printf(" %s\n", inet_ntoa(((struct sockaddr_in *)&request.ifr_dstaddr)->sin_addr));
  printf("SIOCGIFMAP %d", ioctl(socket_descriptor, SIOCGIFMAP, &request));
  printf(" %lx %x\n", request.ifr_map.mem_start, request.ifr_map.irq);
}

static void terminals(void) {
  int master = posix_openpt(O_RDWR | O_NOCTTY);
  grantpt(master);
  unlockpt(master);
  int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
  struct termio old;
  memset(&old, 0, sizeof old);
  printf("TCGETA %d\n", ioctl(slave, TCGETA, &old));
  printf("%x %x %x %x %x %x\n", old.c_iflag, old.c_oflag, old.c_cflag, old.c_lflag, old.c_line, old.c_cc[VINTR]);
  old.c_lflag &= ~(ECHO | ICANON);
  old.c_cc[VINTR] = 7;
  printf("TCSETA %d TCSETAW %d TCSETAF %d\n", ioctl(slave, TCSETA, &old), ioctl(slave, TCSETAW, &old),
         ioctl(slave, TCSETAF, &old));
  struct kernel_termios settings, locked;
  ioctl(slave, 0x5401, &settings);
  printf("%x %x\n", settings.local, settings.characters[0]);
  printf("TIOCGLCKTRMIOS %d\n", ioctl(slave, TIOCGLCKTRMIOS, &locked));
  struct kernel_termios none;
  memset(&none, 0, sizeof none);
  printf("nothing is locked: %d\n", memcmp(&locked, &none, sizeof none) == 0);
  locked.local = 8;  // ECHO
  locked.characters[0] = 1;
  printf("TIOCSLCKTRMIOS %d\n", ioctl(slave, TIOCSLCKTRMIOS, &locked));
  settings.local |= 0xa;
  settings.characters[0] = 3;
  printf("TCSETS %d\n", ioctl(slave, 0x5402, &settings));
  ioctl(slave, 0x5401, &settings);
  printf("%x %x\n", settings.local, settings.characters[0]);
}

int main(void) {
  setbuf(stdout, 0);
  printf("mounts: %d %d %d\n", is_listed("/"), is_listed("/proc"), is_listed("/dev"));
  processes();
  logins();
  interfaces();
  terminals();
}
