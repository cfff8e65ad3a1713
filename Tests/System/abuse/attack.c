// Ways around the gate, one by the first argument; none may reach a file of the host.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *path;

static void report(const char *name, long result) {
  char bytes[4096];
  long count = result >= 0 && result < 1024 ? read(result, bytes, sizeof bytes) : -1;
  printf("%s %s\n", name, count > 0 ? "REACHED" : "refused");
  fflush(stdout);
}

// 32-bit calls: open is number 5 there; the pointer must lie in the low 4 GiB.
static long interrupt(const char *low) {
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(5L), "b"(low), "c"(0L), "d"(0L) : "memory");
  return result;
}

// The x32 ABI's numbers.
static long raw(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}

int main(int count, char **arguments) {
  if (count < 3) return 100;
  path = arguments[2];
  char *low = mmap((void *)0x10000000, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  strcpy(low, path);
  if (!strcmp(arguments[1], "int80")) report("int80", interrupt(low));
  if (!strcmp(arguments[1], "x32")) {
    report("x32 open", raw(0x40000002, (long)path, 0, 0));
    report("x32 openat", raw(0x40000101, -100, (long)path, 0));
  }
  if (!strcmp(arguments[1], "raw")) {
    // Built at run time, so that nobody can have patched it, and jumped over in the middle.
    unsigned char code[] = {0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xd6, 0x48, 0x89, 0xca, 0x0f, 0x05, 0xc3};
    unsigned char *page = mmap(0, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(page, code, sizeof code);
    report("raw", ((long (*)(long, long, long, long))page)(SYS_open, (long)path, 0, 0));
  }
  if (!strcmp(arguments[1], "host") && count > 4) {
    // The host's own call instruction, called directly: ADDRESS NUMBER.
    long (*host)(long, long, long, long, long, long, long) = (void *)strtoul(arguments[3], 0, 16);
    long number = atol(arguments[4]), first = (long)path, second = 0;
    if (number == SYS_openat) { first = -100; second = (long)path; }
    if (number == SYS_socket) { first = 2; second = 1; }
    if (number == SYS_mmap) { printf("mmap %ld\n", host(9, 0, 4096, 1, 2, 0, 0)); fflush(stdout); return 0; }
    report("host", host(number, first, second, 0, 0, 0, 0));
  }
  return 0;
}
