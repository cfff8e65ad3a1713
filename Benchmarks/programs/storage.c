// storage MEASURE DIRECTORY COUNT: nanoseconds per turn (or per MiB) of one use of a file system.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "timing.h"

enum { CHUNK = 1 << 20, PAGE = 4096 };
static char buffer[CHUNK];

static void check(int ok, const char *what) {
  if (ok) return;
  perror(what);
  exit(1);
}

static void write_file(int count) {
  int file = open("big", O_RDWR | O_CREAT | O_TRUNC, 0644);
  check(file >= 0, "open");
  for (int i = 0; i < count; i++) {
    memset(buffer, i, CHUNK);
    check(write(file, buffer, CHUNK) == CHUNK, "write");
  }
  check(fsync(file) == 0, "fsync");
  close(file);
}

static void read_file(int count) {
  int file = open("big", O_RDONLY);
  check(file >= 0, "open");
  for (int i = 0; i < count; i++) {
    check(read(file, buffer, CHUNK) == CHUNK, "read");
    check(buffer[7] == (char)i, "contents");
  }
  close(file);
}

static void small_files(int count) {
  for (int i = 0; i < count; i++) {
    char name[32];
    snprintf(name, sizeof name, "small-%d", i % 16);
    int file = open(name, O_RDWR | O_CREAT | O_EXCL, 0644);
    check(file >= 0 && write(file, buffer, 1000) == 1000 && fsync(file) == 0, "small file");
    close(file);
    check(unlink(name) == 0, "unlink");
  }
}

static void random_reads(int count) {
  int file = open("big", O_RDONLY);
  struct stat status;
  check(file >= 0 && fstat(file, &status) == 0, "open");
  unsigned long pages = status.st_size / PAGE, state = 1;
  for (int i = 0; i < count; i++) {
    state = state * 6364136223846793005ul + 1442695040888963407ul;
    check(pread(file, buffer, PAGE, (state >> 33) % pages * PAGE) == PAGE, "pread");
  }
  close(file);
}

static void opens(int count) {
  for (int i = 0; i < count; i++) {
    struct stat status;
    int file = open("big", O_RDONLY);
    check(file >= 0 && fstat(file, &status) == 0 && close(file) == 0, "open");
  }
}

int main(int arguments, char **argument) {
  check(arguments == 4 && chdir(argument[2]) == 0, "storage MEASURE DIRECTORY COUNT");
  static const struct {
    const char *name;
    void (*body)(int);
    int is_warm;
  } measures[] = {{"write", write_file, 0}, {"read", read_file, 0},      {"read-warm", read_file, 1},
                  {"small", small_files, 0}, {"random", random_reads, 1}, {"open", opens, 1}};
  int count = atoi(argument[3]);
  for (unsigned i = 0; i < sizeof measures / sizeof *measures; i++) {
    if (strcmp(measures[i].name, argument[1])) continue;
    if (measures[i].is_warm) {
      read_file(256);
      measures[i].body(count / 10 + 1);
    }
    double start = now();
    measures[i].body(count);
    report(start, count);
    return 0;
  }
  return 1;
}
