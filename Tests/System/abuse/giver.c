// Takes 100 MiB in one way after the other and gives it back; waits for a line after each step.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void step(const char *name) {
  char c;
  printf("%s\n", name);
  fflush(stdout);
  while (read(0, &c, 1) == 1 && c != '\n') ;
}

int main(void) {
  size_t size = 100 << 20;
  step("start");
  char *p = mmap(0, size, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(p, 1, size);
  step("with private memory");
  madvise(p, size, MADV_DONTNEED);
  step("without private memory");
  char *s = mmap(0, size, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  memset(s, 1, size);
  step("with shared memory");
  munmap(s, size);
  step("without shared memory");
  pid_t child = fork();
  if (child == 0) { memset(p, 1, size); pause(); }
  usleep(500000);
  step("with a child");
  kill(child, 9);
  waitpid(child, 0, 0);
  usleep(100000);
  step("without a child");
  mkdir("/tmp", 0777);
  int file = open("/tmp/file", O_CREAT | O_RDWR, 0600);
  static char block[65536];
  memset(block, 1, sizeof block);
  for (size_t i = 0; i < size; i += sizeof block) if (write(file, block, sizeof block) < 0) return 1;
  step("with a file");
  close(file);
  unlink("/tmp/file");
  step("without a file");
  puts("end");
  return 0;
}
