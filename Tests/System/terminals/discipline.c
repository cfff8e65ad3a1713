/* Prints what a pseudo-terminal's line discipline does; the same text is expected everywhere. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

static int master, slave;

static void show(const char *what, const char *bytes, long count) {
  printf("%s:", what);
  if (count < 0) printf(" %s", strerror(errno));
  for (long i = 0; i < count; i++)
    if (bytes[i] > 32 && bytes[i] < 127) putchar(bytes[i]);
    else printf("<%02x>", (unsigned char)bytes[i]);
  putchar('\n');
}

static void drain(const char *what, int fd) {
  char bytes[8192];
  long total = 0;
  struct pollfd p = {fd, POLLIN, 0};
  poll(&p, 1, 150);
  usleep(10000);
  for (;;) {
    long count = read(fd, bytes + total, sizeof bytes - total);
    if (count <= 0) {
      if (total == 0) return show(what, bytes, count);
      break;
    }
    total += count;
    if (fd == slave) {
      show(what, bytes, total);
      total = 0;
      usleep(1000);
    }
  }
  if (total) show(what, bytes, total);
}

static void type(const char *text, long count) {
  show("type", text, count);
  if (write(master, text, count) != count) perror("write");
  drain(" echo", master);
  drain(" read", slave);
}
#define TYPE(text) type(text, sizeof text - 1)

static void print(const char *text) {
  show("print", text, strlen(text));
  if (write(slave, text, strlen(text)) != (long)strlen(text)) perror("write");
  drain(" seen", master);
}

static struct termios initial;

static void mode(const char *name, tcflag_t input, tcflag_t output, tcflag_t local) {
  struct termios t = initial;
  printf("-- %s\n", name);
  t.c_iflag = input;
  t.c_oflag = output;
  t.c_lflag = local;
  if (tcsetattr(slave, TCSAFLUSH, &t)) perror("tcsetattr");
  drain(" rest", master);
}

static void lines(void) {
  TYPE("abc\r");
  TYPE("abx\x7f" "c\r");
  TYPE("one two\x17x\n");
  TYPE("a.b/c_d  \x17\x17\x17z\n");
  TYPE("no\x15yes\n");
  TYPE("\x16\x03\n");
  TYPE("\x16\n\n");
  TYPE("\x1b[A\n");
  TYPE("a\tb\x7f\x7f" "c\n");
  TYPE("ab\x01\x7f" "c\n");
  TYPE("ab\x12" "cd\n");
  TYPE("one\ntwo\nthree");
  TYPE("\x04");
  TYPE("\x04");
  TYPE("\x04\x04");
  TYPE("ab\xc3\xa4\x7f\n");
  TYPE("lost\x03kept\n");
  TYPE("lost\x1c\n");
  TYPE("\x13");
  TYPE("held");
  TYPE("\x11\n");
}

static void canonical(void) {
  mode("default", initial.c_iflag, initial.c_oflag, initial.c_lflag);
  lines();
  mode("utf-8", initial.c_iflag | IUTF8, initial.c_oflag, initial.c_lflag);
  TYPE("ab\xc3\xa4\x7f\n");
  TYPE("ab \xc3\xa4\xc3\xb6 c\x17\x17\n");
  mode("without ECHOE", initial.c_iflag, initial.c_oflag, initial.c_lflag & ~ECHOE);
  TYPE("ab\x7f" "c\x15" "d\n");
  mode("without ECHOKE", initial.c_iflag, initial.c_oflag, initial.c_lflag & ~ECHOKE);
  TYPE("ab\x7f" "c\x15" "d\n");
  mode("without ECHOCTL", initial.c_iflag, initial.c_oflag, initial.c_lflag & ~ECHOCTL);
  TYPE("ab\x01\x7f" "c\x16\x05\n");
  mode("without ECHO", initial.c_iflag, initial.c_oflag, initial.c_lflag & ~ECHO);
  TYPE("ab\x7f\n");
  mode("ECHONL", initial.c_iflag, initial.c_oflag, (initial.c_lflag & ~ECHO) | ECHONL);
  TYPE("ab\x7f\n");
  mode("without IEXTEN", initial.c_iflag, initial.c_oflag, initial.c_lflag & ~IEXTEN);
  TYPE("ab\x17\x16\n");
  mode("without ISIG", initial.c_iflag, initial.c_oflag, initial.c_lflag & ~ISIG);
  TYPE("ab\x03\x1a\n");
  mode("NOFLSH", initial.c_iflag, initial.c_oflag, initial.c_lflag | NOFLSH);
  TYPE("ab\x03" "c\n");
  mode("IGNCR", initial.c_iflag | IGNCR, initial.c_oflag, initial.c_lflag);
  TYPE("a\rb\n");
  mode("INLCR", (initial.c_iflag & ~ICRNL) | INLCR, initial.c_oflag, initial.c_lflag);
  TYPE("a\nb\x04");
  mode("ISTRIP, IUCLC", initial.c_iflag | ISTRIP | IUCLC, initial.c_oflag, initial.c_lflag);
  TYPE("A\xc1Z\n");
  mode("IXANY", initial.c_iflag | IXANY, initial.c_oflag, initial.c_lflag);
  TYPE("\x13");
  TYPE("a\n");
  struct termios t = initial;
  t.c_cc[VEOL] = ';';
  t.c_cc[VEOL2] = '!';
  tcsetattr(slave, TCSANOW, &t);
  printf("-- VEOL\n");
  TYPE("ab;cd!ef\n");
}

static void output(void) {
  tcflag_t outputs[] = {0, OPOST, OPOST | ONLCR, OPOST | OCRNL, OPOST | ONOCR, OPOST | ONLRET, OPOST | ONLCR | XTABS,
                        OPOST | OLCUC};
  const char *names[] = {"raw", "OPOST", "ONLCR", "OCRNL", "ONOCR", "ONLRET", "XTABS", "OLCUC"};
  for (int i = 0; i < 8; i++) {
    mode(names[i], initial.c_iflag, outputs[i], initial.c_lflag);
    print("\r");
    print("a\tbc\td\r\n\rx\n\by\t\n");
    print("\r\n");
  }
}

static void timed(cc_t minimum, cc_t time, int typed, int count) {
  struct termios t = initial;
  char bytes[64];
  cfmakeraw(&t);
  t.c_cc[VMIN] = minimum;
  t.c_cc[VTIME] = time;
  tcsetattr(slave, TCSAFLUSH, &t);
  if (write(master, "abcdefgh", typed) != typed) perror("write");
  struct pollfd p = {slave, POLLIN | POLLOUT, 0};
  poll(&p, 1, 100);
  printf("VMIN %d VTIME %d typed %d poll %x ", minimum, time, typed, p.revents);
  show("read", bytes, read(slave, bytes, count));
}

static void raw(void) {
  struct termios t = initial;
  fcntl(slave, F_SETFL, O_RDWR);
  timed(1, 0, 3, 64);
  timed(3, 0, 3, 64);
  timed(5, 0, 5, 2);
  timed(5, 0, 2, 2);
  timed(0, 0, 0, 64);
  timed(0, 0, 2, 64);
  timed(0, 1, 0, 64);
  timed(0, 1, 2, 64);
  timed(5, 1, 2, 64);
  fcntl(slave, F_SETFL, O_RDWR | O_NONBLOCK);
  timed(0, 0, 0, 64);
  timed(0, 1, 0, 64);
  timed(1, 0, 0, 64);
  timed(5, 0, 2, 64);
  int n = -1;
  printf("-- queues\n");
  tcsetattr(slave, TCSAFLUSH, &initial);
  if (write(master, "one\ntwo\nthr", 11) != 11) perror("write");
  usleep(20000);
  ioctl(slave, FIONREAD, &n);
  printf("FIONREAD %d\n", n);
  cfmakeraw(&t);
  tcsetattr(slave, TCSANOW, &t);
  ioctl(slave, FIONREAD, &n);
  printf("FIONREAD raw %d\n", n);
  tcsetattr(slave, TCSANOW, &initial);
  drain("back to lines", slave);
  if (write(master, "one\ntwo\n", 8) != 8) perror("write");
  usleep(20000);
  tcflush(slave, TCIFLUSH);
  drain("flushed", slave);
  ioctl(slave, TIOCOUTQ, &n);
  printf("TIOCOUTQ %d\n", n);
  tcflush(master, TCIOFLUSH);
  drain("echo", master);
  for (int i = 0; i < 5000; i++) if (write(master, "a", 1) != 1) break;
  if (write(master, "\n", 1) != 1) perror("write");
  usleep(20000);
  ioctl(slave, FIONREAD, &n);
  printf("a long line: %d\n", n);
  tcflush(slave, TCIOFLUSH);
  drain("echo", master);
}

static void packets(void) {
  int on = 1, off = 0;
  printf("-- packet mode\n");
  mode("default", initial.c_iflag, initial.c_oflag, initial.c_lflag);
  ioctl(master, TIOCPKT, &on);
  print("x\n");
  tcflush(slave, TCIFLUSH);
  struct pollfd p = {master, POLLIN | POLLPRI, 0};
  poll(&p, 1, 100);
  printf("poll %x\n", p.revents);
  drain("flush", master);
  tcflow(slave, TCOOFF);
  drain("off", master);
  tcflow(slave, TCOON);
  drain("on", master);
  struct termios t = initial;
  t.c_iflag &= ~IXON;
  tcsetattr(slave, TCSANOW, &t);
  drain("without IXON", master);
  tcsetattr(slave, TCSANOW, &initial);
  drain("with IXON", master);
  ioctl(master, TIOCPKT, &off);
}

static void ends(void) {
  struct stat s;
  struct winsize w = {11, 22, 33, 44};
  int n = -1;
  printf("-- the pair\n");
  fstat(slave, &s);
  printf("%o %d %d %d\n", s.st_mode & 0170000, major(s.st_rdev), isatty(slave), isatty(master));
  ioctl(master, TIOCSWINSZ, &w);
  memset(&w, 0, sizeof w);
  ioctl(slave, TIOCGWINSZ, &w);
  printf("%d %d %d %d\n", w.ws_row, w.ws_col, w.ws_xpixel, w.ws_ypixel);
  int peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK);
  fstat(peer, &s);
  printf("peer %d %o\n", peer >= 0, s.st_mode & 0170000);
  close(peer);
  printf("TIOCGETD %d %d\n", ioctl(slave, TIOCGETD, &n), n);
  printf("unknown %d %s\n", ioctl(slave, 0x5499, &n), strerror(errno));
  printf("TIOCGPTN of the slave %d %s\n", ioctl(slave, TIOCGPTN, &n), strerror(errno));
  if (write(slave, "last", 4) != 4) perror("write");
  close(slave);
  slave = -1;
  struct pollfd p = {master, POLLIN, 0};
  usleep(20000);
  poll(&p, 1, 100);
  printf("poll %x\n", p.revents);
  char bytes[64];
  show("master", bytes, read(master, bytes, 64));
  show("master", bytes, read(master, bytes, 64));
  p.events = POLLIN;
  poll(&p, 1, 100);
  printf("poll %x\n", p.revents);
  slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_NONBLOCK);
  poll(&p, 1, 10);
  printf("opened again: %d poll %x\n", slave >= 0, p.revents);
  show("master", bytes, read(master, bytes, 64));
  const char *name = ptsname(master);
  close(master);
  p.fd = slave;
  p.events = POLLIN | POLLOUT;
  poll(&p, 1, 100);
  printf("hung up: poll %x\n", p.revents);
  show("slave", bytes, read(slave, bytes, 64));
  n = write(slave, "x", 1);
  printf("write %d %s\n", n, strerror(errno));
  n = tcsetattr(slave, TCSANOW, &initial);
  printf("tcsetattr %d %s\n", n, strerror(errno));
  printf("isatty %d\n", isatty(slave));
  n = open(name, O_RDWR | O_NOCTTY);
  printf("open %d %s\n", n, strerror(errno));
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  setsid();
  master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
  char *name = ptsname(master);
  int locked = open(name, O_RDWR | O_NOCTTY);
  printf("locked %d %s\n", locked, strerror(errno));
  if (grantpt(master) || unlockpt(master)) perror("unlockpt");
  printf("named %d\n", strncmp(name, "/dev/pts/", 9) == 0);
  slave = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
  tcgetattr(slave, &initial);
  printf("%x %x %x %x\n", initial.c_iflag, initial.c_oflag, initial.c_cflag, initial.c_lflag);
  for (int i = 0; i < 17; i++) printf("%x ", initial.c_cc[i]);
  putchar('\n');
  canonical();
  output();
  raw();
  packets();
  ends();
  return 0;
}
