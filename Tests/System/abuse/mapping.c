// The mmap(2) family by its man pages: prints what is wrong, "done" at the end. Runs on Linux too.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition) do { if (!(condition)) { printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); } } while (0)
#define FAILS(call, number) do { errno = 0; CHECK((long)(call) == -1 && errno == number); } while (0)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
enum { P = 4096, RW = PROT_READ | PROT_WRITE };

static sigjmp_buf back;
static volatile int code, expected;
static void caught(int signal, siginfo_t *information, void *context) {
  (void)context;
  if (!expected) { dprintf(1, "fault at %p\n", information->si_addr); _exit(99); }
  code = information->si_code;
  siglongjmp(back, signal);
}
static int touch(volatile char *p, int writes) {
  int signal = sigsetjmp(back, 1);
  if (signal) { expected = 0; return signal; }
  expected = 1;
  if (writes) *p = 1; else (void)*p;
  expected = 0;
  return 0;
}

static void remapping(void) {
  char *a = mmap(0, 4 * P, RW, ANON, -1, 0);
  for (int i = 0; i < 4; i++) a[i * P] = i + 1;
  char *b = mremap(a, 4 * P, 64 * P, MREMAP_MAYMOVE);
  CHECK(b != MAP_FAILED && b[3 * P] == 4 && b[63 * P] == 0);
  char *target = mmap(0, 8 * P, RW, ANON, -1, 0);
  target[0] = 9;
  char *c = mremap(b, 64 * P, 8 * P, MREMAP_MAYMOVE | MREMAP_FIXED, target);
  CHECK(c == target && c[0] == 1 && c[3 * P] == 4);
  CHECK(touch(b, 0) == SIGSEGV && touch(b + 40 * P, 0) == SIGSEGV);
  FAILS(mremap(c, 8 * P, 8 * P, MREMAP_FIXED, c + 64 * P), EINVAL);
  FAILS(mremap(c, 8 * P, 8 * P, MREMAP_MAYMOVE | MREMAP_FIXED, c + 4 * P), EINVAL);
  FAILS(mremap(c + 1, P, P, MREMAP_MAYMOVE), EINVAL);
  FAILS(mremap(c, 8 * P, 0, MREMAP_MAYMOVE), EINVAL);
  munmap(c + 2 * P, P);
  FAILS(mremap(c, 8 * P, 16 * P, MREMAP_MAYMOVE), EFAULT);
  char *d = mmap(0, 2 * P, RW, ANON, -1, 0);
  d[0] = 7;
  char *e = mremap(d, 2 * P, 2 * P, MREMAP_MAYMOVE | 4 /* DONTUNMAP */);
  // Kernels before 5.7 do not know it.
  CHECK((e == MAP_FAILED && errno == EINVAL) || (e != d && e[0] == 7 && d[0] == 0));
  char *shared = mmap(0, 2 * P, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  shared[0] = 5;
  char *twice = mremap(shared, 0, 2 * P, MREMAP_MAYMOVE);
  CHECK(twice != MAP_FAILED && twice[0] == 5);
  if (twice != MAP_FAILED) { twice[0] = 6; CHECK(shared[0] == 6); }
  char *grown = mremap(shared, 2 * P, 4 * P, MREMAP_MAYMOVE);
  CHECK(grown != MAP_FAILED && grown[0] == 6);
  if (grown != MAP_FAILED) CHECK(touch(grown + 3 * P, 1) == SIGBUS);
}

static void placing(void) {
  char *a = mmap(0, 4 * P, RW, ANON, -1, 0);
  FAILS(mmap(a + P, P, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
  munmap(a + P, P);
  CHECK(mmap(a + P, P, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == a + P);
  char *low = mmap(0, P, RW, ANON | MAP_32BIT, -1, 0);
  CHECK(low != MAP_FAILED && (unsigned long)low < 1UL << 31);
  FAILS(mmap(0, 0, RW, ANON, -1, 0), EINVAL);
  FAILS(mmap(0, P, RW, MAP_ANONYMOUS, -1, 0), EINVAL);
  FAILS(mmap((char *)1, P, RW, ANON | MAP_FIXED, -1, 0), EINVAL);
  FAILS(mmap(0, P, RW, MAP_PRIVATE, -1, 0), EBADF);
  CHECK(mmap(0, 4 * P, RW, ANON | MAP_POPULATE, -1, 0) != MAP_FAILED);
  for (int i = 0; i < 20; i++) {
    char *huge = mmap(0, 200UL << 30, PROT_NONE, ANON | MAP_NORESERVE, -1, 0);
    CHECK(huge != MAP_FAILED);
    CHECK(mprotect(huge + (100UL << 30), 16 * P, RW) == 0);
    huge[100UL << 30] = 1;
    CHECK(munmap(huge, 200UL << 30) == 0);
  }
  FAILS(munmap(a + 1, P), EINVAL);
  FAILS(munmap(a, 0), EINVAL);
  CHECK(munmap(a, 4 * P) == 0 && munmap(a, 4 * P) == 0);
}

static void growing(void) {
  char *area = mmap(0, 1024 * P, PROT_NONE, ANON, -1, 0);
  munmap(area, 1024 * P);
  char *stack = mmap(area + 1000 * P, P, RW, ANON | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
  CHECK(stack != MAP_FAILED);
  for (int i = 0; i < 100; i++) CHECK(touch(stack - i * P, 1) == 0);
}

static void protecting(void) {
  char *a = mmap(0, 8 * P, RW, ANON, -1, 0);
  memset(a, 1, 8 * P);
  CHECK(mprotect(a + 2 * P, 3 * P, PROT_READ) == 0 && mprotect(a + P, 2 * P, PROT_NONE) == 0);
  CHECK(touch(a, 1) == 0 && touch(a + P, 0) == SIGSEGV && touch(a + 2 * P, 0) == SIGSEGV);
  CHECK(touch(a + 3 * P, 0) == 0 && touch(a + 3 * P, 1) == SIGSEGV && code == SEGV_ACCERR);
  CHECK(mprotect(a, 8 * P, RW) == 0 && a[2 * P] == 1);
  munmap(a + 4 * P, P);
  FAILS(mprotect(a, 8 * P, PROT_READ), ENOMEM);
  CHECK(touch(a, 1) == SIGSEGV && touch(a + 5 * P, 1) == 0);
  FAILS(mprotect(a + 1, P, RW), EINVAL);
  FAILS(mprotect(a, P, 0x80), EINVAL);
  CHECK(touch(a + 4 * P, 0) == SIGSEGV && code == SEGV_MAPERR);
}

static void advising(void) {
  char *a = mmap(0, 4 * P, RW, ANON, -1, 0);
  memset(a, 3, 4 * P);
  CHECK(madvise(a, 2 * P, MADV_DONTNEED) == 0 && a[0] == 0 && a[2 * P] == 3);
  CHECK(madvise(a, 4 * P, MADV_FREE) == 0);
  FAILS(madvise(a + 1, P, MADV_DONTNEED), EINVAL);
  FAILS(madvise(a, P, 999), EINVAL);
  memset(a, 3, 4 * P);
  CHECK(madvise(a, P, MADV_WIPEONFORK) == 0 && madvise(a + P, P, MADV_DONTFORK) == 0);
  pid_t child = fork();
  if (child == 0) _exit(a[0] == 0 && a[2 * P] == 3 && touch(a + P, 0) == SIGSEGV ? 0 : 1);
  int status;
  waitpid(child, &status, 0);
  CHECK(status == 0);
  CHECK(a[0] == 3 && a[P] == 3);
  munmap(a + P, P);
  FAILS(madvise(a, 4 * P, MADV_DONTNEED), ENOMEM);
  FAILS(msync(a, 4 * P, MS_SYNC), ENOMEM);
  FAILS(msync(a, P, MS_SYNC | MS_ASYNC), EINVAL);
  FAILS(msync(a + 1, P, MS_SYNC), EINVAL);
  CHECK(msync(a, P, MS_SYNC) == 0);
  unsigned char vector[4];
  CHECK(mincore(a, P, vector) == 0);
  FAILS(mincore(a, 4 * P, vector), ENOMEM);
  FAILS(mincore(a + 1, P, vector), EINVAL);
  CHECK(mlock(a, P) == 0 && munlock(a, P) == 0);
  FAILS(mlock(a, 4 * P), ENOMEM);
  FAILS(mlockall(0), EINVAL);
  FAILS(mlockall(64), EINVAL);
}

static void files(void) {
  int file = open("/tmp/mapped", O_RDWR | O_CREAT | O_TRUNC, 0600);
  CHECK(ftruncate(file, 3 * P + 100) == 0);
  char *a = mmap(0, 8 * P, RW, MAP_SHARED, file, 0);
  char *p = mmap(0, 8 * P, RW, MAP_PRIVATE, file, 0);
  CHECK(a != MAP_FAILED && p != MAP_FAILED);
  a[3 * P + 50] = 'x';
  CHECK(p[3 * P + 50] == 'x');
  CHECK(touch(a + 4 * P, 0) == SIGBUS && code == BUS_ADRERR && touch(p + 5 * P, 1) == SIGBUS);
  CHECK(ftruncate(file, P) == 0);
  CHECK(touch(a, 1) == 0 && touch(a + P, 0) == SIGBUS && touch(p + 2 * P, 0) == SIGBUS);
  CHECK(ftruncate(file, 6 * P) == 0);
  CHECK(touch(a + 5 * P, 1) == 0 && a[3 * P + 50] == 0 && touch(a + 6 * P, 0) == SIGBUS);
  int reader = open("/tmp/mapped", O_RDONLY), writer = open("/tmp/mapped", O_WRONLY);
  FAILS(mmap(0, P, RW, MAP_SHARED, reader, 0), EACCES);
  FAILS(mmap(0, P, PROT_READ, MAP_SHARED, writer, 0), EACCES);
  char *r = mmap(0, P, PROT_READ, MAP_SHARED, reader, 0);
  FAILS(mprotect(r, P, RW), EACCES);
  FAILS(mmap(0, P, PROT_READ, MAP_SHARED, reader, 1), EINVAL);
  pid_t child = fork();
  if (child == 0) {
    a[0] = 'c';
    p[0] = 'd';
    usleep(200000);
    _exit(touch(a + 3 * P, 0) == SIGBUS ? 0 : 1);
  }
  usleep(100000);
  CHECK(a[0] == 'c' && p[0] != 'd');
  CHECK(ftruncate(file, 2 * P) == 0);
  int status;
  waitpid(child, &status, 0);
  CHECK(status == 0);
  char hole[P];
  CHECK(pwrite(file, "end", 3, 1L << 40) == 3 && pread(file, hole, P, 1L << 39) == P && hole[7] == 0);
  CHECK(lseek(file, 4 * P, SEEK_DATA) == 1L << 40);
  CHECK(lseek(file, 1L << 40, SEEK_HOLE) == (1L << 40) + 3);
}

static void seals(void) {
  int file = memfd_create("sealed", MFD_ALLOW_SEALING);
  CHECK(ftruncate(file, P) == 0 && fcntl(file, F_GET_SEALS) == 0);
  char *a = mmap(0, P, RW, MAP_SHARED, file, 0);
  FAILS(fcntl(file, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
  munmap(a, P);
  CHECK(fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
  FAILS(ftruncate(file, 1), EPERM);
  FAILS(ftruncate(file, 2 * P), EPERM);
  CHECK(write(file, "x", 1) == 1);
  CHECK(fcntl(file, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) == 0);
  FAILS(write(file, "x", 1), EPERM);
  FAILS(mmap(0, P, RW, MAP_SHARED, file, 0), EPERM);
  FAILS(fcntl(file, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
  CHECK(fcntl(file, F_GET_SEALS) == (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL));
  CHECK(fcntl(memfd_create("plain", 0), F_GET_SEALS) == F_SEAL_SEAL);
}

static int exceeded;
static void note(int signal) { exceeded = signal; }

static void limits(void) {
  struct rlimit old, limit;
  getrlimit(RLIMIT_AS, &old);
  limit = old;
  limit.rlim_cur = 1UL << 30;
  pid_t child = fork();
  if (child == 0) {
    setrlimit(RLIMIT_AS, &limit);
    FAILS(mmap(0, 1UL << 30, PROT_NONE, ANON, -1, 0), ENOMEM);
    CHECK(mmap(0, 1UL << 20, RW, ANON, -1, 0) != MAP_FAILED);
    struct rlimit data = {64 << 20, 64 << 20};
    setrlimit(RLIMIT_DATA, &data);
    FAILS(mmap(0, 65UL << 20, RW, ANON, -1, 0), ENOMEM);
    char *end = sbrk(0);
    CHECK(sbrk(70 << 20) == (void *)-1 && sbrk(0) == end);
    CHECK(sbrk(P) == end);
    if (sbrk(0) != end) end[0] = 1;
    CHECK(sbrk(-P) != (void *)-1 && sbrk(0) == end);
    end = mmap(0, 4 * P, RW, ANON, -1, 0);
    signal(SIGXFSZ, note);
    struct rlimit file = {10000, 10000};
    setrlimit(RLIMIT_FSIZE, &file);
    int f = open("/tmp/limited", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(pwrite(f, end, P, 8192) == 10000 - 8192);
    CHECK(exceeded == 0);
    FAILS(pwrite(f, "x", 1, 10000), EFBIG);
    CHECK(exceeded == SIGXFSZ);
    FAILS(ftruncate(f, 10001), EFBIG);
    fflush(stdout);
    _exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  CHECK(status == 0);
}

static void sharing(void) {
  int *shared = mmap(0, P, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  int *copied = mmap(0, P, RW, ANON, -1, 0);
  *shared = *copied = 1;
  pid_t child = fork();
  if (child == 0) { *shared = 2; *copied = 2; _exit(0); }
  waitpid(child, 0, 0);
  CHECK(*shared == 2 && *copied == 1);
}

int main(void) {
  setvbuf(stdout, 0, _IONBF, 0);
  struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigaction(SIGSEGV, &action, 0);
  sigaction(SIGBUS, &action, 0);
  remapping();
  placing();
  growing();
  protecting();
  advising();
  files();
  seals();
  limits();
  sharing();
  puts("done");
  return 0;
}
