// Linux calls that the importer does not see: glibc declares them for _GNU_SOURCE only, or they are variadic.
#pragma once

#include <sys/ioctl.h>

int memfd_create(const char *name, unsigned int flags);
int pipe2(int descriptors[2], int flags);

// MFD_CLOEXEC of linux/memfd.h.
#define MEMFD_CLOSE_ON_EXEC 1u

static inline int ioctl_pointer(int descriptor, unsigned long request, void *argument) {
  return ioctl(descriptor, request, argument);
}

static inline int ioctl_value(int descriptor, unsigned long request, unsigned long argument) {
  return ioctl(descriptor, request, argument);
}
