// Linux calls that the importer does not see: glibc declares them for _GNU_SOURCE only, or they are variadic.
#pragma once

#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

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

// Swift's own import hides fork; one thread makes it safe here.
static inline int fork_process(void) { return fork(); }

// The caller gets `signal` when the process that made it ends (PR_SET_PDEATHSIG).
static inline int set_parent_death_signal(int signal) { return prctl(PR_SET_PDEATHSIG, signal); }
