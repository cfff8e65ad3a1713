// Linux calls that the importer does not see: glibc declares them for _GNU_SOURCE only, or they are variadic.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/xattr.h>
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

// Whether virtual machines run here with KVM.
int kvm_usable(void);
// Starts a program that dies with this process, in a process group of its own; -1 when there is no process.
int start_companion(const char *program, char *const arguments[]);

// A descriptor on which the blocked signals of `set` arrive.
static inline int signal_descriptor(const sigset_t *set) { return signalfd(-1, set, SFD_CLOEXEC); }
// The next signal of a signal descriptor, 0 without, and the value that came with it.
static inline int next_signal(int descriptor, int *value) {
  struct signalfd_siginfo information;
  if (read(descriptor, &information, sizeof information) != sizeof information) return 0;
  *value = information.ssi_int;
  return (int)information.ssi_signo;
}

// Changes the memory of a running image: a signal with a value.
static inline int memory_limit_signal(void) { return SIGRTMIN + 1; }
static inline int queue_signal(int process, int signal, int value) {
  union sigval content = {.sival_int = value};
  return sigqueue(process, signal, content);
}
// Waits for one of the signals of `set`: its number, and the value that came with it. -1 when interrupted.
static inline int wait_signal(const sigset_t *set, int *value) {
  siginfo_t information;
  int signal = sigwaitinfo(set, &information);
  if (signal > 0) *value = information.si_value.sival_int;
  return signal;
}
