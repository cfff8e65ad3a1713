// tree walk DIR: one number for all names, kinds, modes, sizes and contents below DIR, whatever their order.
// tree make DIR COUNT: a tree of COUNT files with odd names. tree copy FROM TO: writes it anew.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef unsigned long number;
static number sum, files;
static char buffer[1 << 20];

static number hash(number state, const void *bytes, size_t count) {
  const unsigned char *byte = bytes;
  for (size_t i = 0; i < count; i++) state = (state ^ byte[i]) * 0x100000001b3ul;
  return state;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

// Only what is not zero counts, by its place: so holes take no time.
static number contents(int file, number state) {
  off_t place = 0;
  struct stat status;
  fstat(file, &status);
  while (place < status.st_size) {
    off_t data = lseek(file, place, SEEK_DATA);
    if (data < 0) break;
    place = data & ~4095l;
    ssize_t count = pread(file, buffer, sizeof buffer, place);
    if (count <= 0) fail("pread");
    for (ssize_t at = 0; at < count; at += 4096) {
      ssize_t part = count - at < 4096 ? count - at : 4096, i = 0;
      while (i < part && !buffer[at + i]) i++;
      if (i == part) continue;
      number offset = place + at;
      state = hash(hash(state, &offset, 8), buffer + at, part);
    }
    place += count;
  }
  return state;
}

static void walk(int directory, number path) {
  DIR *stream = fdopendir(directory);
  if (!stream) fail("fdopendir");
  for (struct dirent *entry; (entry = readdir(stream));) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || !strcmp(entry->d_name, "lost+found")) continue;
    struct stat status;
    if (fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW)) fail("fstatat");
    number own = hash(path, entry->d_name, strlen(entry->d_name) + 1), state = hash(own, &status.st_mode, 4);
    files++;
    if (S_ISREG(status.st_mode)) {
      int file = openat(directory, entry->d_name, O_RDONLY);
      if (file < 0) fail("openat");
      state = contents(file, hash(state, &status.st_size, 8));
      close(file);
    } else if (S_ISLNK(status.st_mode)) {
      ssize_t length = readlinkat(directory, entry->d_name, buffer, sizeof buffer);
      state = hash(state, buffer, length);
    }
    sum += state * 0x9e3779b97f4a7c15ul;
    if (S_ISDIR(status.st_mode)) walk(openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY), own);
  }
  closedir(stream);
}

static void make(const char *path, long count) {
  if ((mkdir(path, 0755) && errno != EEXIST) || chdir(path)) fail(path);
  number state = 1;
  int directory = -1;
  for (long i = 0; i < count; i++) {
    char name[300];
    if (i % 1000 == 0) {
      snprintf(name, sizeof name, "directory %ld", i / 1000);
      if (mkdir(name, 0750)) fail(name);
      if (directory >= 0) close(directory);
      directory = open(name, O_RDONLY | O_DIRECTORY);
    }
    int length = snprintf(name, sizeof name, "%ld-", i);
    state = state * 6364136223846793005ul + 1442695040888963407ul;
    for (int extra = i % 97 == 0 ? 255 - length : (state >> 40) % 30; extra > 0; extra--) {
      state = state * 6364136223846793005ul + 1442695040888963407ul;
      char byte = state >> 33;
      name[length++] = byte && byte != '/' ? byte : '?';
    }
    name[length] = 0;
    if (i % 50 == 49) {
      for (int at = 0; at < 200; at++) buffer[at] = 'a' + at % 26;
      buffer[i % 200 + 1] = 0;
      if (symlinkat(buffer, directory, name)) fail("symlinkat");
      continue;
    }
    int file = openat(directory, name, O_CREAT | O_EXCL | O_WRONLY, 0600 + i % 64);
    if (file < 0) fail("openat");
    long size = i % 100 == 7 ? 100000 : i % 3 ? (state >> 35) % 5000 : 0;
    for (long at = 0; at < size; at++) buffer[at] = (i * 7 + at * (at >> 8 | 1)) >> 1;
    if (write(file, buffer, size) != size) fail("write");
    fchmod(file, 0600 + i % 64);
    close(file);
  }
  int file = open("sparse", O_CREAT | O_WRONLY, 0600);
  for (number place = 0; place < 4ul << 30; place += 300ul << 20)
    if (pwrite(file, "data", 4, place + 5) != 4) fail("pwrite");
  if (ftruncate(file, (4ul << 30) + 77)) fail("ftruncate");
  close(file);
  char deep[4000] = ".";
  for (int i = 0; i < 60; i++) {
    snprintf(deep + strlen(deep), 60, "/a directory with a name that takes room %d", i);
    if (mkdir(deep, 0700)) fail(deep);
  }
}

static void copy(int from, int to) {
  DIR *stream = fdopendir(from);
  for (struct dirent *entry; (entry = readdir(stream));) {
    const char *name = entry->d_name;
    if (!strcmp(name, ".") || !strcmp(name, "..") || !strcmp(name, "lost+found")) continue;
    struct stat status;
    if (fstatat(from, name, &status, AT_SYMLINK_NOFOLLOW)) fail("fstatat");
    if (S_ISLNK(status.st_mode)) {
      char target[4096];
      target[readlinkat(from, name, target, sizeof target - 1)] = 0;
      if (symlinkat(target, to, name)) fail("symlinkat");
    } else if (S_ISDIR(status.st_mode)) {
      if (mkdirat(to, name, 0700)) fail("mkdirat");
      copy(openat(from, name, O_RDONLY), openat(to, name, O_RDONLY));
      fchmodat(to, name, status.st_mode & 07777, 0);
    } else {
      int in = openat(from, name, O_RDONLY), out = openat(to, name, O_CREAT | O_EXCL | O_WRONLY, 0600);
      if (in < 0 || out < 0) fail(name);
      for (off_t place = 0, data; (data = lseek(in, place, SEEK_DATA)) >= 0;) {
        ssize_t count = pread(in, buffer, 4096, data & ~4095l);
        if (count <= 0 || pwrite(out, buffer, count, data & ~4095l) != count) fail("copy");
        place = (data & ~4095l) + count;
      }
      if (ftruncate(out, status.st_size)) fail("ftruncate");
      fchmod(out, status.st_mode & 07777);
      close(in);
      close(out);
    }
  }
  closedir(stream);
  close(to);
}

int main(int count, char **argument) {
  umask(0);
  if (count == 4 && !strcmp(argument[1], "make")) return make(argument[2], atol(argument[3])), 0;
  int directory = open(argument[2], O_RDONLY | O_DIRECTORY);
  if (directory < 0) fail(argument[2]);
  if (count == 4) return copy(directory, open(argument[3], O_RDONLY | O_DIRECTORY)), sync(), 0;
  walk(directory, 1);
  printf("%lu files %016lx\n", files, sum);
  return 0;
}
