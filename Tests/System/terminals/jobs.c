/* Prints what sessions, process groups and their terminal do; the same text is expected everywhere. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static int master, slave;
static volatile sig_atomic_t caught;

static void note(int signal) { caught |= 1 << signal; }

static void catch(int signal, int flags) {
  struct sigaction a = {.sa_handler = note, .sa_flags = flags};
  sigaction(signal, &a, 0);
}

static void result(const char *what, long value) {
  printf("%s: %ld %s\n", what, value, value < 0 ? strerror(errno) : "");
  errno = 0;
}

/* What wait says of a child: its status, without its number. */
static void wait_for(const char *what, pid_t child, int options) {
  int status = 0;
  pid_t found = 0;
  for (int i = 0; i < 200 && found == 0; i++) {
    found = waitpid(child, &status, options | WNOHANG);
    if (found == 0) usleep(10000);
  }
  printf("%s: %s %x\n", what, found == child ? "found" : found == 0 ? "nothing" : strerror(errno), status);
}

static void type(const char *text) {
  if (write(master, text, strlen(text)) != (long)strlen(text)) perror("write");
  usleep(100000);
}

static void in_terminal(const char *text) {
  char bytes[4096];
  long total = 0, count;
  usleep(50000);
  while ((count = read(master, bytes + total, sizeof bytes - 1 - total)) > 0) total += count;
  bytes[total] = 0;
  printf("%s: %s\n", text, strstr(bytes, text) ? "seen" : bytes);
}

/* A child in its own group; in the foreground if asked for. */
static pid_t job(int foreground, void (*body)(void)) {
  pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);
    close(master);
    signal(SIGTTOU, SIG_IGN);
    if (foreground) tcsetpgrp(slave, getpid());
    signal(SIGTTOU, SIG_DFL);
    body();
    _exit(0);
  }
  setpgid(child, child);
  usleep(200000);
  return child;
}

static void foreground(pid_t group) {
  signal(SIGTTOU, SIG_IGN);
  if (tcsetpgrp(slave, group)) perror("tcsetpgrp");
  signal(SIGTTOU, SIG_DFL);
}

static void waiting(void) { for (;;) pause(); }

static void reading(void) {
  char bytes[64];
  long count = read(slave, bytes, sizeof bytes);
  _exit(count < 0 ? 100 + errno : count);
}

static void reading_with_handler(void) {
  catch(SIGTTIN, 0);
  char bytes[64];
  long count = read(slave, bytes, sizeof bytes);
  _exit(count < 0 ? 100 + errno : count);
}

static void reading_ignoring(void) {
  signal(SIGTTIN, SIG_IGN);
  reading();
}

static void writing(void) { _exit(write(slave, "written\n", 8) == 8 ? 8 : 100 + errno); }

static void setting(void) {
  struct termios t;
  tcgetattr(slave, &t);
  _exit(tcsetattr(slave, TCSANOW, &t) ? 100 + errno : 9);
}

static void polling(void) {
  struct pollfd p = {slave, POLLIN, 0};
  int found = poll(&p, 1, 5000);
  _exit(found == 1 ? 10 : 100 + errno);
}

static void window(void) {
  struct winsize w;
  catch(SIGWINCH, 0);
  char byte;
  while (!caught) if (read(slave, &byte, 1) >= 0 || errno != EINTR) _exit(1);
  ioctl(slave, TIOCGWINSZ, &w);
  _exit(w.ws_col);
}

static void handling_stop(void) {
  catch(SIGTSTP, SA_RESTART);
  catch(SIGCONT, SA_RESTART);
  while (!(caught & 1 << SIGTSTP)) usleep(1000);
  signal(SIGTSTP, SIG_DFL);
  raise(SIGTSTP);
  _exit(caught & 1 << SIGCONT ? 11 : 1);
}

static void stops(void) {
  printf("-- stops\n");
  pid_t child = job(1, waiting);
  type("\x1a");
  wait_for("control-Z", child, WUNTRACED);
  wait_for("told once", child, WUNTRACED);
  kill(-child, SIGCONT);
  wait_for("continued", child, WCONTINUED);
  type("\x03");
  wait_for("control-C", child, WUNTRACED);
  child = job(1, waiting);
  type("\x1c");
  int status = 0;
  waitpid(child, &status, 0);
  printf("control-backslash: %d\n", WTERMSIG(status));
  child = job(1, handling_stop);
  type("\x1a");
  wait_for("handled", child, WUNTRACED);
  kill(-child, SIGCONT);
  wait_for("went on", child, WUNTRACED);
  child = job(1, waiting);
  kill(child, SIGSTOP);
  wait_for("SIGSTOP", child, WUNTRACED);
  kill(child, SIGTERM);
  wait_for("still stopped", child, WUNTRACED);
  kill(child, SIGCONT);
  wait_for("ended when continued", child, WUNTRACED);
  child = job(1, waiting);
  kill(child, SIGSTOP);
  wait_for("SIGSTOP", child, WUNTRACED);
  kill(child, SIGKILL);
  wait_for("SIGKILL", child, WUNTRACED);
  siginfo_t information;
  child = job(1, waiting);
  type("\x1a");
  memset(&information, 0, sizeof information);
  waitid(P_PID, child, &information, WSTOPPED | WNOWAIT);
  printf("waitid: %d %d\n", information.si_code, information.si_status);
  waitid(P_PID, child, &information, WSTOPPED);
  printf("waitid: %d %d\n", information.si_code, information.si_status);
  kill(child, SIGKILL);
  wait_for("killed", child, 0);
  foreground(getpgrp());
}

static void background(void) {
  printf("-- background\n");
  pid_t child = job(0, reading);
  wait_for("read", child, WUNTRACED);
  foreground(child);
  kill(-child, SIGCONT);
  type("hello\n");
  wait_for("read again", child, WUNTRACED);
  foreground(getpgrp());
  child = job(0, reading_with_handler);
  wait_for("with a handler", child, WUNTRACED);
  child = job(0, reading_ignoring);
  wait_for("ignoring SIGTTIN", child, WUNTRACED);
  child = job(0, writing);
  wait_for("write", child, WUNTRACED);
  struct termios t;
  tcgetattr(slave, &t);
  t.c_lflag |= TOSTOP;
  tcsetattr(slave, TCSANOW, &t);
  child = job(0, writing);
  wait_for("write with TOSTOP", child, WUNTRACED);
  foreground(child);
  kill(-child, SIGCONT);
  wait_for("write again", child, WUNTRACED);
  foreground(getpgrp());
  t.c_lflag &= ~TOSTOP;
  tcsetattr(slave, TCSANOW, &t);
  child = job(0, setting);
  wait_for("tcsetattr", child, WUNTRACED);
  foreground(child);
  kill(-child, SIGCONT);
  wait_for("tcsetattr again", child, WUNTRACED);
  child = job(1, polling);
  type("\x1a");
  wait_for("poll stopped", child, WUNTRACED);
  kill(-child, SIGCONT);
  usleep(50000);
  type("x\n");
  wait_for("poll", child, WUNTRACED);
  tcflush(slave, TCIFLUSH);
  child = job(1, window);
  struct winsize w = {10, 77, 0, 0};
  ioctl(master, TIOCSWINSZ, &w);
  wait_for("window", child, WUNTRACED);
  foreground(getpgrp());
}

static void calls(void) {
  printf("-- calls\n");
  result("TIOCGPGRP", tcgetpgrp(slave) == getpgrp());
  result("TIOCGPGRP of the master", tcgetpgrp(master) == getpgrp());
  result("TIOCGSID", tcgetsid(slave) == getsid(0));
  result("a group that is not", tcsetpgrp(slave, 30000));
  result("a negative group", tcsetpgrp(slave, -5));
  result("a group of another session", tcsetpgrp(slave, getppid()));
  int fd = open("/dev/tty", O_RDWR);
  result("/dev/tty", fd >= 0);
  result("/dev/tty is a terminal", isatty(fd));
  close(fd);
  result("setsid of a leader", setsid());
  result("TIOCSCTTY again", ioctl(slave, TIOCSCTTY, 0));
  char name[64];
  result("ttyname", ttyname_r(slave, name, sizeof name));
  pid_t child = fork();
  if (child == 0) {
    char byte;
    setsid();
    result("/dev/tty without a terminal", open("/dev/tty", O_RDWR));
    result("TIOCGPGRP without a terminal", tcgetpgrp(slave));
    result("TIOCSCTTY of a terminal in use", ioctl(slave, TIOCSCTTY, 0));
    result("read of another session's terminal", read(open(ptsname(master), O_RDWR | O_NONBLOCK), &byte, 1));
    int m, s;
    openpty(&m, &s, 0, 0, 0);
    result("O_NOCTTY", tcgetsid(s));
    close(open(ptsname(m), O_RDWR));
    result("open acquires", tcgetsid(s) == getsid(0));
    result("TIOCNOTTY", ioctl(s, TIOCNOTTY));
    result("no terminal", open("/dev/tty", O_RDWR));
    _exit(0);
  }
  waitpid(child, 0, 0);
}

static void orphan(void) {
  printf("-- orphans\n");
  fflush(stdout);
  pid_t child = job(0, reading);
  wait_for("stopped", child, WUNTRACED);
  kill(child, SIGKILL);
  wait_for("killed", child, 0);
  int ends[2];
  if (pipe(ends)) return;
  pid_t parent = fork();
  if (parent == 0) {
    setpgid(0, 0);
    pid_t grandchild = fork();
    if (grandchild == 0) {
      setpgid(0, 0);
      catch(SIGHUP, 0);
      catch(SIGCONT, 0);
      raise(SIGSTOP);
      usleep(50000);
      int found = caught;
      char byte;
      long count = read(slave, &byte, 1);
      int error = errno;
      raise(SIGTSTP);
      dprintf(ends[1], "orphan: hung up %d, continued %d, read %ld %s", !!(found & 1 << SIGHUP),
              !!(found & 1 << SIGCONT), count, strerror(error));
      _exit(0);
    }
    setpgid(grandchild, grandchild);
    waitpid(grandchild, 0, WUNTRACED);
    _exit(0);
  }
  waitpid(parent, 0, 0);
  close(ends[1]);
  char text[200];
  long total = 0, count;
  while ((count = read(ends[0], text + total, sizeof text - total)) > 0) total += count;
  printf("%.*s\n", (int)total, text);
}

static void hang_up(void) {
  printf("-- hang-up\n");
  int ends[2];
  if (pipe(ends)) return;
  catch(SIGHUP, 0);
  catch(SIGCONT, 0);
  caught = 0;
  pid_t child = job(1, waiting);
  close(master);
  usleep(100000);
  printf("leader: hung up %d, continued %d\n", !!(caught & 1 << SIGHUP), !!(caught & 1 << SIGCONT));
  wait_for("the foreground lives", child, WUNTRACED);
  result("/dev/tty", open("/dev/tty", O_RDWR));
  result("TIOCGPGRP", tcgetpgrp(slave) >= 0);
  char byte;
  result("read", read(slave, &byte, 1));
  result("write", write(slave, "x", 1));
  kill(child, SIGKILL);
  wait_for("killed", child, 0);
}

/* The end of a session leader: its foreground group hears of it. */
static void leader_ends(void) {
  int ends[2], ready[2];
  if (pipe(ends) || pipe(ready)) return;
  printf("-- the leader ends\n");
  fflush(stdout);
  int m;
  pid_t leader = forkpty(&m, 0, 0, 0);
  if (leader == 0) {
    pid_t child = fork();
    if (child == 0) {
      setpgid(0, 0);
      signal(SIGTTOU, SIG_IGN);
      tcsetpgrp(0, getpid());
      catch(SIGHUP, 0);
      if (write(ready[1], ".", 1) != 1) _exit(1);
      while (!caught) usleep(1000);
      const char *found = open("/dev/tty", O_RDWR) < 0 ? strerror(errno) : "there";
      dprintf(ends[1], "hung up, /dev/tty %s, group %ld", found, (long)tcgetpgrp(0));
      _exit(0);
    }
    char byte;
    if (read(ready[0], &byte, 1) != 1) _exit(1);
    _exit(3);
  }
  int status;
  waitpid(leader, &status, 0);
  close(ends[1]);
  char text[200];
  long total = 0, count;
  while ((count = read(ends[0], text + total, sizeof text - total)) > 0) total += count;
  printf("%x %.*s\n", status, (int)total, text);
}

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  pid_t first = fork();
  if (first) {
    int status;
    waitpid(first, &status, 0);
    if (WIFSIGNALED(status)) printf("killed by %d\n", WTERMSIG(status));
    return WEXITSTATUS(status);
  }
  setsid();
  openpty(&master, &slave, 0, 0, 0);
  fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK);
  result("TIOCSCTTY", ioctl(slave, TIOCSCTTY, 0));
  alarm(60);
  calls();
  stops();
  in_terminal("^Z");
  background();
  in_terminal("written");
  orphan();
  leader_ends();
  hang_up();
  return 5;
}
